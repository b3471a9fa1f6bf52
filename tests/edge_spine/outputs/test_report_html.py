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
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge_spine.estimator import SpineEstimator
from edge_spine.outputs import preview_png, report_html
from edge_spine.outputs.drawing import panels
from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.palette import PALETTE, PAPER
from edge_spine.outputs.registry import DEFAULT_FORMATS, FORMATS
from edge_spine.outputs.report.scene import MAX_TEXTURE, PLANE_BEHIND_MM, scene
from edge_spine.outputs.report.svg import SvgCanvas
from edge_spine.outputs.report.vector import cut_out
from edge_spine.outputs.wording import REMARK, headline, sections, verdict
from edge_spine.reading import read_scan
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_pixels, fake_result
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN, fake_dicom_result

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


def _array(packed: str, kind: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(packed), kind).reshape(-1, 3)


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
    quality = SimpleNamespace(accepted=False, flags=("<img src=x onerror=alert(1)>",))
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
        {"quality": SimpleNamespace(accepted=False, flags=("low-confidence", "trunk-leans"))},
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
    assert REMARK in " ".join(drawn)
    # and nothing of the preview's table is missing here
    start = drawn.index("LARGEST LATERAL CURVE (COBB)")
    known = {*said, "INFERRED, NOT SEEN", "QUALITY", "LARGEST LATERAL CURVE (COBB)"}
    assert {text for text in drawn[start:] if text not in REMARK} <= known


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


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("palette", [PALETTE, PAPER], ids=["screen", "paper"])
@pytest.mark.parametrize("ink", ["text", "quiet", "orange"])
def test_letters_have_the_contrast_of_wcag_aa(palette: dict[str, tuple[int, int, int]], ink: str) -> None:
    for ground in ("background", "card", "ground"):
        light, dark = sorted((_luminance(palette[ink]), _luminance(palette[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# --- the 3D scene


def _signed_volume_ml(vertices: np.ndarray[Any, Any], faces: np.ndarray[Any, Any]) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6000)


def test_the_embedded_surface_is_in_mm_and_right_handed() -> None:
    result = fake_result()
    page = _Page(report_html.render(result))
    data = json.loads(page.inside["script"][0])
    vertices, faces = _array(data["vertices"], "<f4"), _array(data["faces"], "<u2")
    np.testing.assert_allclose(vertices, result.spine.mesh()[0], atol=1e-4)
    # Outward faces enclose a positive volume in a right-handed frame, and a mirrored axis makes it negative.
    assert _signed_volume_ml(vertices, faces) == pytest.approx(result.spine.volume_ml, rel=0.01)
    assert len(_array(data["colours"], "u1")) == len(vertices)


def test_the_curves_lie_in_lps() -> None:
    result = fake_result()
    curves = [(curve["part"], _array(curve["points"], "<f4")) for curve in scene(result)["curves"]]
    right, left, anterior, posterior, centre = (points for _, points in curves)
    assert [part for part, _ in curves] == ["borders"] * 4 + ["centreline"]
    np.testing.assert_allclose(centre, result.spine.centreline, atol=1e-4)
    np.testing.assert_allclose(right[:, 0], result.curves.coronal[:, 0], atol=1e-4)
    assert (right[:, 0] < centre[:, 0]).all() and (centre[:, 0] < left[:, 0]).all()
    assert (anterior[:, 1] < centre[:, 1]).all() and (centre[:, 1] < posterior[:, 1]).all()
    assert centre[0, 2] > centre[-1, 2]


def test_the_lines_of_the_cobb_angle_are_those_of_the_preview() -> None:
    result = fake_result()
    data = scene(result)
    drawn = [text for text, _ in preview_png.draw(result).texts]
    assert data["ends"] and data["apexes"]
    for apex in data["apexes"]:
        assert apex["text"] in drawn
    assert [end["level"] for end in data["ends"]] == [text for text in drawn if re.fullmatch(r"[TL]\d+", text)]
    straight = scene(fake_result(curves=fake_curves(lateral_mm=0.0)))
    assert straight["ends"] == straight["apexes"] == []


def test_the_lines_at_the_ends_of_the_largest_curve_differ_by_its_angle() -> None:
    result = fake_result()
    largest = result.measurements.scoliosis_curves[0]
    tilts = []
    for end in scene(result)["ends"][:2]:
        (x0, y0, z0), (x1, y1, z1) = _array(end["points"], "<f4").tolist()
        assert y0 == y1
        tilts.append(np.degrees(np.arctan((z1 - z0) / (x1 - x0))))
    assert abs(tilts[0] - tilts[1]) == pytest.approx(largest.cobb_deg, abs=0.01)


@pytest.mark.parametrize("spacing", [(2.427, 2.419), (13.0, 6.0)])
def test_the_plane_lies_behind_the_spine_where_the_scan_was(spacing: tuple[float, float]) -> None:
    shape = (791, 272) if spacing[0] < 10 else (150, 109)
    result = fake_result(pixels=fake_pixels(*shape), pixel_spacing_mm=spacing)
    plane = scene(result)["plane"]
    # Column 0 has its centre at x = 0, row 0 at z = 0.
    assert plane["left"] + spacing[1] / 2 == pytest.approx(0, abs=1e-3)
    assert plane["top"] - spacing[0] / 2 == pytest.approx(0, abs=1e-3)
    assert plane["right"] - plane["left"] == pytest.approx(shape[1] * spacing[1], abs=2e-3)
    assert plane["top"] - plane["bottom"] == pytest.approx(shape[0] * spacing[0], abs=2e-3)
    assert plane["y"] - result.spine.mesh()[0][:, 1].max() == pytest.approx(PLANE_BEHIND_MM, abs=0.1)


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


# --- drawing


def test_a_picture_cut_from_black_keeps_its_colours_and_soft_edges() -> None:
    share = np.clip(9.5 - np.abs(np.arange(40) - 19.3), 0, 1)
    picture = np.rint(np.tile(share[:, np.newaxis] * (40, 120, 200), (30, 1, 1))).astype(np.uint8)
    freed = cut_out(picture)
    np.testing.assert_allclose(freed[15, :, 3], 255 * share, atol=4)
    seen = freed[15, :, 3] > 60
    np.testing.assert_allclose(freed[15, seen, :3], np.tile((40, 120, 200), (int(seen.sum()), 1)), atol=6)


def test_on_a_scan_colours_stay_and_beside_it_they_follow_the_page() -> None:
    canvas = SvgCanvas(200, 100, "x")
    film = Box(0, 0, 100, 100)
    canvas.paste(film, np.zeros((100, 100), np.uint8))
    canvas.text("on", 20, 50, 14, PALETTE["text"], backing=PALETTE["black"])
    canvas.text("beside", 140, 50, 14, PALETTE["text"], backing=PALETTE["black"])
    drawn = canvas.element("<label>")
    assert re.search(r'<text [^>]*fill="#e8ecf1"[^>]*>on<', drawn)
    assert re.search(r'<text [^>]*class="fill-text"[^>]*>beside<', drawn)
    assert 'class="fill-ground"' in drawn
    assert 'aria-label="&lt;label&gt;"' in drawn


# --- the viewer


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
