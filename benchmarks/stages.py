"""The runtime's own stages on the bundled scan, without network and localiser, for guard.py and against.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

# Set before NumPy is imported, to exclude waiting threads from the timing.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import cv2
from inside import answer_with_the_last, engine_of, localiser_of
from measuring import SCAN

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.locate import locate
from edge_spine.measure import measure
from edge_spine.outputs.drawing.palette import BACKGROUND
from edge_spine.outputs.drawing.panels import draw_panels
from edge_spine.outputs.drawing.raster import RasterCanvas
from edge_spine.outputs.preview_png import PAGE
from edge_spine.preprocessing import prepare
from edge_spine.quality import judge
from edge_spine.reconstruct import curves_from_output, reconstruct
from edge_spine.refine import refined

NAMES = ("read", "preprocess", "refine", "locate", "reconstruct", "measure", "judge", "json", "preview")
# Share of time that a slowed stage takes longer.
SLOWER = 0.3

Work = Callable[[], object]


def stages(slower: str | None = None) -> dict[str, Work]:
    """Return a callable for each stage, of which one may be slowed by `SLOWER`. OpenCV is set to one thread."""
    cv2.setNumThreads(1)
    scan = read_scan(SCAN)
    with SpineEstimator("onnx-cpu", threads=1) as estimator:
        result = estimator(scan)
        localiser, output = localiser_of(estimator), engine_of(estimator).infer(result.prepared.tensor)[0]
    answer_with_the_last(localiser)
    bundle = load_bundle()
    if bundle.refinement is None or bundle.level_network is None:
        raise SystemExit("the packaged model has no refinement or no network that finds vertebrae")
    refinement, level_network = bundle.refinement, bundle.level_network
    prepared, curves, spine, measured = result.prepared, result.curves, result.spine, result.measurements
    works: dict[str, Work] = {
        "read": lambda: read_scan(SCAN),
        "preprocess": lambda: prepare(scan, localiser),
        "refine": lambda: refined(prepared.tensor, output, refinement),
        "locate": lambda: locate(prepared.tensor, output, level_network).levels(prepared),
        "reconstruct": lambda: reconstruct(curves_from_output(output, prepared)),
        "measure": lambda: measure(spine, result.levels),
        "judge": lambda: judge(scan, prepared, curves, spine, measured, result.levels),
        "json": result.to_json,
        "preview": lambda: draw_panels(RasterCanvas(PAGE.width, PAGE.height, BACKGROUND), PAGE.cards(), result),
    }
    if slower:
        works[slower] = _slowed(works[slower])
    return works


def _slowed(work: Work) -> Work:
    def longer() -> None:
        started = time.process_time()
        work()
        end = time.process_time() + SLOWER * (time.process_time() - started)
        while time.process_time() < end:
            pass

    return longer
