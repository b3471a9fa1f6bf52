"""Load and check a model on disk; its door is `load_bundle`."""

from edge_spine.bundle.load import load_bundle

__all__ = ["load_bundle"]
