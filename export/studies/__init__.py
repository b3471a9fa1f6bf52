"""Single studies of the data, the network and its training, one module each."""
