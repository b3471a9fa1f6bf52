"""A scan is prepared, or refused for what is no upright body with a spine."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from edge_spine import read_scan
from edge_spine.errors import Refusal
from edge_spine.network import CROP_SIZE
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import Landmarks, Localiser
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan

DEMO_SCAN = files("edge_spine") / "data" / "synthetic_whole_body.dcm"


class _Pointing:
    """Stands in for the localiser: points where it is told (row, column in mm), whatever the image."""

    def __init__(self, t1: tuple[float, float], l5: tuple[float, float], off_mm: float, confidence: float) -> None:
        centre = ((t1[0] + l5[0]) / 2 + off_mm, (t1[1] + l5[1]) / 2)
        self.found = [(row / 4.0, column / 4.0) for row, column in (centre, t1, l5)]
        self.confidence = confidence

    def __call__(self, shown: np.ndarray, spacing_mm: tuple[float, float]) -> Landmarks:
        assert spacing_mm == (4.0, 4.0)
        return Landmarks(*self.found, self.confidence)


def _figure() -> Scan:
    """A person of boxes, 1720 mm from 80 mm on, the skull bright, pixels of 4 mm."""
    image = np.zeros((480, 160), dtype=np.float32)
    for first, last, left, right, level in (
        (20, 62, 66, 94, 200), (62, 75, 71, 89, 90), (75, 220, 35, 125, 90), (220, 450, 40, 120, 90),
    ):  # fmt: skip
        image[first:last, left:right] = level
    return Scan(image, (4.0, 4.0), "boxes.png", None)


@pytest.mark.hazard("no-spine")
@pytest.mark.parametrize(
    ("case", "code", "word"),
    [
        ({"confidence": 0.2}, "no-spine", "confidence"),
        ({"l5": (600.0, 320.0)}, "not-whole-body", "T1 to L5"),
        ({"l5": (1040.0, 320.0)}, "not-whole-body", "T1 to L5"),
        ({"t1": (200.0, 320.0), "l5": (650.0, 320.0)}, "not-whole-body", "crown to T1"),
        ({"t1": (700.0, 320.0), "l5": (1150.0, 320.0)}, "not-whole-body", "crown to T1"),
        ({"off_mm": 90.0}, "no-spine", "centre"),
    ],
)
def test_landmarks_that_no_adult_has_are_refused(case: dict[str, object], code: str, word: str) -> None:
    plain = {"t1": (380.0, 320.0), "l5": (830.0, 320.0), "off_mm": 0.0, "confidence": 0.95}
    assert prepare(_figure(), _Pointing(**plain)).localiser_confidence == 0.95  # type: ignore[arg-type]
    with pytest.raises(Refusal) as refusal:
        prepare(_figure(), _Pointing(**{**plain, **case}))  # type: ignore[arg-type]
    assert refusal.value.code == code
    assert word in str(refusal.value)


@pytest.mark.hazard("no-spine")
def test_a_scan_that_begins_below_the_neck_is_refused(localiser: Localiser) -> None:
    scan = _figure()
    with pytest.raises(Refusal) as refusal:
        prepare(Scan(scan.pixels[100:], scan.pixel_spacing_mm, "headless.png", None), localiser)
    assert refusal.value.code == "not-whole-body" and "upper edge" in str(refusal.value)


@pytest.mark.hazard("no-spine")
@pytest.mark.parametrize("apart", [0, 60])
def test_two_people_are_refused(apart: int, localiser: Localiser) -> None:
    scan = _figure()
    gap = np.full((480, apart), 0.0, dtype=np.float32)
    # without a gap, both are one thing that is wider than any person
    one = scan.pixels if apart else scan.pixels[:, 35:125]
    pair = np.hstack([one[:, ::-1], gap, one, gap, one])
    with pytest.raises(Refusal) as refusal:
        prepare(Scan(pair, scan.pixel_spacing_mm, "pair.png", None), localiser)
    assert refusal.value.code == "not-whole-body"


def _moved(scan: Scan, matrix: np.ndarray) -> Scan:
    rows, columns = scan.pixels.shape
    return Scan(cv2.warpAffine(scan.pixels, matrix, (columns, rows)), scan.pixel_spacing_mm, scan.source, None)


def test_crop_of_the_real_scan_holds_the_spine_and_moves_with_it(real_bone: Path, localiser: Localiser) -> None:
    scan = read_scan(real_bone)
    prepared = prepare(scan, localiser)
    centre = [o + (CROP_SIZE - 1) / 2 * prepared.model_pixel_mm / s for o, s in _pairs(prepared)]
    # T1 top near row 139, L5 bottom near row 330, midline near column 141 (read off the image by eye)
    assert centre == pytest.approx([234, 141], abs=7)
    assert prepared.model_pixel_mm == pytest.approx(2.206, rel=0.01)
    moved = prepare(_moved(scan, np.array([[1.0, 0, 6], [0, 1.0, -9]])), localiser)
    shift = [(b - a) for (a, _), (b, _) in zip(_pairs(prepared), _pairs(moved), strict=True)]
    assert shift == pytest.approx([-9, 6], abs=2.0)


def _pairs(prepared: object) -> list[tuple[float, float]]:
    return list(zip(prepared.crop_origin_px, prepared.pixel_spacing_mm, strict=True))  # type: ignore[attr-defined]


@pytest.mark.hazard("no-spine")
def test_the_soft_tissue_image_is_refused_by_name(real_tissue: Path, localiser: Localiser) -> None:
    with pytest.raises(Refusal) as refusal:
        prepare(read_scan(real_tissue), localiser)
    assert refusal.value.code == "soft-tissue-image"


@pytest.mark.parametrize("share", [0.25, 0.35])
def test_clipped_greys_are_not_taken_for_a_soft_tissue_image(localiser: Localiser, share: float) -> None:
    """Nobody looks for a scan that is refused as the soft-tissue image beside its bone image."""
    scan = read_scan(str(DEMO_SCAN))
    clipped = replace(scan, pixels=np.minimum(scan.pixels, share * scan.pixels.max()))
    with pytest.raises(Refusal) as refusal:
        prepare(clipped, localiser)
    assert refusal.value.code == "no-spine" and "largest grey value" in refusal.value.reason


@pytest.mark.hazard("no-spine")
def test_what_is_not_an_upright_body_is_refused(real_bone: Path, localiser: Localiser) -> None:
    scan = read_scan(real_bone)
    upside_down = Scan(scan.pixels[::-1].copy(), scan.pixel_spacing_mm, "upside-down", None)
    noise = np.random.default_rng(0).uniform(0, 250, (791, 272)).astype(np.float32)
    legs = scan.pixels.copy()
    legs[:420] = 0
    for image in (
        upside_down,
        Scan(noise, scan.pixel_spacing_mm, "noise", None),
        Scan(legs, scan.pixel_spacing_mm, "legs", None),
    ):
        with pytest.raises(Refusal) as refusal:
            prepare(image, localiser)
        assert refusal.value.code in ("no-spine", "soft-tissue-image", "not-whole-body")


def edited(path: Path, edit: Callable[[Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def without_numbers(dataset: Dataset) -> None:
    for keyword in ("InstanceNumber", "SeriesNumber", "SeriesDescription", "ImageType", "ImageComments"):
        if keyword in dataset:
            delattr(dataset, keyword)


@pytest.mark.parametrize("number", [11, 12, None])
def test_content_decides(real_bone: Path, real_tissue: Path, localiser: Localiser, number: int | None) -> None:
    """Numbers and descriptions of the bone and the soft-tissue image may be exchanged or absent."""

    def edit(dataset: Dataset) -> None:
        without_numbers(dataset)
        if number is not None:
            dataset.InstanceNumber = number

    prepare(scan_from_bytes(edited(real_bone, edit), "11.dcm"), localiser)
    with pytest.raises(Refusal) as caught:
        prepare(scan_from_bytes(edited(real_tissue, edit), "12.dcm"), localiser)
    assert caught.value.code == "soft-tissue-image"
