"""The study tries every case on every frame, and counts what was said."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edge_spine import read_scan
from edge_spine.bundle import load_bundle
from edge_spine.preprocessing.body import find_body
from edge_spine.preprocessing.locator import Localiser
from export.studies.geometry import CASES, FRAMES, WIDENING, Answer, answers, cut_to_body, fit, table

BUNDLED = Path(str(files("edge_spine") / "data" / "synthetic_whole_body.dcm"))


def test_every_case_of_the_bundled_scan() -> None:
    bundle = load_bundle(None)
    localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
    found = list(answers("one", read_scan(BUNDLED), localiser, np.random.default_rng(0)))
    assert [(a.frame, a.case) for a in found] == [(frame, case) for frame, cases in FRAMES.items() for case in cases]
    whole = {a.case: a.said for a in found if a.frame == "whole image"}
    assert whole.pop("right") == "" and all(whole.values())
    assert set(whole) | {"right"} == set(CASES)


def test_cutting_keeps_the_whole_body() -> None:
    scan = read_scan(BUNDLED)
    cut = cut_to_body(scan, np.random.default_rng(1))
    assert cut.pixels.size < scan.pixels.size
    assert find_body(cut.pixels).mask.sum() == pytest.approx(find_body(scan.pixels).mask.sum(), rel=0.002)


def test_a_fit_finds_the_distribution_and_widens_it() -> None:
    rng = np.random.default_rng(0)
    means, spread = np.array([5.0, 5.1, 7.5, 6.7]), 0.05
    lengths = np.exp(means + spread * rng.standard_normal((20_000, 4)))
    lengths[::10, 1] = np.nan
    found, covariance = fit(lengths)
    np.testing.assert_allclose(found, means, atol=0.002)
    np.testing.assert_allclose(np.diag(covariance), spread**2 + np.square(WIDENING), rtol=0.05)


def test_the_table_counts() -> None:
    found = [Answer("phantoms", "whole image", "right", said) for said in ("", "", "scale-doubtful", "")]
    assert "| right | 25.0 % of 4 (scale-doubtful 1) |" in table(found)
