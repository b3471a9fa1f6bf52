"""The verb ``verify``."""

from __future__ import annotations

import argparse

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
    from edge_spine.engines import EngineName, open_engine
    from edge_spine.engines.forms import tensorrt_form
    from edge_spine.engines.verification import verify

    bundle = load_bundle(arguments.model)
    with open_engine(bundle, arguments.engine, threads=arguments.threads, precision=arguments.precision) as engine:
        verification = verify(bundle, engine)
    report, text = verification.to_dict(), verification.table()
    if engine.name == EngineName.TENSORRT:
        from edge_spine.engines.tensorrt.engine import kept_verdict
        from edge_spine.engines.tensorrt.verdict import in_words

        verdict = kept_verdict(bundle, tensorrt_form(engine.precision))
        report["plan"] = verdict
        text += f"\nplan when it was built: {in_words(verdict) if verdict else 'not kept'}"
    tell(arguments, report, text)
    return DONE if verification.passed else PARTLY
