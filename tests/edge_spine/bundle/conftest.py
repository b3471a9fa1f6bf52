"""A copy of the FAKE bundle, to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(fake_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fake_model, tmp_path / "bundle"))
