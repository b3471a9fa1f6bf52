"""The packaged localiser, loaded once."""

from __future__ import annotations

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.preprocessing.locator import Localiser


@pytest.fixture(scope="session")
def localiser() -> Localiser:
    bundle = load_bundle(None)
    return Localiser(bundle.read(bundle.file_with_role("localiser")))
