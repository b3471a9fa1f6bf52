"""Text and pictures on a page of PDF."""

from __future__ import annotations

import pytest

pytest.importorskip("reportlab", reason="pip install '.[report]'")

from edge_spine.outputs import report_pdf
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.outputs.report.pdf_files import pdf_pages, pdf_text


def test_fonts_are_embedded() -> None:
    fonts = pdf_pages(report_pdf.render(fake_result())).pages[0]["/Resources"]["/Font"]
    assert len(fonts) >= 2
    for font in fonts.values():
        descriptor = font.get_object()["/FontDescriptor"]
        assert "/FontFile2" in descriptor
        assert "Vera" in descriptor["/FontName"]


def test_a_hostile_name_is_shortened_and_what_the_font_lacks_is_marked() -> None:
    text = pdf_text(fake_result(source="<b>脊椎 (1) \\ Müller " + "very_long_name" * 40 + ".dcm"))
    assert "<b>?? (1) \\ Müller" in text
    assert "..." in text
    assert ".dcm" in text
