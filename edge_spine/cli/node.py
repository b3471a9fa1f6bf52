"""The verb ``node``."""

from __future__ import annotations

import argparse
import logging
from contextlib import closing
from functools import partial
from pathlib import Path

from edge_spine.cli.common import DONE, INTERRUPTED, Verbs, need, print_report

_log = logging.getLogger("edge_spine.cli")


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "node",
        run,
        "run a DICOM node: receive scans and send results by C-STORE",
        "edge-spine node --config node.toml",
        verbs.output,
    )
    verb.add_argument("--config", metavar="FILE", type=Path, required=True, help="see edge_spine/node/README.md")


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
        _log.warning(
            "%s listens on %s:%d; results go to %s at %s:%d",
            config.ae_title,
            config.host,
            config.port,
            where.ae_title,
            where.host,
            where.port,
        )
        node.run()
        return INTERRUPTED if was_interrupted() else DONE
