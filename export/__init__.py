"""The PyTorch side of edge-spine: from a checkpoint to a model bundle."""
