"""Reports as PDF, read back."""

from __future__ import annotations

import io
from typing import Any

import pypdf

from edge_spine.outputs import report_pdf


def pdf_pages(content: bytes) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(content), strict=True)


def pdf_text(result: Any) -> str:
    return pdf_pages(report_pdf.render(result)).pages[0].extract_text()
