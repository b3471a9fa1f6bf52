"""Convert a PyTorch checkpoint to a model bundle."""
