"""The command `edge-spine`; the door is `main.main`."""
