"""The command `edge-spine`; its door is `main.main`."""
