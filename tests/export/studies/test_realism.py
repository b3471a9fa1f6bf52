from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_spine import Scan, SpineEstimator
from export.studies.contrast import PARTS, ROWS
from export.studies.realism import (
    FIGURES,
    REALISM_SEED,
    REGIONS,
    contrast_table,
    contrasts,
    figures,
    percentiles,
    table,
)
from export.training.evaluate import scan_of
from export.training.phantoms.phantom import make_phantom
from export.training.phantoms.scanner import IDXA


@pytest.fixture(scope="module")
def scan() -> Scan:
    return scan_of(make_phantom(REALISM_SEED, scanner=IDXA))


@pytest.mark.slow
def test_figures_tell_a_smooth_image_from_a_textured_one(scan: Scan, estimator: SpineEstimator) -> None:
    smooth = replace(scan, pixels=cv2.GaussianBlur(scan.pixels, (0, 0), 1.0))
    plain, blurred = (figures(image, estimator(image)) for image in (scan, smooth))
    assert set(plain) == {f"{region}, {figure}" for region in REGIONS for figure in FIGURES}
    for region in REGIONS:
        assert blurred[f"{region}, grain"] < 0.6 * plain[f"{region}, grain"]
        assert blurred[f"{region}, mean"] == pytest.approx(plain[f"{region}, mean"], abs=0.05)
    # bone is brighter than what lies beside it
    assert plain["lumbar spine, mean"] > plain["abdomen, left, mean"] + 0.1


def test_percentiles_place_a_scan_among_phantoms() -> None:
    keys = [f"{region}, {figure}" for region in REGIONS for figure in FIGURES]
    phantoms = [dict.fromkeys(keys, value) for value in np.linspace(0, 1, 101).tolist()]
    real = dict.fromkeys(keys, 0.5)
    real[keys[0]] = 2.0
    places = percentiles(real, phantoms)
    assert places[keys[0]] == 100 and places[keys[1]] == pytest.approx(49.5, abs=0.1)
    shown = table(places)
    assert "98 % of 48 figures within" in shown and shown.count("\n") == 2 + len(REGIONS) + 1


def test_contrast_table_sets_the_scan_beside_the_phantoms() -> None:
    keys = [f"{row}, {part}" for row in ROWS for part in PARTS if (row, part) != (ROWS[2], "L1-L5")]
    phantoms = [dict.fromkeys(keys, value) for value in np.linspace(0, 1, 101).tolist()]
    shown = contrast_table(dict.fromkeys(keys, 0.25), phantoms)
    assert shown.count("0.25 (0.05, 0.50, 0.95)") == len(keys) == 8
    assert shown.splitlines()[-1].endswith("| - |")


@pytest.mark.slow
def test_contrast_of_a_scan_falls_as_it_is_blurred(scan: Scan, estimator: SpineEstimator) -> None:
    smooth = replace(scan, pixels=cv2.GaussianBlur(scan.pixels, (0, 0), 3.0))
    plain, blurred = (contrasts(image, estimator(image)) for image in (scan, smooth))
    assert all(0 < plain[f"{ROWS[0]}, {part}"] < 0.6 for part in PARTS)
    for part in PARTS:
        assert blurred[f"{ROWS[0]}, {part}"] < 0.8 * plain[f"{ROWS[0]}, {part}"]
