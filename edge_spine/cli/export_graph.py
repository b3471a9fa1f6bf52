"""The verb ``export-graph``."""

from __future__ import annotations

import argparse
import hashlib

from edge_spine.cli.common import DONE, PARTLY, Verbs, place, tell
from edge_spine.engines.forms import FP16, FP32, INT8_TENSORRT
from edge_spine.errors import reason_of


def add_to(verbs: Verbs) -> None:
    """Register the verb."""
    verb = verbs.add(
        "export-graph",
        run,
        "write the network as an ONNX file for trtexec, Triton or DeepStream, after comparing it with PyTorch",
        "edge-spine export-graph --form int8-trt spine.onnx",
        verbs.model,
    )
    verb.add_argument("file", metavar="FILE", type=place, help="the ONNX file to write")
    verb.add_argument(
        "--form", choices=(INT8_TENSORRT, FP16, FP32), default=INT8_TENSORRT, help="precision (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write one form of the network, or nothing if it misses its tolerance."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.forms import form_graph
    from edge_spine.engines.onnx import OnnxEngine
    from edge_spine.engines.verification import verify
    from edge_spine.errors import OutputError, UsageError
    from edge_spine.files import write_files

    if not arguments.file.name or arguments.file.is_dir():
        raise UsageError(f"{arguments.file}: this is a folder; the name of a file is expected")
    bundle = load_bundle(arguments.model)
    graph = form_graph(bundle, arguments.form)
    with OnnxEngine(graph, precision=arguments.form, as_written=True) as engine:
        verification = verify(bundle, engine)
    if verification.passed:
        try:
            write_files(arguments.file.parent, {arguments.file.name: graph})
        except OSError as error:
            raise OutputError(f"{arguments.file}: cannot be written ({reason_of(error)})") from None
    report = {
        "form": arguments.form,
        "file": str(arguments.file) if verification.passed else None,
        "sha256": hashlib.sha256(graph).hexdigest(),
        "verification": verification.to_dict(),
    }
    tell(arguments, report, verification.table())
    return DONE if verification.passed else PARTLY
