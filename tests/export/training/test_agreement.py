from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_spine.measure import cobb_deg, measure
from edge_spine.result import SpineResult
from edge_spine.vertebrae import LEVELS, Levels
from export.training.agreement import endplate_errors, judge_levels, measured
from export.training.phantoms.phantom import Phantom, make_phantom
from tests.edge_spine.fake_result import fake_result


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(10_000_004)


def answered(phantom: Phantom, levels: Levels) -> SpineResult:
    """A FAKE result: the true curves with vertebrae at `levels`."""
    truth = measured(phantom.truth(phantom.trunk_heights_mm), levels)
    return fake_result(curves=truth.curves, spine=truth.spine, levels=levels, measurements=truth.measurements)


def test_true_levels_lie_within_the_trunk_and_the_vertebrae_on_the_centreline(phantom: Phantom) -> None:
    levels, truth = phantom.levels, phantom.truth(phantom.trunk_heights_mm)
    assert (truth.z[0], truth.z[-1]) == (levels.top, levels.bottom)
    assert truth.sagittal[:, 1].mean() == pytest.approx(0, abs=1e-9)
    x = np.interp(-levels.z, -truth.z, truth.coronal[:, 1])
    np.testing.assert_allclose(x, phantom.body_centres[:, 0] - phantom.framing.top_left_mm[1], atol=0.3)


def test_true_vertebrae_have_no_error_and_all_their_names(phantom: Phantom) -> None:
    row = judge_levels(answered(phantom, phantom.levels), phantom)
    assert (row["level_mae_mm"], row["level_named"], row["ends_mae_mm"]) == (0, 1, 0)
    assert "cobb_interval" not in row


def test_a_miscount_is_found(phantom: Phantom) -> None:
    true = phantom.levels
    z = np.concatenate([true.z[1:], [true.z[-1] - 12]])
    wrong = Levels(z, true.top, true.bottom - 20)
    row = judge_levels(answered(phantom, wrong), phantom)
    assert row["level_named"] <= 1 / len(LEVELS) and row["level_mae_mm"] > 15
    assert row["ends_mae_mm"] == pytest.approx(10)


def test_angles_are_judged_against_the_tilts_of_the_bodies(phantom: Phantom) -> None:
    result = answered(phantom, phantom.levels)
    wrong = endplate_errors(result, phantom)
    coronal, sagittal = phantom.tilts_deg.T
    found = measure(result.spine, phantom.levels)
    assert wrong["cobb"] == pytest.approx(found.max_cobb_deg - cobb_deg(coronal))
    assert wrong["kyphosis"] == pytest.approx(found.kyphosis_t4_t12_deg - (sagittal[3] - sagittal[11]))
    assert wrong["lordosis"] == pytest.approx(found.lordosis_l1_l5_deg - (sagittal[16] - sagittal[12]))
    # bodies tilt about as the chords between their neighbours
    assert abs(wrong["cobb"]) < 12 and abs(wrong["kyphosis"]) < 10


def test_an_interval_holds_an_error_that_is_no_larger(phantom: Phantom) -> None:
    result = answered(phantom, phantom.levels)
    wrong = abs(endplate_errors(result, phantom)["kyphosis"])
    held = []
    for half in (wrong + 0.1, max(wrong - 0.1, 1e-3)):
        measurements = replace(result.measurements, kyphosis_error_90_deg=half)
        row = judge_levels(replace(result, measurements=measurements), phantom)
        held.append(row["kyphosis_interval"])
    assert held == [1, 0]
