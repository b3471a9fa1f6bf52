"""From a scan to the network's input and the map back to millimetres; its door is `prepare`."""

from __future__ import annotations

from edge_spine.preprocessing.prepare import prepare

__all__ = ["prepare"]
