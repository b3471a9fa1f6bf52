"""Simulate scans of people with real bone, for training and for evaluation on unseen people.

`make_person` poses the bone of packs (CT or meshes) on a random curve and scans it.
"""

from export.training.people.packs import pack_names
from export.training.people.person import PersonScan, make_person

__all__ = ["PersonScan", "make_person", "pack_names"]
