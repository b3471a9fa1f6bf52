"""Scans and an estimator for the tests of the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine.errors import Refusal
from edge_spine.quality import Quality
from edge_spine.scan import Scan
from tests.edge_spine.cli.running import PATIENT
from tests.edge_spine.fake_result import fake_curves, fake_result, phantom_pixels


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """A FAKE body as NPY."""
    path = tmp_path / "in" / "body.npy"
    path.parent.mkdir()
    np.save(path, phantom_pixels())
    return path


class FakeEstimator:
    """FAKE: answers by the name of the scan, so that every ending can be tested without a model."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> FakeEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, scan: Scan) -> Any:
        if scan.source.startswith("refuse"):
            raise Refusal("no-spine", "no spine was found")
        if scan.source.startswith("crash"):
            raise ValueError(PATIENT)
        if scan.source.startswith("interrupt"):
            raise KeyboardInterrupt
        fake = fake_result(curves=fake_curves())
        return fake_result(scan=scan, quality=Quality(accepted=True, flags=("trunk-leans",)), model=fake.model)


@pytest.fixture
def fake_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_spine.estimator.SpineEstimator", FakeEstimator)


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a", "crash", "refuse", "z"):
        np.save(folder / f"{name}.npy", phantom_pixels())
    yield folder
