"""Generate synthetic people and their scans; the entry point is `phantom.make_phantom`."""
