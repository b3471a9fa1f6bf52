"""The page of hazards: every control has tests, and the page lists them as they are named now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests import hazards


def test_the_page_is_what_the_names_of_the_tests_make_it() -> None:
    assert hazards.PAGE.read_text(encoding="utf-8") == hazards.page(), "stale: run python -m tests.hazards"


def test_a_control_without_its_test_and_a_renamed_test_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "test_a.py").write_text("def test_the_old_name(): ...\n", encoding="utf-8")
    control = hazards.Control("Cause.", "Control.", ("test_a::*name",))
    (first, *_) = hazards.HAZARDS
    monkeypatch.setattr(hazards, "TESTS", tmp_path)
    monkeypatch.setattr(hazards, "HAZARDS", (replace(first, controls=(control,)),))
    assert "`test_a.py`: the old name |" in hazards.page()
    (tmp_path / "test_a.py").write_text("def test_the_new_name(): ...\ndef other_name(): ...\n", encoding="utf-8")
    assert "`test_a.py`: the new name |" in hazards.page()
    (tmp_path / "test_a.py").write_text("def test_something_else(): ...\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no test"):
        hazards.page()


def test_the_hazards_that_must_be_there_are() -> None:
    names = " ".join(hazard.name.lower() for hazard in hazards.HAZARDS)
    for word in ("side", "patient", "scale", "loss", "stale", "tampered", "over-trust"):
        assert word in names
    assert all(hazard.controls and hazard.left for hazard in hazards.HAZARDS)
