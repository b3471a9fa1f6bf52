"""Convert pairs of DXA scans and MRIs to training samples; the entry point is the command `align`."""
