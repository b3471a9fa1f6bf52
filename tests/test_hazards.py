"""The page of hazards: every control has tests, every mark a control, and the page lists them as they are now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import hazards


def test_the_page_is_what_the_marks_of_the_tests_make_it() -> None:
    assert hazards.PAGE.read_text(encoding="utf-8") == hazards.page(), "stale: run python -m tests.hazards"


def test_a_control_without_a_test_and_a_mark_without_a_control_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = hazards.HAZARDS[0]
    monkeypatch.setattr(hazards, "TESTS", tmp_path)
    monkeypatch.setattr(hazards, "HAZARDS", (replace(first, controls=(hazards.Control("turned", "Cause.", "Do."),)),))
    (tmp_path / "sub").mkdir()

    def page(text: str) -> str:
        (tmp_path / "sub" / "test_a.py").write_text(text, encoding="utf-8")
        return hazards.page()

    one = '@pytest.mark.hazard("turned")\n@pytest.mark.slow\ndef test_one_view(): ...\n'
    assert "| turned | Cause. | Do. | `sub/test_a.py`: one view |" in page(one + "def test_the_turned(): ...\n")
    every = 'pytestmark = [pytest.mark.slow, pytest.mark.hazard("turned")]\ndef test_a(): ...\ndef test_b(): ...\n'
    assert "`sub/test_a.py`: a; b |" in page(every)
    for text, name in (("def test_the_turned(): ...\n", "turned"), (one.replace("turned", "turmed") + one, "turmed")):
        with pytest.raises(ValueError, match=name):
            page(text)
    # a helper that no test is proves nothing
    with pytest.raises(ValueError, match="turned"):
        page(one.replace("test_one_view", "one_view"))


def test_the_hazards_that_must_be_there_are() -> None:
    names = " ".join(hazard.name.lower() for hazard in hazards.HAZARDS)
    for word in ("side", "patient", "scale", "loss", "stale", "tampered", "over-trust"):
        assert word in names
    assert all(hazard.controls and hazard.left for hazard in hazards.HAZARDS)
    names = [control.name for hazard in hazards.HAZARDS for control in hazard.controls]
    assert len(names) == len(set(names))
