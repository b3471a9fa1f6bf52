"""The second opinion: when it is asked, what follows from it, and blocks that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import SpineEstimator
from edge_spine.bundle import load_bundle
from edge_spine.errors import BundleError
from edge_spine.result import schema
from edge_spine.scan import Scan
from edge_spine.second_opinion import mirrored
from tests.edge_spine.fake_bundle import fake_bundle, fake_calibration, fake_output
from tests.edge_spine.fake_result import phantom_pixels


def fake_block(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge-spine/second-opinion/1",
        "kind": "mirror",
        "limit_mm": 2.0,
        "false_alarm_rate": 0.05,
        "widening": 1.5,
        **changes,
    }


class Asked:
    """Stands in for an engine: answers a crop and what is not that crop with side views of other depths."""

    name = precision = "FAKE"

    def __init__(self, apart_px: float) -> None:
        self.apart_px = apart_px
        self.crops: list[NDArray[np.float32]] = []

    def infer(self, crop: NDArray[np.float32]) -> NDArray[np.float32]:
        self.crops.append(crop)
        answer = fake_output().reshape(209, 6).copy()
        if len(self.crops) > 1:
            # half the rows forwards, half back: the mean, to which side views are anchored, stays
            answer[:, 3:] += np.where(np.arange(209) % 2, 1, -1)[:, np.newaxis] * np.float32(self.apart_px / 224)
        return answer.reshape(1, -1)

    def close(self) -> None:
        pass


@pytest.fixture
def scan() -> Scan:
    return Scan(phantom_pixels(), (2.427, 2.419), "FAKE.npy", None, ())


@pytest.mark.parametrize(("apart_px", "flagged"), [(0.5, False), (1.5, True)])
def test_answers_that_differ_are_flagged_and_widen_the_side_view(
    tmp_path: Path, scan: Scan, apart_px: float, flagged: bool
) -> None:
    plain = fake_bundle(tmp_path / "plain", bands=fake_calibration())
    with SpineEstimator(model=plain) as estimator:
        expected = estimator(scan).band_90
    model = fake_bundle(tmp_path / "model", bands=fake_calibration(), second_opinion=fake_block())
    with SpineEstimator(model=model) as estimator:
        estimator._engine = engine = Asked(apart_px)  # type: ignore[assignment]
        result = estimator(scan)
    assert len(engine.crops) == 2
    np.testing.assert_array_equal(engine.crops[1], engine.crops[0][..., ::-1])
    assert (result.quality.flags.count("models-disagree") == 1) is flagged
    assert result.band_90 is not None and expected is not None
    np.testing.assert_allclose(result.band_90.sagittal, expected.sagittal * (1.5 if flagged else 1))
    np.testing.assert_array_equal(result.band_90.coronal, expected.coronal)
    jsonschema.Draft202012Validator(schema()).validate(result.to_dict())


def test_without_a_block_the_network_is_asked_once(tmp_path: Path, scan: Scan) -> None:
    model = fake_bundle(tmp_path)
    assert load_bundle(model).second_opinion is None
    with SpineEstimator(model=model) as estimator:
        estimator._engine = engine = Asked(50.0)  # type: ignore[assignment]
        assert "models-disagree" not in estimator(scan).quality.flags
    assert len(engine.crops) == 1


def test_bands_that_are_absent_are_not_widened(tmp_path: Path, scan: Scan) -> None:
    with SpineEstimator(model=fake_bundle(tmp_path, second_opinion=fake_block())) as estimator:
        estimator._engine = Asked(50.0)  # type: ignore[assignment]
        result = estimator(scan)
    assert "models-disagree" in result.quality.flags and result.band_90 is None


def test_a_mirrored_crop_is_one_that_engines_take() -> None:
    crop = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    found = mirrored(crop)
    assert found.flags.c_contiguous and found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], crop[..., 223])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edge-spine/second-opinion/2"}, "'schema' must be"),
        ({"kind": "lite"}, "'kind' must be 'mirror'"),
        ({"limit_mm": 0}, "'limit_mm' must be"),
        ({"limit_mm": True}, "'limit_mm' must be"),
        ({"limit_mm": "2"}, "'limit_mm' must be"),
        ({"false_alarm_rate": 1.1}, "'false_alarm_rate' must be"),
        ({"widening": 0.9}, "'widening' must be"),
        ({"more": 1}, "an object with"),
    ],
)
def test_a_block_that_is_wrong_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(fake_bundle(tmp_path, second_opinion=fake_block(**change)))
    assert "'second_opinion'" in str(caught.value) and message in str(caught.value)
