"""From a file to a `Scan`: one file per kind of input, and the checks that they share; its door is `read_scan`."""

from __future__ import annotations

from edge_spine.reading.read import read_scan

__all__ = ["read_scan"]
