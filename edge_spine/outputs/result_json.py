"""result.json, after the schema of `edge_spine.result`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_spine.result import SpineResult


def render(result: SpineResult) -> bytes:
    """Return a result as the bytes of result.json: UTF-8, one object, finite numbers only."""
    return (result.to_json() + "\n").encode()
