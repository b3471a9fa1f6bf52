"""Text and its width."""

from __future__ import annotations

from edge_spine.outputs.drawing.text import shorten, text_mask, wrap


def test_long_text_is_shortened_to_its_width() -> None:
    text = shorten("a long name " * 20, 200, 18)
    assert "..." in text
    assert text_mask(text, 18, False)[0].shape[1] <= 200
    assert shorten("short", 200, 18) == "short"


def test_the_degree_sign_is_drawn_in_any_version_of_opencv() -> None:
    plain, _ = text_mask("14", 40, True)
    signed, _ = text_mask("14°", 40, True)
    assert 8 <= signed.shape[1] - plain.shape[1] <= 30
    assert signed[:20, plain.shape[1] :].any()
    assert not signed[26:, plain.shape[1] + 2 :].any()


def test_text_is_broken_between_words() -> None:
    text = "the count of vertebrae may be off by one"
    lines = wrap(text, 150, 15)
    assert " ".join(lines) == text and len(lines) > 1
    assert all(text_mask(line, 15, False)[0].shape[1] <= 150 for line in lines)
    assert wrap("unbreakable", 10, 15) == ["unbreakable"] and wrap("", 10, 15) == []
