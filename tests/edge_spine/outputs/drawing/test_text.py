"""Text and its width."""

from __future__ import annotations

from edge_spine.outputs.drawing.text import shorten, text_mask


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
