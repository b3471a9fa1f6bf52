"""Every result is valid against its schema."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge_spine.result import SCHEMA, SpineResult, schema
from edge_spine.vertebrae import LEVELS
from tests.edge_spine.fake_result import fake_bands, fake_result


def test_a_result_is_valid_and_has_the_keys_of_the_contract(valid: jsonschema.Draft202012Validator) -> None:
    found = fake_result().to_dict()
    valid.validate(found)
    curves = found["curves"]
    assert list(found) == [
        "schema",
        "software",
        "scan",
        "model",
        "quality",
        "levels",
        "curves",
        "measurements",
        "timing_ms",
        "timing",
        "notice",
    ]
    assert set(curves) == {"z", "coronal", "sagittal", "band_90"}
    assert curves["band_90"] == {"coronal": None, "sagittal": None}
    assert set(found["timing_ms"]) == {"read", "preprocess", "infer", "reconstruct", "write", "total"}
    assert found["notice"] == "Research use only. Not for diagnosis."
    assert found["schema"] == schema()["properties"]["schema"]["const"] == SCHEMA == "edge-spine/result/2"


def test_curves_keep_their_columns_and_three_decimals() -> None:
    result = fake_result()
    curves = json.loads(result.to_json())["curves"]
    np.testing.assert_allclose(curves["z"], result.curves.z, atol=5.1e-4)
    for column, name in enumerate(("left", "centre", "right")):
        np.testing.assert_allclose(curves["coronal"][name], result.curves.coronal[:, column], atol=5.1e-4)
    for column, name in enumerate(("anterior", "centre", "posterior")):
        np.testing.assert_allclose(curves["sagittal"][name], result.curves.sagittal[:, column], atol=5.1e-4)


def test_levels_lie_on_the_centreline_at_their_heights(valid: jsonschema.Draft202012Validator) -> None:
    plain = fake_result()
    found = replace(plain, levels=replace(plain.levels, z_error=np.linspace(1, 3, 17)))
    levels = found.to_dict()["levels"]
    valid.validate(found.to_dict())
    assert tuple(levels) == LEVELS
    line = plain.spine.centreline
    for name, z in zip(LEVELS, plain.levels.z, strict=True):
        place = levels[name]
        assert place["z"] == pytest.approx(z, abs=5.1e-4)
        nearest = line[np.abs(line[:, 2] - z).argmin()]
        assert np.hypot(place["x"] - nearest[0], place["y"] - nearest[1]) < 1
    assert (levels["T1"]["z_error_mm"], levels["L5"]["z_error_mm"]) == (1, 3)
    assert plain.to_dict()["levels"]["T1"]["z_error_mm"] is None


def test_a_calibrated_band_is_valid_too(valid: jsonschema.Draft202012Validator) -> None:
    bands = fake_bands()
    found = fake_result(band_90=bands).to_dict()
    valid.validate(found)
    np.testing.assert_allclose(found["curves"]["band_90"]["coronal"], bands.coronal, atol=5.1e-4)
    np.testing.assert_allclose(found["curves"]["band_90"]["sagittal"], bands.sagittal, atol=5.1e-4)
    found["curves"]["band_90"]["coronal"] = None
    valid.validate(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra",), 1),
        (("curves", "extra"), 1),
        (("curves", "z"), [0.0] * 208),
        (("curves", "coronal", "left"), [0.0] * 210),
        (("curves", "band_90", "coronal"), [-1.0] * 209),
        (("curves", "band_90", "sagittal"), [1.0] * 208),
        (("curves", "band_90", "sagittal"), [None] * 209),
        (("measurements", "posture"), "standing"),
        (("measurements", "max_cobb_deg"), -1.0),
        (("measurements", "scoliosis_curves", 0, "side"), "middle"),
        (("measurements", "scoliosis_curves", 0, "apex_level"), "T13"),
        (("scan", "pixel_spacing_mm"), [2.4]),
        (("model", "sha256"), "short"),
        (("quality", "flags"), ["a", "a"]),
        (("timing_ms", "total"), -1),
        (("notice",), "For diagnosis."),
        (("schema",), "edge-spine/result/1"),
        (("levels", "T13"), {"x": 0, "y": 0, "z": 0, "z_error_mm": None}),
        (("levels", "T1", "z_error_mm"), -1),
        (("measurements", "max_cobb_error_90_deg"), 0),
        (("scan", "sha256"), "short"),
        (("scan", "path"), None),
        (("software", "version"), ""),
    ],
)
def test_the_schema_is_strict(valid: jsonschema.Draft202012Validator, path: tuple[Any, ...], value: Any) -> None:
    found = copy.deepcopy(fake_result().to_dict())
    place: Any = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not valid.is_valid(found)


def test_every_key_is_required_but_timing_which_older_files_lack(valid: jsonschema.Draft202012Validator) -> None:
    whole = fake_result().to_dict()
    for key in whole:
        without = {name: value for name, value in whole.items() if name != key}
        assert valid.is_valid(without) is (key == "timing"), key


def test_the_times_can_be_added_up_and_the_graph_is_apart(valid: jsonschema.Draft202012Validator) -> None:
    for graph in (False, True):
        found = fake_result(graph=graph).to_dict()
        valid.validate(found)
        assert found["timing"] == {"graph": graph} and all(type(ms) is float for ms in found["timing_ms"].values())
    found["timing"]["graph"] = 1
    assert not valid.is_valid(found)


def test_a_number_that_is_not_finite_is_never_written() -> None:
    result = fake_result()
    broken = replace(result, measurements=replace(result.measurements, volume_ml=math.nan))
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.to_json()


def test_what_is_derived_is_computed_once_and_kept_when_only_times_change() -> None:
    calls = []

    def surface_points(result: SpineResult) -> int:
        calls.append(result)
        return len(result.mesh()[0])

    result = fake_result()
    timed = result.with_timing(read=5.0)
    assert timed.derived(surface_points) == result.derived(surface_points) == 209 * 48 + 2
    assert len(calls) == 1
    assert timed.mesh()[0] is result.mesh()[0]
    assert timed.to_dict()["curves"] is result.to_dict()["curves"]
    assert (timed.to_dict()["timing_ms"]["read"], result.to_dict()["timing_ms"]["read"]) == (5.0, 0.0)
    assert timed.timing_ms["total"] == 5.0


def test_a_result_with_other_measurements_derives_anew() -> None:
    result = fake_result()
    before = result.to_dict()["measurements"]["volume_ml"]
    other = replace(result, measurements=replace(result.measurements, volume_ml=1.0))
    assert other.to_dict()["measurements"]["volume_ml"] == 1.0 != before


def test_the_mesh_cannot_be_changed_by_a_writer() -> None:
    vertices, _ = fake_result().mesh()
    with pytest.raises(ValueError, match="read-only"):
        vertices[0] = 0.0
