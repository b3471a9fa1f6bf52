from __future__ import annotations

from dataclasses import replace

import pytest

from edge_spine.outputs import preview_png, report_html
from edge_spine.outputs.wording import sections, side_view_worth, verdict
from edge_spine.quality import Quality
from tests.edge_spine.fake_result import fake_bands, fake_result


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.25, "about 25 % better than"),
        (0.1, "about 10 % better than"),
        (0.099, "hardly better than"),
        (0.0, "no better than"),
        (-0.2, "no better than"),
    ],
)
def test_the_side_view_is_called_what_it_is_worth(gain: float, words: str) -> None:
    result = fake_result(band_90=replace(fake_bands(), sagittal_gain=gain))
    sentence = f"Side view inferred, on people it has not seen {words} an average spine."
    assert " ".join(side_view_worth(result)) == sentence
    assert sections(result)[1].note == side_view_worth(result) and sections(result)[0].note == ()


def test_page_and_picture_say_it_once_and_whole() -> None:
    plain, told = (fake_result(band_90=replace(fake_bands(), sagittal_gain=gain)) for gain in (None, 0.05))
    lines = side_view_worth(told)
    assert len(lines) == 2 and side_view_worth(plain) == side_view_worth(fake_result()) == ()
    for result, times in ((plain, 0), (told, 1)):
        drawn = [text for text, _ in preview_png.draw(result).texts]
        assert [drawn.count(line) for line in lines] == [times, times]
        assert report_html.render(result).decode().count(" ".join(lines)) == times


def test_flags_are_words() -> None:
    quality = Quality(accepted=True, flags=("trunk-leans", "side-view-atypical"))
    assert verdict(fake_result(quality=quality))[1] == ("trunk leans", "side view atypical")
