"""Generate training data and train the networks."""
