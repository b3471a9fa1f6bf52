"""The verb ``verify``."""

from __future__ import annotations

import argparse
import json

from edge_spine.cli.common import DONE, PARTLY, Verbs, tell


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verbs.add(
        "verify",
        run,
        "compare the engine's output with the PyTorch reference",
        "edge-spine verify --engine onnx-cpu",
        verbs.engine,
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the engine's output with the references in the bundle."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines import open_engine
    from edge_spine.engines.verification import verify

    bundle = load_bundle(arguments.model)
    with open_engine(bundle, arguments.engine, threads=arguments.threads, precision=arguments.precision) as engine:
        verification = verify(bundle, engine)
    tell(json.dumps(verification.to_dict()) if arguments.json else verification.table())
    return DONE if verification.passed else PARTLY
