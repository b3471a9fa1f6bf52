"""Drawings of a result on any canvas; its door is `panels.draw_panels`."""
