"""Pairs of DXA scans and MRIs become training samples; the door is `align`, the command."""
