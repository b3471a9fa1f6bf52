from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("reportlab", reason="pip install '.[report]'")


from edge_spine.errors import UsageError
from edge_spine.estimator import SpineEstimator
from edge_spine.outputs import registry as outputs
from edge_spine.outputs import report_pdf
from edge_spine.outputs.registry import DEFAULT_FORMATS, FORMATS, parse_formats
from edge_spine.outputs.wording import headline, origin, sections
from edge_spine.quality import Quality
from edge_spine.reading import read_scan
from edge_spine.scan import study_date
from tests.edge_spine.fake_result import fake_bands, fake_curves, fake_result
from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN, fake_dicom_result
from tests.edge_spine.outputs.report.pdf_files import pdf_pages, pdf_text

A4_POINTS = (841.89, 595.28)


def test_it_is_one_a4_page() -> None:
    reader = pdf_pages(report_pdf.render(fake_result(band_90=fake_bands())))
    assert len(reader.pages) == 1
    size = reader.pages[0].mediabox
    assert (float(size.width), float(size.height)) == pytest.approx(A4_POINTS, abs=0.1)


@pytest.mark.parametrize("lateral_mm", [0.0, 14.0, 60.0])
def test_its_text_can_be_selected(lateral_mm: float) -> None:
    result = fake_result(band_90=fake_bands(), curves=fake_curves(lateral_mm=lateral_mm))
    text = pdf_text(result)
    wanted = ["edge-spine", "Research use only. Not for diagnosis.", "inferred, not seen", "100 mm", "supine"]
    wanted += [*headline(result), origin(result), "FAKE.dcm", "90 % band: 4.4 mm either side"]
    wanted += [cell for section in sections(result) for row in section.rows for cell in row]
    for words in wanted:
        assert words in text, words


def test_the_same_scan_gives_the_same_bytes() -> None:
    result = fake_result(band_90=fake_bands())
    written = report_pdf.render(result)
    assert written == report_pdf.render(result.with_timing(read=3.0, infer=456.0))
    assert written != report_pdf.render(fake_result())
    # ReportLab's fixed date, and no other
    assert {str(pdf_pages(written).metadata[key])[:10] for key in ("/CreationDate", "/ModDate")} == {"D:20000101"}


def test_a_file_of_its_own_states_its_own_date(tmp_path: Path) -> None:
    before = datetime.now().replace(microsecond=0)
    _, (path,) = outputs.write_outputs(fake_dicom_result(), tmp_path, ("pdf",), show_date=True)
    reader = pdf_pages(path.read_bytes())
    created = reader.metadata.creation_date
    assert before <= created.replace(tzinfo=None) <= datetime.now()
    assert str(study_date(fake_dicom_result().scan.header)) in reader.pages[0].extract_text()


def test_it_is_small_enough(estimator: SpineEstimator) -> None:
    assert len(report_pdf.render(estimator(read_scan(DEMO_SCAN)))) < 1_000_000


def test_no_text_overlaps_or_leaves_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    canvases = []
    real = report_pdf.PdfCanvas.__init__

    def remembered(self: Any, *given: Any) -> None:
        real(self, *given)
        canvases.append(self)

    monkeypatch.setattr(report_pdf.PdfCanvas, "__init__", remembered)
    busy = Quality(accepted=True, flags=tuple(f"a-rather-long-name-of-a-flag-number-{n}" for n in range(9)))
    told = replace(fake_bands(), sagittal_gain=0.25)
    for lateral_mm in (0.0, 14.0, 60.0):
        report_pdf.render(fake_result(band_90=told, curves=fake_curves(lateral_mm=lateral_mm), quality=busy))
    assert len(canvases) == 3
    for canvas in canvases:
        assert len(canvas.texts) > 30
        for index, (text, box) in enumerate(canvas.texts):
            assert box.inside(canvas.box), text
            for other_text, other in canvas.texts[:index]:
                assert not box.overlaps(other), (text, other_text)


def test_it_names_no_patient() -> None:
    result = fake_dicom_result()
    assert result.scan.header is not None
    content = report_pdf.render(result)
    reader = pdf_pages(content)
    said = reader.pages[0].extract_text() + str(reader.metadata)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "SOPInstanceUID"):
        value = str(result.scan.header.get(keyword, ""))
        assert not value or value not in said


def test_it_is_asked_for_by_name_and_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pdf" not in DEFAULT_FORMATS
    assert FORMATS["pdf"].filename == "report.pdf"
    assert parse_formats("pdf") == ("pdf",)
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package reportlab: pip install '\.\[report\]'"):
        parse_formats("json,pdf")
    assert parse_formats("json,html") == ("json", "html")
