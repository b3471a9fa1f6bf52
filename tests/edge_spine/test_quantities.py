"""The table of measured numbers agrees with what is measured and with the schema."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edge_spine.measure import LevelledCurve, Measurements
from edge_spine.quantities import CURVE_NAMES, CURVE_QUANTITIES, ERRORS, QUANTITIES
from edge_spine.result import schema


def test_the_table_holds_every_number_of_measurements() -> None:
    names = {field.name for field in fields(Measurements)}
    assert names - {"posture", "scoliosis_curves"} == {*QUANTITIES, *ERRORS}
    curve = {field.name for field in fields(LevelledCurve)}
    assert curve - {"apex", "upper_end", "lower_end"} == {*CURVE_QUANTITIES, *CURVE_NAMES}


def test_the_schema_requires_every_number() -> None:
    assert {*QUANTITIES, *ERRORS} <= set(schema()["properties"]["measurements"]["required"])


def test_every_number_has_a_definition() -> None:
    quantities = [*QUANTITIES.values(), *CURVE_QUANTITIES.values()]
    assert all(len(quantity.definition) > 20 and not quantity.definition.endswith(".") for quantity in quantities)
    assert len({quantity.definition for quantity in quantities}) == len(quantities)


@pytest.mark.hazard("unit-mistaken")
def test_names_end_in_their_units_and_texts_carry_them() -> None:
    for name, quantity in {**QUANTITIES, **CURVE_QUANTITIES}.items():
        assert name.endswith(f"_{quantity.unit}") and len(quantity.code[0]) <= 16, name
    assert QUANTITIES["max_cobb_deg"].text(12.34) == "12.3°"
    assert QUANTITIES["max_cobb_deg"].text(25.6, 3.7) == "26 ± 4°"
    assert QUANTITIES["volume_ml"].text(250.6) == "251 ml"


def test_nothing_is_minus_zero() -> None:
    kyphosis = QUANTITIES["kyphosis_t4_t12_deg"]
    assert kyphosis.text(-0.04) == "0.0°" and kyphosis.text(-0.4, 6.0) == "0 ± 6°"
    assert kyphosis.text(-0.06) == "-0.1°" and kyphosis.text(-0.6, 6.0) == "-1 ± 6°"
