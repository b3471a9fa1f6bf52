"""Read the list of DXA and MRI pairs, convert a pair to a training sample, and assign fixed splits."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal, UsageError, named_refusals
from edge_spine.network import CANONICAL_ROWS
from edge_spine.preprocessing.body import Body, find_body
from edge_spine.preprocessing.intensity import normalise
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan
from export.training.alignment.checks import check_mask, check_sides
from export.training.alignment.curves import track
from export.training.alignment.nifti import read_mri
from export.training.alignment.picture import Picture, draw_pair
from export.training.alignment.rigid import Placement, Plane
from export.training.alignment.stages import align
from export.training.alignment.volume import PairSkipped, scan_features
from export.training.dataset import Sample, SpineInScan, cut_sample

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "dxa", "dxa_mask", "mri", "mri_mask")
# Noise correlates by 0.2, images of one person whose arms lie differently by 0.45 to 0.8.
LEAST_IMAGE_CORRELATION, LEAST_SPINE_CORRELATION = 0.4, 0.6
# Background and up to 32 vertebrae and discs.
_MOST_LABELS = 33
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TURNED = {"mirrored-put-right", "rotated-put-right"}


@dataclass(frozen=True)
class PairFiles:
    """Files of one pair."""

    id: str
    dxa: Path
    dxa_mask: Path
    mri: Path
    mri_mask: Path

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.id):
            raise UsageError("an id may have letters, digits, dots, dashes and underscores, 64 at most")


@dataclass(frozen=True, eq=False)
class AlignedPair:
    """A sample with the record and the picture of its alignment, and its curves in the frame of the scan."""

    sample: Sample
    record: dict[str, Any]
    picture: Picture
    spine: SpineInScan


def split_of(name: str) -> str:
    """Return the fixed split of an id: 80, 10 and 10 of 100 by its SHA-256."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    return SPLITS[(share >= 80) + (share >= 90)]


def read_list(path: Path) -> list[PairFiles]:
    """Read a CSV with the columns id, dxa, dxa_mask, mri, mri_mask; paths are relative to its folder.

    Raises
    ------
    UsageError
        The list is not readable, lacks a column, or contains an id twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            rows, header = [(reader.line_num, row) for row in reader], reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path.name}: the list of pairs cannot be read ({type(error).__name__})") from None
    lacking = [column for column in COLUMNS if column not in header]
    if lacking or not rows:
        raise UsageError(f"{path.name}: expected a CSV of pairs with the columns {', '.join(COLUMNS)}")
    pairs: dict[str, tuple[int, PairFiles]] = {}
    for number, row in rows:
        cells = [(row[column] or "").strip() for column in COLUMNS]
        # files of two ids that differ in capitals alone would be one file on some disks
        known = pairs.get(cells[0].lower())
        if known is not None:
            raise UsageError(f"{path.name}, line {number}: the id {cells[0]} stands in line {known[0]} already")
        try:
            pairs[cells[0].lower()] = number, PairFiles(cells[0], *(path.parent / cell for cell in cells[1:]))
        except UsageError as error:
            raise UsageError(f"{path.name}, line {number}: {error}") from None
    return [pair for _, pair in pairs.values()]


def align_pair(
    files: PairFiles, pixel_spacing: tuple[float, float] | None = None, orientation: str | None = None
) -> AlignedPair:
    """Align one pair and cut its sample.

    Parameters
    ----------
    files : PairFiles
        The four files.
    pixel_spacing : (row, column), optional
        mm, for a scan that states none.
    orientation : str, optional
        Where the axes run to in a NIfTI file that states none, such as "LPS".

    Raises
    ------
    PairSkipped
        The pair cannot be used; the code is the reason.
    """
    for column in COLUMNS[1:]:
        # an empty cell is the folder
        if not getattr(files, column).is_file():
            raise PairSkipped(f"{column.replace('_', '-')}-missing", f"the file of the column {column} is not there")
    scan, body = _read_scan(files, pixel_spacing)
    scan_mask = _read_mask(files.dxa_mask, scan)
    if {"head-outside", "feet-outside"} & set(body.flags):
        raise PairSkipped("body-not-whole", "the scan lacks the crown or the toes, which give the pixel its size")
    mri, mri_mask = read_mri(files.mri, files.mri_mask, orientation)
    spacing = scan.pixel_spacing_mm
    pixel = (body.toe - body.crown) * spacing[0] / CANONICAL_ROWS
    shown = normalise(body.pixels, body.mask)
    features, projections = scan_features(shown, body.mask, spacing), mri.projections()
    spines = Plane(scan_mask, spacing, (0.0, 0.0)), mri_mask.thickness()
    found = align(features, spines[0], projections, spines[1], pixel)
    for name, value, least in (
        ("images", found.image_correlation, LEAST_IMAGE_CORRELATION),
        ("spines", found.spine_correlation, LEAST_SPINE_CORRELATION),
    ):
        if value < least:
            raise PairSkipped("low-correlation", f"the {name} correlate by {value:.2f}; at least {least} is needed")
    tracked = track(mri_mask, found.spine, pixel)
    sides = check_sides(mri, mri_mask, spines[0], tracked)
    check_mask(spines[0], tracked)
    spine = tracked.in_scan(pixel, spacing)
    record = {
        "placement_image": _placed(found.image),
        "placement_spine": _placed(found.spine),
        "image_correlation": round(found.image_correlation, 4),
        "spine_correlation": round(found.spine_correlation, 4),
        "model_pixel_mm": round(pixel, 4),
        "trunk_mm": round(tracked.top_mm - tracked.bottom_mm, 1),
        "sides": sides,
    }
    plain = Plane(shown, spacing, (0.0, 0.0))
    widest = projections[0]
    depth = replace(widest, pixels=widest.pixels / float(widest.pixels.max()))
    picture = draw_pair(plain, depth, spines, found, spine)
    return AlignedPair(cut_sample(body, spacing, spine), record, picture, spine)


def _placed(placement: Placement) -> dict[str, Any]:
    return {"angle_deg": round(placement.angle_deg, 3), "offset_mm": [round(v, 2) for v in placement.offset_mm]}


def _read_scan(files: PairFiles, pixel_spacing: tuple[float, float] | None) -> tuple[Scan, Body]:
    try:
        # Messages contain the id instead of the file.
        with named_refusals("the scan"):
            scan = scan_from_bytes(files.dxa.read_bytes(), "the scan", pixel_spacing=pixel_spacing)
            body = find_body(scan.pixels)
    except OSError as error:
        raise PairSkipped("unreadable", f"the scan cannot be read ({type(error).__name__})") from None
    except Refusal as refusal:
        raise PairSkipped(refusal.code, refusal.message) from None
    if _TURNED & set(scan.flags):
        raise PairSkipped("scan-turned", "the scan is stored turned or mirrored, so that its mask may be either way")
    return scan, body


def _read_mask(path: Path, scan: Scan) -> NDArray[np.float32]:
    try:
        drawn = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise PairSkipped("dxa-mask-unreadable", f"the mask cannot be read ({type(error).__name__})") from None
    if drawn is None:
        raise PairSkipped("dxa-mask-unreadable", "the scan's spine mask cannot be read as PNG")
    # of colours the brightest, without opacity
    mask = drawn if drawn.ndim == 2 else drawn[:, :, :3].max(axis=2)
    if mask.shape != scan.pixels.shape:
        raise PairSkipped("dxa-mask-size", f"the mask is {mask.shape} pixels, the scan {scan.pixels.shape}")
    if not mask.any():
        raise PairSkipped("dxa-mask-empty", "the scan's spine mask is empty")
    values = np.unique(mask)
    # Labels count vertebrae; more values than that are shares of spine, up to the brightest.
    least = 1 if len(values) <= _MOST_LABELS else values[-1] / 2
    return (mask >= least).astype(np.float32)
