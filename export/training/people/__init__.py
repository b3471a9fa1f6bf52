"""People whose spines are real bone, for training and for judging on people that training never saw.

`make_person` poses the bone of packs in a folder, CT or meshes, on a drawn curve and scans it.
"""

from export.training.people.packs import pack_names
from export.training.people.person import PersonScan, make_person

__all__ = ["PersonScan", "make_person", "pack_names"]
