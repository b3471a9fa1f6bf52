from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge_spine
from edge_spine import errors
from edge_spine.measure import AngleErrors, measure
from edge_spine.outputs import preview_png, report_html
from edge_spine.outputs.wording import (
    FLAGS,
    about,
    headline,
    in_words,
    remark,
    scan_name,
    sections,
    side_view_worth,
    verdict,
)
from edge_spine.quality import Quality
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result

ROOT = Path(edge_spine.__file__).parent
# Words with hyphens that are neither flags nor codes of refusals.
OTHER_WORDS = {"edge-spine"}


@pytest.mark.hazard("inferred-as-measured")
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
    quality = Quality(accepted=True, flags=("inverted", "levels-uncertain", "not-in-the-table"))
    assert verdict(fake_result(quality=quality))[1] == (
        "image was inverted and put right",
        "the count of vertebrae may be off by one",
        "not in the table",
    )


def flags_in(source: str) -> Iterator[str]:
    """Yield the names in a module that may be flags: words with hyphens, and what is put into a list of flags."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"[a-z]+(-[a-z]+)+", node.value):
                yield node.value
        elif isinstance(node, ast.Call) and "flags" in ast.unparse(node.func):
            yield from (leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant))
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.keyword) and node.value is not None:
            if isinstance(node, ast.keyword):
                names = node.arg or ""
            else:
                names = " ".join(map(ast.unparse, node.targets if isinstance(node, ast.Assign) else [node.target]))
            if "flags" in names or names == "unusual":
                yield from (
                    leaf.value
                    for leaf in ast.walk(node.value)
                    if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
                    if re.fullmatch(r"[a-z-]+", leaf.value)
                )


def test_flags_are_found_in_source() -> None:
    lines = (
        'a = ("x-y", "no flag")',
        'flags.append("inverted")',
        'flags = ("metal",)',
        'f(flags=("motion",))',
        'unusual = {"odd": 1}',
    )
    source = "\n".join(lines)
    assert set(flags_in(source)) == {"x-y", "inverted", "metal", "motion", "odd"}


@pytest.mark.hazard("no-spine")
def test_every_flag_of_the_code_has_a_sentence() -> None:
    paths = [ROOT / "scan.py", ROOT / "quality.py", ROOT / "disturbance.py", ROOT / "bundle" / "bands.py"]
    paths += [path for room in ("reading", "preprocessing") for path in (ROOT / room).rglob("*.py")]
    found = {flag for path in paths for flag in flags_in(path.read_text(encoding="utf-8"))}
    assert {"inverted", "orientation-unknown", "trunk-leans", "side-view-atypical", "levels-uncertain"} <= found
    codes = set(errors.REFUSAL_CODES)
    assert found - codes - OTHER_WORDS - set(FLAGS) == set()
    assert all(sentence[0].islower() and sentence[-1] != "." for sentence in map(in_words, FLAGS))


@pytest.mark.hazard("last-digit")
def test_the_headline_has_the_interval_where_it_is_known() -> None:
    result = fake_result(curves=fake_curves(lateral_mm=20.0))
    cobb = result.measurements.max_cobb_deg
    assert headline(result)[0] == f"{cobb:.1f}°"
    known = measure(result.spine, result.levels, AngleErrors((0.0, 10.0), (3.0, 4.0), 5.0, 6.0))
    result = replace(result, measurements=known)
    assert headline(result)[0] == f"{cobb:.0f} ± 4°"
    assert dict(sections(result)[1].rows)["Lordosis L1 to L5"] == f"{known.lordosis_l1_l5_deg:.0f} ± 6°"
    for text in (*[text for text, _ in preview_png.draw(result).texts], report_html.render(result).decode()):
        if f"{cobb:.0f} ± 4°" in text:
            break
    else:
        raise AssertionError("the interval is on neither page")


def test_a_curve_that_is_too_small_to_be_listed_shows_its_angle() -> None:
    result = fake_result(curves=fake_curves(lateral_mm=0.6))
    assert not result.measurements.scoliosis_curves and 0.2 < result.measurements.max_cobb_deg < 3
    figure, sentence = headline(result)
    assert figure == f"{result.measurements.max_cobb_deg:.1f}°" and sentence == "no curve of 3° or more"
    assert "none" not in [text for text, _ in preview_png.draw(result).texts]


def test_levels_are_called_estimated_only_where_they_are() -> None:
    average = fake_result()
    found = replace(average, levels=replace(average.levels, z_error=np.full(17, 2.0)))
    assert "Levels are estimated." in remark(average) and "Levels" not in remark(found)
    assert "Levels are estimated" in report_html.render(average).decode()
    assert "Levels are estimated" not in report_html.render(found).decode()


def test_the_date_is_shown_where_it_is_asked_for() -> None:
    plain, dated = fake_result(), fake_result(shown_date="2023-02-28")
    assert (scan_name(plain), scan_name(dated)) == ("FAKE.dcm", "FAKE.dcm, 2023-02-28")
    assert "FAKE.dcm, 2023-02-28" in [text for text, _ in preview_png.draw(dated).texts]
    assert "2023-02-28" in report_html.render(dated).decode()
    assert "2023" not in " ".join(text for text, _ in preview_png.draw(dated, about_this_run=False).texts)


def test_a_scan_without_a_file_has_no_hash_of_it() -> None:
    result = fake_result()
    result.scan.sha256 = None  # type: ignore[misc]
    assert about(result)["scan_sha256"] == "unknown"
