"""result.json, after the schema "edge-spine/result/1"."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_spine.estimator import SpineResult

SCHEMA = "edge-spine/result/1"


def render(result: SpineResult) -> bytes:
    """Return a result as the bytes of result.json: UTF-8, one object, finite numbers only."""
    return (result.to_json() + "\n").encode()


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that every result.json is valid against."""
    text = files("edge_spine.outputs").joinpath("result.schema.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed
