"""The verb ``model``."""

from __future__ import annotations

import argparse

from edge_spine.cli.common import DONE, Verbs, tell


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add("model", run, "show a model's card", "edge-spine model show --model lite", verbs.model)
    verb.add_argument("action", choices=("show",), help="print the card: intended use, data, accuracy, limits, licence")


def run(arguments: argparse.Namespace) -> int:
    """Print the card that is in the bundle."""
    from edge_spine.bundle import load_bundle

    bundle = load_bundle(arguments.model)
    card = bundle.read(bundle.file_with_role("card")).decode("utf-8")
    named = {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256, "card": card}
    tell(arguments, named, card.rstrip())
    return DONE
