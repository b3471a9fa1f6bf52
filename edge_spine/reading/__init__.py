"""Read a file into a `Scan`, one module for each kind of input; its door is `read_scan`."""

from edge_spine.reading.read import read_scan

__all__ = ["read_scan"]
