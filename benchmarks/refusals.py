"""What edge-spine refuses of all that it has no business answering, and whether it accepts good scans.

`python benchmarks/refusals.py [--count 1000] [--json FILE]` builds pictures of many kinds from phantoms (hip, knee,
lateral spine, chest film, noise, half a body ...) and hands them over as PNG files with a plausible pixel spacing, so
that only their content can betray them. pydicom's own images come twice: as the DICOM files that they are, and as bare
pixels that are said to be 1.8 m high. Fresh phantoms say how often a good scan is turned away.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.data import get_testdata_files

ROOT = Path(__file__).resolve().parents[1]
# started as a script, Python sees this folder only
sys.path.insert(0, str(ROOT))

from edge_spine import SpineEstimator, read_scan  # noqa: E402
from edge_spine.errors import Refusal  # noqa: E402
from edge_spine.reading.read import scan_from_bytes  # noqa: E402
from edge_spine.scan import Scan  # noqa: E402
from export.training.phantoms.absorptiometry import bone_density, soft_tissue  # noqa: E402
from export.training.phantoms.anatomy import skeleton  # noqa: E402
from export.training.phantoms.phantom import Phantom, make_phantom  # noqa: E402
from export.training.phantoms.scanner import Framing  # noqa: E402

REPORT_SEED = 50_000_000
BODY_MM, TABLE_MM = 1800.0, 660.0
ACCEPTED, FLAGGED = "accepted", "flagged"
# remarks that do not warn of the answer: they tell how the image was stored
_HARMLESS = {"orientation-unknown", "inverted", "pixel-spacing-given"}

Pixels = NDArray[Any]
Spacing = tuple[float, float]
Picture = tuple[Pixels, Spacing]
Builder = Callable[[Phantom, np.random.Generator], Picture]


# ---- parts of bodies


def cut(phantom: Phantom, pixels: Pixels, rows: tuple[float, float], columns_mm: tuple[float, float]) -> Pixels:
    """Cut a window: rows as shares of the body below its crown, columns in mm from the body's axis at pelvis height."""
    (top, left), (row_mm, column_mm) = phantom.framing.top_left_mm, phantom.framing.pixel_mm
    first, last = ((top - phantom.person.z(share)) / row_mm for share in rows)
    begin, end = ((x - left) / column_mm for x in columns_mm)
    return pixels[max(0, int(first)) : max(0, int(last)), max(0, int(begin)) : max(0, int(end))]


def enlarged(window: Pixels, pixel_mm: Spacing, rng: np.random.Generator) -> Picture:
    """Blow a window up to the size of a body; every other one is squeezed to the table's width as well."""
    rows = 791
    width_mm = window.shape[1] * pixel_mm[1] / (window.shape[0] * pixel_mm[0]) * rows * 2.43
    columns = min(round(width_mm / 2.43), 900) if rng.random() < 0.5 else round(TABLE_MM / 2.43)
    return cv2.resize(window, (columns, rows), interpolation=cv2.INTER_CUBIC), (2.43, 2.43)


def true_size(window: Pixels, pixel_mm: Spacing, rng: np.random.Generator) -> Picture:
    """Show a window at its own size with the fine pixels of a regional scan."""
    fine = float(rng.uniform(0.25, 1.0))
    rows, columns = (round(n * mm / fine) for n, mm in zip(window.shape, pixel_mm, strict=True))
    return cv2.resize(window, (columns, rows), interpolation=cv2.INTER_CUBIC), (fine, fine)


Sizing = Callable[[Pixels, Spacing, np.random.Generator], Picture]


def hip(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """One hip joint and the upper femur."""
    side = 1 if rng.random() < 0.5 else -1
    near, far = sorted((side * 20.0, side * 190.0))
    return sizing(cut(phantom, phantom.bone, (0.43, 0.56), (near, far)), phantom.framing.pixel_mm, rng)


def knee(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """One knee."""
    side = 1 if rng.random() < 0.5 else -1
    near, far = sorted((side * 15.0, side * 165.0))
    return sizing(cut(phantom, phantom.bone, (0.65, 0.77), (near, far)), phantom.framing.pixel_mm, rng)


def lumbar_spine(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """An antero-posterior scan of the lumbar spine."""
    half = float(rng.uniform(60, 110))
    top = float(rng.uniform(0.26, 0.30))
    return sizing(cut(phantom, phantom.bone, (top, 0.43), (-half, half)), phantom.framing.pixel_mm, rng)


def chest_film(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """A radiograph of the chest: dark lungs, white bones, or the other way round."""
    bone, tissue, air = layers(phantom)
    film = 1 - np.exp(-(rng.uniform(0.008, 0.02) * np.maximum(tissue - air, 0) + rng.uniform(0.3, 0.8) * bone))
    window = cut(phantom, film, (0.135, 0.30), (-190.0, 190.0))
    low, high = np.percentile(window, [2, 99.5])
    window = np.clip((window - low) / (high - low), 0, 1) * 250
    return sizing(as_bytes(250 - window if rng.random() < 0.5 else window), phantom.framing.pixel_mm, rng)


def lateral_spine(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """A lateral scan of the spine from T4 to L5."""
    return sizing(cut(phantom, lateral(phantom, rng), (0.18, 0.43), (-85.0, 85.0)), phantom.framing.pixel_mm, rng)


def lateral_body(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A whole body seen from the side."""
    return lateral(phantom, rng), phantom.framing.pixel_mm


def layers(phantom: Phantom) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Bone (g/cm2), soft tissue and air (mm) of the phantom's person, drawn anew."""
    rng = np.random.default_rng(phantom.seed)
    bone = bone_density(skeleton(rng, phantom.person, phantom.shape), phantom.framing)
    return bone, *soft_tissue(rng, phantom.person, phantom.shape, phantom.framing)


def lateral(phantom: Phantom, rng: np.random.Generator) -> Pixels:
    """Turn the phantom's person by 90 degrees under the scanner: bones integrated along x, the body as deep as wide."""
    framing = phantom.framing
    solids = skeleton(np.random.default_rng(phantom.seed), phantom.person, phantom.shape)
    turned = replace(solids, centre=solids.centre[:, [1, 0, 2]], axes=solids.axes[:, :, [1, 0, 2]])
    back = 75.0 * phantom.person.scale
    left = -framing.shape[1] * framing.pixel_mm[1] / 2
    bone = bone_density(turned, Framing(framing.shape, framing.pixel_mm, (framing.top_left_mm[0], left)))
    tissue, _ = soft_tissue(rng, phantom.person, phantom.shape, framing)
    deep, wide = tissue.max(axis=1, keepdims=True), (tissue > 8).sum(axis=1, keepdims=True) * framing.pixel_mm[1]
    y = left + np.arange(framing.shape[1])[None, :] * framing.pixel_mm[1]
    away = np.abs(y - (back - deep / 2)) / np.maximum(deep / 2, 1)
    through = wide * np.maximum(1 - away**2.4, 0) ** (1 / 2.4)
    shown = 92 * (through / 300) ** 0.33 + 75 * bone + 2.7 * rng.standard_normal(framing.shape)
    return as_bytes(np.where(through > 12, np.clip(shown, 2, 252), 0))


def as_bytes(levels: Pixels) -> NDArray[np.uint8]:
    """Round levels to 8 bits."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


# ---- whole bodies, none as it should be


def background(phantom: Phantom) -> int:
    """Level of the phantom's empty table."""
    return 2**phantom.scanner.bits - 1 if phantom.scanner.inverted else 0


def row_of(phantom: Phantom, share: float) -> int:
    """Row at a share of the body below its crown."""
    return int((phantom.framing.top_left_mm[0] - phantom.person.z(share)) / phantom.framing.pixel_mm[0])


def blanked(phantom: Phantom, rows: slice) -> Picture:
    """Empty some rows of the bone image."""
    pixels = phantom.bone.copy()
    pixels[rows] = background(phantom)
    return pixels, phantom.framing.pixel_mm


def legs(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Nothing above the pelvis, or above the thighs."""
    return blanked(phantom, slice(0, row_of(phantom, float(rng.uniform(0.42, 0.52)))))


def lower_half(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Nothing above mid-thorax, so that half the spine is missing; every other one has no empty rows left."""
    first = row_of(phantom, float(rng.uniform(0.22, 0.32)))
    if rng.random() < 0.5:
        return phantom.bone[first:], phantom.framing.pixel_mm
    return blanked(phantom, slice(0, first))


def upper_half(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Nothing below the lower ribs, so that the lumbar spine is missing."""
    return blanked(phantom, slice(row_of(phantom, float(rng.uniform(0.26, 0.34))), None))


def squashed(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A body of half its height: every other row left out, at the old spacing."""
    rows, columns = phantom.bone.shape
    half = cv2.resize(phantom.bone, (columns, rows // 2), interpolation=cv2.INTER_AREA)
    above = int(rng.integers(0, rows - rows // 2))
    pixels = np.full_like(phantom.bone, background(phantom))
    pixels[above : above + rows // 2] = half
    return pixels, phantom.framing.pixel_mm


def upside_down(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Feet at the top."""
    return np.rot90(phantom.bone, 2) if rng.random() < 0.5 else phantom.bone[::-1], phantom.framing.pixel_mm


def on_its_side(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Head at one side."""
    turns = 1 if rng.random() < 0.5 else 3
    return np.rot90(phantom.bone, turns), (phantom.framing.pixel_mm[1], phantom.framing.pixel_mm[0])


def two_bodies(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Two people side by side, as wide as they are."""
    other = phantom.bone[:, ::-1] if rng.random() < 0.5 else np.roll(phantom.bone, 12, axis=0)
    return np.hstack([phantom.bone, other]), phantom.framing.pixel_mm


def two_squeezed(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Two people side by side, squeezed into the width of one."""
    pair, spacing = two_bodies(phantom, rng)
    return pair, (spacing[0], spacing[1] / 2)


def spine_hidden(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A body whose spine is painted over with what lies beside it."""
    pixels = phantom.bone.copy()
    row_mm, column_mm = phantom.framing.pixel_mm
    truth = phantom.truth(-np.arange(pixels.shape[0]) * row_mm)
    band = round(52 / column_mm)
    for row in range(row_of(phantom, 0.10), min(row_of(phantom, 0.46), pixels.shape[0])):
        middle = round(float(truth.coronal[row, 1]) / column_mm)
        sides = pixels[row, middle - 2 * band : middle - band], pixels[row, middle + band : middle + 2 * band]
        pixels[row, middle - band : middle] = sides[0][::-1]
        pixels[row, middle : middle + band] = sides[1][::-1]
    return pixels, phantom.framing.pixel_mm


def tissue_image(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The scan's other image."""
    return phantom.tissue, phantom.framing.pixel_mm


# ---- no bodies at all


def noise(phantom: Phantom, rng: np.random.Generator, exponent: float, outline: bool = False) -> Picture:
    """Noise of a spectrum that falls with `exponent`, everywhere, in an ellipse or in the outline of a body."""
    shape = phantom.bone.shape
    grain = spectral(rng, shape, exponent) * 45 + 120
    if outline:
        body = phantom.tissue != background(phantom)
        grain = np.where(body, grain, 0)
    elif rng.random() < 0.5:
        grain = grain * ellipse(shape)
    return as_bytes(grain), phantom.framing.pixel_mm


def flat_outline(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The shadow of a body, with a little noise."""
    body = phantom.tissue != background(phantom)
    return as_bytes(np.where(body, 120 + rng.normal(0, 4, body.shape), 0)), phantom.framing.pixel_mm


def photograph(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scene: a gradient, blurred shapes, 1/f detail, in colour."""
    rows, columns = phantom.bone.shape
    scene = np.empty((rows, columns, 3), dtype=np.float32)
    slope = np.linspace(rng.uniform(20, 120), rng.uniform(100, 230), rows)[:, None]
    for channel in range(3):
        scene[..., channel] = slope + 25 * spectral(rng, (rows, columns), 1.0)
    for _ in range(int(rng.integers(3, 12))):
        colour = tuple(rng.uniform(0, 255, 3))
        place = int(rng.integers(columns)), int(rng.integers(rows))
        size = int(rng.integers(10, 160)), int(rng.integers(10, 300))
        if rng.random() < 0.5:
            cv2.ellipse(scene, place, size, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            cv2.rectangle(scene, place, (place[0] + size[0], place[1] + size[1]), colour, -1)
    return as_bytes(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.5, 3)))), phantom.framing.pixel_mm


def shapes(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Bars and discs on black: one of them an upright bar in the middle, as a spine would be."""
    rows, columns = phantom.bone.shape
    drawn = np.zeros((rows, columns), dtype=np.float32)
    cv2.ellipse(drawn, (columns // 2, rows // 2), (columns // 3, int(rows * 0.46)), 0, 0, 360, 90.0, -1)
    cv2.rectangle(drawn, (columns // 2 - 8, rows // 6), (columns // 2 + 8, int(rows * 0.43)), 200.0, -1)
    for _ in range(int(rng.integers(0, 6))):
        place = int(rng.integers(columns)), int(rng.integers(rows))
        cv2.circle(drawn, place, int(rng.integers(5, 60)), float(rng.uniform(50, 255)), -1)
    return as_bytes(drawn), phantom.framing.pixel_mm


def empty_table(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A table without a person: nothing, noise, a mattress's edge, a ruler left behind."""
    rows, columns = phantom.bone.shape
    pixels = np.abs(rng.normal(0, 3, (rows, columns))) if rng.random() < 0.5 else np.zeros((rows, columns))
    if rng.random() < 0.5:
        pixels[:, 20:-20] += rng.uniform(3, 12)
    if rng.random() < 0.5:
        place = int(rng.integers(rows - 60)), int(rng.integers(columns - 40))
        pixels[place[0] : place[0] + 60, place[1] : place[1] + int(rng.integers(3, 40))] = 180
    return as_bytes(pixels), phantom.framing.pixel_mm


def spectral(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> NDArray[np.float64]:
    """Gaussian noise of unit spread whose amplitude falls with frequency to the power of `exponent`."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf if exponent else 1.0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency**exponent, s=shape)
    return np.asarray(field / field.std())


def ellipse(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An upright ellipse that fills most of an image."""
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.asarray((y / 0.92) ** 2 + (x / 0.6) ** 2 < 1)


# ---- what must be accepted


def plain(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The bone image as it is."""
    return phantom.bone, phantom.framing.pixel_mm


def mirrored(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The bone image with left and right swapped, which nothing in it betrays."""
    return phantom.bone[:, ::-1], phantom.framing.pixel_mm


REFUSED: dict[str, Builder] = {
    **{
        f"{name}, {size}": partial(part, sizing=sizing)
        for name, part in (
            ("hip", hip),
            ("knee", knee),
            ("lumbar spine", lumbar_spine),
            ("lateral spine", lateral_spine),
            ("chest film", chest_film),
        )
        for size, sizing in (("enlarged", enlarged), ("true size", true_size))
    },
    "lateral whole body": lateral_body,
    "soft-tissue image": tissue_image,
    "legs only": legs,
    "lower half": lower_half,
    "upper half": upper_half,
    "squashed to half height": squashed,
    "upside-down": upside_down,
    "on its side": on_its_side,
    "two bodies": two_bodies,
    "two bodies, squeezed": two_squeezed,
    "spine painted over": spine_hidden,
    "white noise": partial(noise, exponent=0.0),
    "pink noise": partial(noise, exponent=1.0),
    "white noise in a body's outline": partial(noise, exponent=0.0, outline=True),
    "pink noise in a body's outline": partial(noise, exponent=1.0, outline=True),
    "flat outline of a body": flat_outline,
    "photograph": photograph,
    "shapes": shapes,
    "empty table": empty_table,
}
TAKEN: dict[str, Builder] = {"phantom": plain, "phantom, mirrored": mirrored}


# ---- outcomes


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: its kind, a refusal code or how it was accepted, and how it was scanned."""

    kind: str
    answer: str
    circumstances: tuple[str, ...] = ()


def answer_to(estimator: SpineEstimator, read: Callable[[], Scan]) -> str:
    """Return the refusal's code, "flagged" where a remark warns of the result, or "accepted"."""
    try:
        result = estimator(read())
    except Refusal as refusal:
        return refusal.code
    return FLAGGED if set(result.quality.flags) - _HARMLESS else ACCEPTED


def from_png(picture: Picture, name: str) -> Callable[[], Scan]:
    """Read a picture from the PNG file that holds it."""
    pixels, spacing = picture
    return lambda: scan_from_bytes(
        cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes(), name, pixel_spacing=spacing
    )


def circumstances(phantom: Phantom) -> tuple[str, ...]:
    """Name the make of scanner and what went on during the scan."""
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
    """Load a worker's own model, once."""
    global _estimator
    cv2.setNumThreads(1)
    _estimator = SpineEstimator(engine="onnx-cpu", model=model, threads=1)


def outcome(task: tuple[str, int]) -> Outcome:
    """Build and judge one picture from a (kind, seed) pair."""
    kind, seed = task
    builder = TAKEN.get(kind) or REFUSED[kind]
    phantom = make_phantom(seed)
    picture = builder(phantom, np.random.default_rng([seed, 1]))
    answer = answer_to(_estimator, from_png(picture, f"{kind} {seed}"))
    return Outcome(kind, answer, circumstances(phantom) if kind == "phantom" else ())


# ---- pydicom's images


def dicom_images() -> Iterator[tuple[Path, list[Pixels]]]:
    """Each of pydicom's files, with the frames that pydicom can decode (the first and the last of several)."""
    for path in sorted({Path(name) for name in get_testdata_files()}):
        if path.is_dir():
            continue
        try:
            dataset = pydicom.dcmread(path, force=True)
            array = dataset.pixel_array
        # files made to be damaged, and codecs that are not installed, raise many types
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
    """Judge pydicom's files as files, and their frames as bare pixels: of true shape, and stretched to the table."""
    for path, frames in dicom_images():
        fallback = (BODY_MM / 512, BODY_MM / 512)
        kind = "pydicom, files" if frames else "pydicom, files without readable pixels"
        yield Outcome(kind, answer_to(_estimator, partial(read_scan, path, pixel_spacing=fallback)))
        for pixels in frames:
            row_mm = BODY_MM / pixels.shape[0]
            for shape, column_mm in (("true shape", row_mm), ("table's shape", TABLE_MM / pixels.shape[1])):
                picture = pixels, (row_mm, column_mm)
                yield Outcome(f"pydicom, pixels in {shape}", answer_to(_estimator, from_png(picture, path.name)))


# ---- the table


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.96
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def share(hits: int, count: int) -> dict[str, Any]:
    """A share with its count and interval."""
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
    """Lay a report out as Markdown."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="phantoms; a tenth of each other kind (default 1000)")
    parser.add_argument("--seed", type=int, default=REPORT_SEED, help="seed of the first phantom (default %(default)s)")
    parser.add_argument("--model", type=Path, help="bundle folder (default: the bundled model)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    few = max(1, options.count // 10)
    tasks = [("phantom", options.seed + k) for k in range(options.count)]
    tasks += [(kind, options.seed + k) for kind in (*TAKEN, *REFUSED) if kind != "phantom" for k in range(few)]
    with multiprocessing.get_context("spawn").Pool(options.workers, _open, (options.model,)) as pool:
        outcomes = list(pool.imap(outcome, tasks, chunksize=4))
    # pydicom's files are damaged on purpose: its remarks on them are of no interest here
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    _open(options.model)
    outcomes += dicom_outcomes()
    report = {"seed": options.seed, **summary(outcomes)}
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
