"""The command `edge-spine`; the entry point is `main.main`."""
