"""Turn a scan into the network's input; its door is `prepare`."""

from edge_spine.preprocessing.prepare import prepare

__all__ = ["prepare"]
