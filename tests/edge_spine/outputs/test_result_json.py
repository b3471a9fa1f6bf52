"""result.json."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from edge_spine.outputs.registry import FORMATS
from tests.edge_spine.fake_result import fake_bands, fake_result


def test_it_is_one_line_of_utf8_in_the_schema(valid: jsonschema.Draft202012Validator) -> None:
    result = fake_result(band_90=fake_bands(), source="Müller.dcm")
    content = FORMATS["json"].render(result).decode("utf-8")
    assert content.endswith("}\n") and content.count("\n") == 1
    valid.validate(json.loads(content))
    assert json.loads(content) == json.loads(json.dumps(result.to_dict()))


def test_a_number_that_is_not_finite_is_an_error() -> None:
    result = fake_result()
    broken = replace(result, measurements=replace(result.measurements, volume_ml=float("nan")))
    with pytest.raises(ValueError):
        FORMATS["json"].render(broken)
