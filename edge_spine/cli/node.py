"""The verb ``node``."""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial
from importlib import resources

from edge_spine.cli.common import DONE, INTERRUPTED, Verbs, complain, need, place, print_report


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "node",
        run,
        "run a DICOM node: receive scans and send results by C-STORE",
        "edge-spine node --config node.toml",
        verbs.output,
    )
    page = resources.files("edge_spine") / "node/README.md"
    verb.add_argument(
        "--config", metavar="FILE", type=place, required=True, help=f"settings of the node, as described in {page}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    need("node", "pynetdicom", "highdicom", "prometheus_client", "filelock")
    from edge_spine.node.config import load_config
    from edge_spine.node.service import Node
    from edge_spine.node.signals import until_signal

    config = load_config(arguments.config)
    with (
        closing(Node(config, partial(print_report, arguments))) as node,
        until_signal(node.end) as was_interrupted,
    ):
        where = config.destination
        if arguments.verbosity >= 0:
            here, there = f"{config.host}:{config.port}", f"{where.ae_title} at {where.host}:{where.port}"
            complain(f"{config.ae_title} listens on {here}; results go to {there}")
        node.run()
        return INTERRUPTED if was_interrupted() else DONE
