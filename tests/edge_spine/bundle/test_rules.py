from __future__ import annotations

import math
from typing import Any

import pytest

from edge_spine.bundle.rules import (
    FILLED,
    TEXT,
    Rule,
    between,
    broken_rule,
    count,
    exactly,
    several,
    versioned_problem,
)

VERSIONS = {"b/2": {"size": count("bytes"), "note": TEXT._replace(optional=True)}, "b/1": {"size": count("bytes")}}


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (TEXT, ["a"], ["", " ", 1, None]),
        (FILLED, [{"a": 1}], [{}, [1], None]),
        (exactly("a", "b"), ["a", "b"], ["c", ["a"], None]),
        (count("x"), [1, 10**400], [0, -1, 1.0, True, "1"]),
        (between(0, 1), [0.5], [0, 1, math.nan, True, "0.5", 10**400, None]),
        (several(2, between(-1, 2)), [[0, 1]], [[0], [0, 2], "01", {0: 0, 1: 1}]),
    ],
)
def test_what_keeps_a_rule(rule: Rule, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not rule.holds(value)] == []
    assert [value for value in bad if rule.holds(value)] == []


def test_the_first_broken_rule_is_named() -> None:
    rules = {"a": TEXT, "b": several(3, between(0, 5)), "c": count("bytes")}
    assert broken_rule({"a": "x", "b": [1, 2, 3]}, rules) is None
    assert broken_rule({"b": [1, 2], "c": 0}, rules) == "'b' must be 3 numbers between 0 and 5"
    assert broken_rule({"c": 0}, rules) == "'c' must be a positive number of bytes"


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"schema": "b/2", "size": 1, "note": "x"}, None),
        ({"schema": "b/2", "size": 1}, None),
        ({"schema": "b/1", "size": 1}, None),
        ({"schema": "b/1", "size": 1, "note": "x"}, "an object with schema, size is expected"),
        ({"schema": "b/2"}, "an object with schema, size is expected"),
        ({}, "an object with schema, size is expected"),
        ({"schema": ["b/2"], "size": 1}, "'schema' must be 'b/2' or 'b/1'"),
        ({"schema": "b/2", "size": 0}, "'size' must be a positive number of bytes"),
        (None, "an object is expected"),
    ],
)
def test_the_schema_of_a_block_chooses_its_rules(block: object, problem: str | None) -> None:
    assert versioned_problem(block, VERSIONS) == problem
