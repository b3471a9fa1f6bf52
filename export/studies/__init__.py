"""Questions about the data, the network and its training that were asked once; one module each."""
