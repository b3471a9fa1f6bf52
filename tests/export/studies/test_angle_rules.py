from __future__ import annotations

import numpy as np
import pytest

from export.studies import angle_rules
from export.training.phantoms.phantom import make_subject


def test_angles_are_between_extrema_and_between_named_vertebrae() -> None:
    tilts = np.stack([np.concatenate([np.linspace(0, 20, 9), np.linspace(17.5, 0, 8)]), np.arange(17.0)], axis=1)
    assert angle_rules.angles(tilts) == pytest.approx([20, 3 - 11, 16 - 12])


def test_chords_are_nearer_to_endplates_than_tangents(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = np.stack([angle_rules.errors(make_subject(seed)) for seed in range(40)])
    assert wrong.shape == (40, 2, 3)
    chords, tangents = np.abs(wrong[:, :, 0]).mean(axis=0)
    assert chords < tangents < 8
    assert angle_rules.main(["--count", "5"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["degrees", "chords", "tangents"]
