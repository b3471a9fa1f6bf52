"""edge-spine: the 3D spine of a person from one whole-body DXA scan. Research use only. Not for diagnosis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_spine.version import __version__

if TYPE_CHECKING:
    from edge_spine.estimator import SpineEstimator
    from edge_spine.reading import read_scan
    from edge_spine.result import SpineResult
    from edge_spine.scan import Scan

__all__ = ["Scan", "SpineEstimator", "SpineResult", "__version__", "read_scan"]

_HOMES = {
    "Scan": "edge_spine.scan",
    "SpineEstimator": "edge_spine.estimator",
    "SpineResult": "edge_spine.result",
    "read_scan": "edge_spine.reading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: NumPy, OpenCV and pydicom take time to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
