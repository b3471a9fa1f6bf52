"""Bundles whose manifest was changed, and why they are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import manifest_bytes
from edge_spine.errors import BundleError
from tests.edge_spine.fake_bundle import fake_bundle


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite(folder: Path, change: Any) -> None:
    """Change the manifest and seal it again, as someone who writes bundles would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))


# what the schema "edge-spine/population/2" adds
ANGLES: dict[str, Any] = {
    "schema": "edge-spine/population/2",
    "kyphosis_deg": [10.5, 52.0],
    "lordosis_deg": [13, 68.0],
    "angles_of": "true curves",
}


def fake_population(**changes: Any) -> dict[str, Any]:
    return {
        "schema": "edge-spine/population/1",
        "share": 0.9,
        "unit": "crop pixels",
        "low": [-10.0] * 209,
        "high": [12.0] * 208 + [13],
        "count": 7,
        "described": "nothing: invented",
        **changes,
    }


def with_population(folder: Path, population: object) -> Path:
    made = fake_bundle(folder, population=population)
    manifest = json.loads((made / "manifest.json").read_bytes())
    (made / "manifest.json").write_bytes(manifest_bytes(manifest))
    return made
