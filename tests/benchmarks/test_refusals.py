"""One picture of each kind that must be refused, and good scans that must not be: content only, no header helps."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import refusals
from pictures import REFUSED, TAKEN
from pydicom.data import get_testdata_file
from refusals import ACCEPTED, FLAGGED, Outcome, answer_to, from_png

import edge_spine
from edge_spine import Scan, SpineEstimator, read_scan
from edge_spine.errors import REFUSAL_CODES, Refusal
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.phantoms.scanner import IDXA

DEMO_SCAN = Path(edge_spine.__file__).parent / "data" / "synthetic_whole_body.dcm"
SEED = 56_000_000
# all that can be said of these by content; others may be called by more than one name
CODES = {
    "soft-tissue image": "soft-tissue-image",
    "on its side": "not-whole-body",
    "hip, true size": "not-whole-body",
    "two bodies": "not-whole-body",
    "photograph": "no-spine",
}


@pytest.fixture(scope="module")
def estimator() -> SpineEstimator:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    return SpineEstimator(engine="onnx-cpu", threads=1)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(SEED, scanner=IDXA)


phantom_of = cache(make_phantom)


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_whole_body_bone_image_is_refused(kind: str, phantom: Phantom, estimator: SpineEstimator) -> None:
    picture = REFUSED[kind](phantom, np.random.default_rng(0))
    with pytest.raises(Refusal) as refusal:
        estimator(from_png(picture, "other.png")())
    assert refusal.value.code == CODES.get(kind, refusal.value.code)
    # one line: which file, what was found, what to do
    message = str(refusal.value)
    assert message.startswith("other.png: ") and "\n" not in message
    assert "give" in message or "needed" in message or "accepted" in message


@pytest.mark.parametrize("seed", [50_000_007, 50_000_011, 50_000_018])
def test_noise_with_a_bright_middle_is_no_spine(seed: int, estimator: SpineEstimator) -> None:
    """Noise in a body's outline that has the skull of a bone image and reaches the last checks."""
    picture = REFUSED["pink noise in a body's outline"](make_phantom(seed), np.random.default_rng([seed, 1]))
    assert answer_to(estimator, from_png(picture, "noise.png")) == "no-spine"


@pytest.mark.parametrize("kind", TAKEN)
@pytest.mark.parametrize("seed", [SEED, *(pytest.param(SEED + more, marks=pytest.mark.slow) for more in range(1, 6))])
def test_phantoms_are_accepted(kind: str, seed: int, estimator: SpineEstimator) -> None:
    picture = TAKEN[kind](phantom_of(seed), np.random.default_rng(0))
    assert answer_to(estimator, from_png(picture, "phantom.png")) in (ACCEPTED, FLAGGED)


def test_the_bundled_scan_is_accepted(estimator: SpineEstimator) -> None:
    # it may lean: it was chosen for its scoliosis
    assert not {"spine-faint", "low-confidence"} & set(estimator(read_scan(DEMO_SCAN)).quality.flags)


def test_the_real_bone_image_is_accepted_without_a_remark(real_bone: Path, estimator: SpineEstimator) -> None:
    assert answer_to(estimator, lambda: read_scan(real_bone)) == ACCEPTED


def test_the_real_tissue_image_is_refused_by_name(real_tissue: Path, estimator: SpineEstimator) -> None:
    assert answer_to(estimator, lambda: read_scan(real_tissue)) == "soft-tissue-image"


@pytest.mark.parametrize("change", ["upside down", "legs", "chest down", "two", "spine hidden"])
def test_the_real_scan_is_refused_where_it_is_spoilt(change: str, real_bone: Path, estimator: SpineEstimator) -> None:
    scan = read_scan(real_bone)
    pixels = scan.pixels.copy()
    if change == "upside down":
        pixels = pixels[::-1]
    elif change == "legs":
        pixels[:400] = 0
    elif change == "chest down":
        pixels = pixels[210:]
    elif change == "two":
        pixels = np.hstack([pixels, pixels[:, ::-1]])
    else:
        pixels[60:390, 120:162] = pixels[60:390, 78:120]
    spoilt = Scan(np.ascontiguousarray(pixels), scan.pixel_spacing_mm, "spoilt.dcm", None)
    assert answer_to(estimator, lambda: spoilt) in REFUSAL_CODES


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_rgb_color.dcm", "examples_palette.dcm"])
@pytest.mark.parametrize("stretched", [False, True])
def test_other_images_are_refused_as_bare_pixels(name: str, stretched: bool, estimator: SpineEstimator) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom has no {name}")
    import pydicom

    pixels = refusals.as_picture(pydicom.dcmread(path).pixel_array)
    row_mm = refusals.BODY_MM / pixels.shape[0]
    column_mm = refusals.TABLE_MM / pixels.shape[1] if stretched else row_mm
    assert answer_to(estimator, from_png((pixels, (row_mm, column_mm)), name)) in REFUSAL_CODES


def test_intervals_are_wilsons() -> None:
    assert refusals.wilson(0, 1000) == pytest.approx((0.0, 0.00383), abs=1e-5)
    assert refusals.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_the_table_counts_false_acceptances_and_false_refusals_apart() -> None:
    outcomes = [
        Outcome("phantom", ACCEPTED, ("windowed display",)),
        Outcome("phantom", "no-spine", ("iDXA, 8 bit", "inverted")),
        Outcome("hip, enlarged", "no-spine"),
        Outcome("hip, enlarged", ACCEPTED),
        Outcome("knee, enlarged", FLAGGED),
    ]
    report = refusals.summary(outcomes)
    assert report["kinds"]["hip, enlarged"] == {"no-spine": 1, ACCEPTED: 1}
    assert report["accepted_without_remark"]["share"] == pytest.approx(1 / 3)
    assert report["accepted_at_all"]["share"] == pytest.approx(2 / 3)
    assert {name: figures["hits"] for name, figures in report["false_refusal"].items()} == {
        "all": 1, "iDXA, 8 bit": 1, "inverted": 1, "windowed display": 0,
    }  # fmt: skip
    text = refusals.table(report)
    assert "| hip, enlarged | 2 | no-spine 1 | 0 | 1 |" in text
    assert "| false refusal, inverted | 100.00 % (1 of 1) |" in text
