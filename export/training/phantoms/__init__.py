"""Synthetic people and their scans; the door is `phantom.make_phantom`."""
