"""Pictures of a result; its door is `panels.draw_panels`."""
