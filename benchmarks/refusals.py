"""Measure how often unsuitable images are refused and valid scans are accepted.

`python benchmarks/refusals.py [--count 1000] [--json FILE]` builds pictures of many kinds from phantoms (hip, knee,
lateral spine, chest film, noise, half a body ...) as PNG files with a plausible pixel spacing, so that only their
content can lead to a refusal. pydicom's test images are used twice: as DICOM files, and as bare pixels scaled to a
height of 1.8 m. Other phantoms give the rate of false refusals.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from measuring import options_of, write_json
from numpy.typing import NDArray
from pictures import BODY_MM, REFUSED, TABLE_MM, TAKEN, Picture, Pixels, as_bytes
from pydicom.data import get_testdata_files

from edge_spine import SpineEstimator, read_scan
from edge_spine.errors import Refusal
from edge_spine.processors import usable_cores
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from export.training.agreement import wilson
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.processes import ordered_map

REPORT_SEED = 50_000_000
ACCEPTED, FLAGGED = "accepted", "flagged"
# Flags that concern the stored image and not the quality of the result.
_HARMLESS = {"orientation-unknown", "inverted", "pixel-spacing-given"}


@dataclass(frozen=True)
class Outcome:
    """Outcome of one image: its kind, a refusal code or how it was accepted, and circumstances of the scan."""

    kind: str
    answer: str
    circumstances: tuple[str, ...] = ()


def answer_to(estimator: SpineEstimator, read: Callable[[], Scan]) -> str:
    """Return the refusal code, "flagged" if a flag warns of the result, or "accepted"."""
    try:
        result = estimator(read())
    except Refusal as refusal:
        return refusal.code
    return FLAGGED if set(result.quality.flags) - _HARMLESS else ACCEPTED


def from_png(picture: Picture, name: str) -> Callable[[], Scan]:
    """Write an image as PNG and read it."""
    pixels, spacing = picture
    return lambda: scan_from_bytes(
        cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes(), name, pixel_spacing=spacing
    )


def circumstances(phantom: Phantom) -> tuple[str, ...]:
    """Return the make of scanner and the circumstances of the scan."""
    scanner = phantom.scanner
    names = [f"iDXA, {scanner.bits} bit" if scanner.window is None else "windowed display"]
    happened = {
        "inverted": scanner.inverted,
        "regions burned in": scanner.regions,
        "person moved": scanner.moved > 0,
        "feet outside": scanner.cut_feet > 0,
        "arm outside": scanner.cut_side_mm != 0,
    }
    return (*names, *(name for name, is_so in happened.items() if is_so))


_estimator: SpineEstimator


def _open(model: Path | None) -> None:
    """Load the model of a worker process."""
    global _estimator
    cv2.setNumThreads(1)
    _estimator = SpineEstimator(engine="onnx-cpu", model=model, threads=1)


def outcome(task: tuple[str, int]) -> Outcome:
    """Build and process one image from a (kind, seed) pair."""
    kind, seed = task
    builder = TAKEN.get(kind) or REFUSED[kind]
    phantom = make_phantom(seed)
    picture = builder(phantom, np.random.default_rng([seed, 1]))
    answer = answer_to(_estimator, from_png(picture, f"{kind} {seed}"))
    return Outcome(kind, answer, circumstances(phantom) if kind == "phantom" else ())


# pydicom's images


def dicom_images() -> Iterator[tuple[Path, list[Pixels]]]:
    """Each of pydicom's files, with the frames that pydicom can decode (the first and the last of several)."""
    for path in sorted({Path(name) for name in get_testdata_files()}):
        if path.is_dir():
            continue
        try:
            dataset = pydicom.dcmread(path, force=True)
            array = dataset.pixel_array
        # Damaged files and missing codecs raise many types.
        except Exception:
            yield path, []
            continue
        several = int(dataset.get("NumberOfFrames") or 1) > 1
        yield path, [as_picture(frame) for frame in ((array[0], array[-1]) if several else (array,))]


def as_picture(frame: Pixels) -> NDArray[np.uint8]:
    """Stretch a frame to 8 bits, and to 400 rows where it has fewer."""
    levels = frame.astype(np.float64)
    low, high = levels.min(), levels.max()
    picture = as_bytes((levels - low) / max(high - low, 1e-9) * 255)
    if picture.shape[0] >= 400:
        return picture
    columns = max(1, round(picture.shape[1] * 400 / picture.shape[0]))
    return cv2.resize(picture, (columns, 400), interpolation=cv2.INTER_CUBIC)


def dicom_outcomes() -> Iterator[Outcome]:
    """Process pydicom's files, and their frames as bare pixels: unchanged, and stretched to the table."""
    for path, frames in dicom_images():
        fallback = (BODY_MM / 512, BODY_MM / 512)
        kind = "pydicom, files" if frames else "pydicom, files without readable pixels"
        yield Outcome(kind, answer_to(_estimator, partial(read_scan, path, pixel_spacing=fallback)))
        for pixels in frames:
            row_mm = BODY_MM / pixels.shape[0]
            for shape, column_mm in (("true shape", row_mm), ("table's shape", TABLE_MM / pixels.shape[1])):
                picture = pixels, (row_mm, column_mm)
                yield Outcome(f"pydicom, pixels in {shape}", answer_to(_estimator, from_png(picture, path.name)))


# The table


def share(hits: int, count: int) -> dict[str, Any]:
    """Format a proportion with its count and interval."""
    return {"hits": hits, "count": count, "share": hits / count, "interval_95": wilson(hits, count)}


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Count outcomes by kind, false acceptances, and false refusals by the circumstances of the scan."""
    kinds: dict[str, Counter[str]] = {}
    for found in outcomes:
        kinds.setdefault(found.kind, Counter())[found.answer] += 1
    wrong = [found for found in outcomes if found.kind not in TAKEN]
    good = [found for found in outcomes if found.kind == "phantom"]
    scans = {"all": good}
    for name in sorted({name for found in good for name in found.circumstances}):
        scans[name] = [found for found in good if name in found.circumstances]
    return {
        "kinds": {kind: dict(answers) for kind, answers in kinds.items()},
        "accepted_without_remark": share(sum(found.answer == ACCEPTED for found in wrong), len(wrong)),
        "accepted_at_all": share(sum(found.answer in (ACCEPTED, FLAGGED) for found in wrong), len(wrong)),
        "false_refusal": {
            name: share(sum(found.answer not in (ACCEPTED, FLAGGED) for found in group), len(group))
            for name, group in scans.items()
        },
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["| kind | count | refused, by code | flagged | accepted |", "|---|---|---|---|---|"]
    for kind, answers in report["kinds"].items():
        refused = {code: number for code, number in sorted(answers.items()) if code not in (ACCEPTED, FLAGGED)}
        codes = ", ".join(f"{code} {number}" for code, number in refused.items()) or "-"
        total = sum(answers.values())
        lines.append(f"| {kind} | {total} | {codes} | {answers.get(FLAGGED, 0)} | {answers.get(ACCEPTED, 0)} |")
    lines += ["", "| question | share | 95 % |", "|---|---|---|"]
    questions = {
        "false acceptance, without a remark": report["accepted_without_remark"],
        "false acceptance, flagged ones included": report["accepted_at_all"],
        **{f"false refusal, {name}": figures for name, figures in report["false_refusal"].items()},
    }
    for name, figures in questions.items():
        low, high = figures["interval_95"]
        lines.append(
            f"| {name} | {100 * figures['share']:.2f} % ({figures['hits']} of {figures['count']}) "
            f"| {100 * low:.2f} to {100 * high:.2f} % |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="phantoms; a tenth of each other kind (default 1000)")
    parser.add_argument("--seed", type=int, default=REPORT_SEED, help="seed of the first phantom (default %(default)s)")
    parser.add_argument("--model", type=Path, help="bundle folder (default: the bundled model)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes")
    options = parser.parse_args()
    few = max(1, options.count // 10)
    tasks = [("phantom", options.seed + k) for k in range(options.count)]
    tasks += [(kind, options.seed + k) for kind in (*TAKEN, *REFUSED) if kind != "phantom" for k in range(few)]
    with ordered_map(options.workers, _open, (options.model,), chunk=4) as mapped:
        outcomes = list(mapped(outcome, tasks))
    # Suppress pydicom's warnings about its intentionally damaged files.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    _open(options.model)
    outcomes += dicom_outcomes()
    report = {"seed": options.seed, **summary(outcomes)}
    print(table(report))
    write_json(options.json, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
