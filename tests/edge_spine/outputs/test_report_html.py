from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_spine.estimator import SpineEstimator
from edge_spine.outputs import preview_png, report_html
from edge_spine.outputs.drawing import panels
from edge_spine.outputs.registry import DEFAULT_FORMATS, FORMATS
from edge_spine.outputs.report.scene import MAX_TEXTURE
from edge_spine.outputs.wording import headline, remark, sections, verdict
from edge_spine.quality import Quality
from edge_spine.reading import read_scan
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_pixels, fake_result
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN, fake_dicom_result
from tests.edge_spine.outputs.report.packed import unpacked

HOSTILE = "<script>alert(1)</script>\"'&amp;$title</title>脊椎\u202e" + "very_long_name" * 40 + ".dcm"
LARGEST_PAGE = 2_500_000


class _Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text inside the named ones."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        self.inside.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inside[self._open][-1] += data

    def having(self, attribute: str) -> list[str]:
        return [
            value or "" for _, attributes in self.elements for name, value in attributes.items() if name == attribute
        ]


def _page(**changes: Any) -> _Page:
    return _Page(report_html.render(fake_result(**changes)))


def test_it_is_asked_for_by_name() -> None:
    assert (FORMATS["html"].filename, FORMATS["html"].needs) == ("report.html", None)
    assert "html" not in DEFAULT_FORMATS
    result = fake_result()
    assert FORMATS["html"].render(result) == report_html.render(result)


def test_other_formats_load_nothing_of_it() -> None:
    code = (
        "import sys\n"
        "from edge_spine.outputs.registry import FORMATS\n"
        "from tests.edge_spine.fake_result import fake_result\n"
        "FORMATS['json'].render(fake_result())\n"
        "print('edge_spine.outputs.report_html' in sys.modules, 'edge_spine.outputs.drawing.canvas' in sys.modules)\n"
        "FORMATS['html'].render(fake_result())\n"
        "print('edge_spine.outputs.report_html' in sys.modules, 'reportlab' in sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert (ended.stdout.split(), ended.stderr) == (["False", "False", "True", "False"], "")


def test_the_same_scan_gives_the_same_bytes() -> None:
    result = fake_result(band_90=fake_bands())
    slower = result.with_timing(read=3.0, preprocess=123.0, infer=456.0)
    assert report_html.render(result) == report_html.render(slower)
    assert report_html.render(result) != report_html.render(fake_result())


@pytest.mark.parametrize("pixels", [None, fake_pixels(3164, 1088)], ids=["usual", "large"])
def test_it_is_small_enough(pixels: np.ndarray[Any, Any] | None) -> None:
    changes = {} if pixels is None else {"pixels": pixels, "pixel_spacing_mm": (0.607, 0.605)}
    size = len(report_html.render(fake_result(band_90=fake_bands(), **changes)))
    assert 500_000 < size < LARGEST_PAGE


def test_a_real_result_is_small_enough(estimator: SpineEstimator) -> None:
    assert len(report_html.render(estimator(read_scan(DEMO_SCAN)))) < LARGEST_PAGE


def test_nothing_is_loaded_from_anywhere() -> None:
    page = _page()
    loading = {"src", "href", "srcset", "data", "action", "poster", "formaction", "xlink:href", "background"}
    targets = [value for name in loading for value in page.having(name)]
    assert len(targets) > 4
    assert all(target.startswith("data:") for target in targets)
    style = page.inside["style"][0]
    assert "@import" not in style
    assert "url(" not in style
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "form", "base", "video", "audio"})


def test_the_policy_allows_what_the_page_carries_and_nothing_else() -> None:
    page = _page()
    (policy,) = (attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, content in (("style-src", page.inside["style"][0]), ("script-src", page.inside["script"][-1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    # It would be refused: style attributes and inline handlers have no hash.
    assert not page.having("style")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_hostile_name_stays_text() -> None:
    plain, hostile = _page(), _page(source=HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert HOSTILE in hostile.inside["title"][0]
    assert hostile.inside["p"][0] == HOSTILE
    assert hostile.having("title")[0] == HOSTILE


def test_hostile_names_of_models_flags_and_levels_stay_text() -> None:
    quality = Quality(accepted=False, flags=("<img src=x onerror=alert(1)>",))
    result = fake_result(quality=quality)
    model = {**result.model, "name": "</p><script>", "version": "</script>"}
    largest, *others = result.measurements.scoliosis_curves
    named = replace(largest, upper_end_level="</script><b>", apex_level="<b>")
    measurements = replace(result.measurements, scoliosis_curves=(named, *others))
    page = _Page(report_html.render(replace(result, model=model, measurements=measurements)))
    assert "</script><b>" in [end["level"] for end in json.loads(page.inside["script"][0])["ends"]]
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in _page().elements]


def test_a_name_that_is_no_unicode_does_not_stop_it() -> None:
    assert b"scan?.dcm" in report_html.render(fake_result(source="scan\udcff.dcm"))


def test_it_names_no_patient() -> None:
    result = fake_dicom_result()
    page = _Page(report_html.render(result))
    said = " ".join(" ".join(parts) for tag, parts in page.inside.items() if tag not in ("script", "style"))
    said += " ".join(page.having("title") + page.having("content") + page.having("aria-label"))
    assert result.scan.source in said
    assert result.scan.header is not None
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "SOPInstanceUID"):
        value = str(result.scan.header[keyword].value)
        assert value
        assert value not in said, keyword


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"curves": fake_curves(lateral_mm=0.0)},
        {"quality": Quality(accepted=False, flags=("low-confidence", "trunk-leans"))},
    ],
    ids=["usual", "straight", "refused"],
)
def test_the_table_says_what_the_preview_says(changes: dict[str, Any]) -> None:
    result = fake_result(**changes)
    table = preview_png.PAGE.cards()[4]
    drawn = [text for text, box in preview_png.draw(result).texts if box.inside(table)]
    page = _Page(report_html.render(result))
    cells = list(zip(page.inside["th"], page.inside["td"], strict=True))
    assert cells == [row for section in sections(result) for row in section.rows]
    said = [*headline(result), *(cell for row in cells for cell in row), *verdict(result)[1], verdict(result)[0]]
    assert set(said) <= set(drawn)
    assert {section.heading.upper() for section in sections(result)} <= set(drawn)
    assert remark(result) in " ".join(drawn)
    # and nothing of the preview's table is missing here
    start = drawn.index("LARGEST LATERAL CURVE (COBB)")
    known = {*said, "INFERRED, NOT SEEN", "QUALITY", "LARGEST LATERAL CURVE (COBB)"}
    assert {text for text in drawn[start:] if text not in remark(result)} <= known


def test_it_says_what_it_must_without_scripts() -> None:
    result = fake_result(band_90=fake_bands())
    text = " ".join(
        " ".join(parts) for tag, parts in _Page(report_html.render(result)).inside.items() if tag != "script"
    )
    for wanted in (
        "Research use only. Not for diagnosis.",
        "inferred, not seen",
        "100 mm",
        "supine",
        "needs JavaScript",
    ):
        assert wanted in text
    for wanted in (
        "90 % band: 1.5 mm either side",
        result.model["sha256"][:12],
        result.model["version"],
        "onnx-cpu int8",
    ):
        assert wanted in text


def test_the_pictures_are_the_panels_of_the_preview() -> None:
    result = fake_result(band_90=fake_bands())
    canvas = preview_png.draw(result)
    cards = preview_png.PAGE.cards()
    page = _Page(report_html.render(result))
    written = page.inside["text"]
    for card in cards[:4]:
        inside = [text for text, box in canvas.texts if box.inside(card)]
        assert inside
        assert set(inside) <= set(written)
    first = result.curves.coronal[0]
    view = panels.shared_view(result, [replace(card, x=0, y=0) for card in cards])
    x, y = view.points(first[1], result.curves.z[0])[0]
    assert any(points.startswith(f"{x:.2f},{y:.2f} ") for points in page.having("points"))


def test_identifiers_are_unique_and_referenced_ones_exist() -> None:
    page = _page(band_90=fake_bands())
    names = page.having("id")
    assert len(names) == len(set(names)) > 8
    references = [name for key in ("aria-labelledby", "aria-describedby") for name in page.having(key)]
    references += re.findall(r"url\(#([^)]+)\)", " ".join(page.having("clip-path")))
    assert set(references) <= set(names)


def test_buttons_pictures_and_tables_have_names() -> None:
    page = _page()
    assert page.elements[0] == ("html", {"lang": "en"})
    for index, (tag, attributes) in enumerate(page.elements):
        if tag == "button":
            number = sum(other == "button" for other, _ in page.elements[:index])
            assert attributes.get("aria-label") or page.inside["button"][number].strip()
        if tag in ("svg", "table", "canvas"):
            assert attributes.get("aria-label"), tag
        if tag == "img":
            assert "alt" in attributes


def _signed_volume_ml(vertices: np.ndarray[Any, Any], faces: np.ndarray[Any, Any]) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6000)


def test_the_embedded_surface_is_in_mm_and_right_handed() -> None:
    result = fake_result()
    page = _Page(report_html.render(result))
    data = json.loads(page.inside["script"][0])
    vertices, faces = unpacked(data["vertices"], "<f4"), unpacked(data["faces"], "<u2")
    np.testing.assert_allclose(vertices, result.spine.mesh()[0], atol=1e-4)
    # Outward faces enclose a positive volume in a right-handed frame, and a mirrored axis makes it negative.
    assert _signed_volume_ml(vertices, faces) == pytest.approx(result.spine.volume_ml, rel=0.01)
    assert len(unpacked(data["colours"], "u1")) == len(vertices)


def test_the_bundle_carries_its_licence_and_cannot_end_its_element() -> None:
    bundle = report_html._asset("viewer.min.js")
    assert report_html._asset("three.LICENSE.txt").strip() in bundle[:2000]
    assert "three.js 0.187.0" in bundle[:200]
    pinned = json.loads(report_html._asset("package.json"))["devDependencies"]
    assert pinned["three"] == "0.187.0"
    for ending in ("</script", "<!--"):
        assert ending not in bundle.lower()
    source = report_html._asset("viewer.js")
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "import("):
        assert sink not in source


@pytest.mark.parametrize(("rows", "columns"), [(791, 272), (3164, 1088)])
def test_the_plane_shows_the_whole_scan_upright(rows: int, columns: int) -> None:
    pixels = fake_pixels(rows, columns)
    pixels[: rows // 8] *= 0.2
    page = _page(pixels=pixels, pixel_spacing_mm=(1920 / rows, 658 / columns))
    (source,) = (attributes["src"] for tag, attributes in page.elements if attributes.get("id") == "plane")
    assert source is not None
    encoded = np.frombuffer(base64.b64decode(source.split(",")[1]), np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert picture.shape[0] == min(rows, MAX_TEXTURE)
    assert picture.shape[1] / picture.shape[0] == pytest.approx(columns / rows, abs=2e-3)
    expected = cv2.resize(pixels, picture.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.corrcoef(expected.ravel(), picture.ravel())[0, 1] > 0.99
