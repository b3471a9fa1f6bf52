"""The verb ``demo``."""

from __future__ import annotations

import argparse
from importlib.resources import files

from edge_spine.cli.common import Verbs
from edge_spine.cli.run import run_scans
from edge_spine.reading.files import find_scans

DEMO_SCAN = str(files("edge_spine") / "data/synthetic_whole_body.dcm")


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "demo",
        run,
        "estimate the spine in the bundled synthetic scan",
        "edge-spine demo --out results",
        verbs.writing,
        verbs.engine,
    )
    verb.set_defaults(pixel_spacing=None, imager_spacing=False)


def run(arguments: argparse.Namespace) -> int:
    """Estimate the spine in the bundled scan."""
    return run_scans(arguments, find_scans([DEMO_SCAN]))
