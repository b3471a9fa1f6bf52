"""result.json, in the schema of `edge_spine.result`."""

from __future__ import annotations

from edge_spine.result import SpineResult


def render(result: SpineResult) -> bytes:
    """Return the result as one JSON object in UTF-8; a number that is not finite raises ValueError."""
    return (result.to_json() + "\n").encode()
