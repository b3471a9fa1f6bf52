"""Synthetic absorptiometry phantoms, and training on them."""
