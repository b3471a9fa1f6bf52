"""Results as files, one module per format; its door is `write_outputs`."""

from edge_spine.outputs.registry import write_outputs

__all__ = ["write_outputs"]
