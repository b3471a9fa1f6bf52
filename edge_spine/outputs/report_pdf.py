"""report.pdf: the panels of the preview on one A4 page in the colours of print, with vector lines and real text."""

from __future__ import annotations

from io import BytesIO

from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.utils import TimeStamp
from reportlab.pdfgen.canvas import Canvas as Sheet

from edge_spine.outputs.drawing import palette, panels
from edge_spine.outputs.drawing.page import Page
from edge_spine.outputs.report.pdf import FONTS, PdfCanvas, register_fonts
from edge_spine.outputs.wording import SUBTITLE, TITLE, origin, scan_name
from edge_spine.result import NOTICE, SpineResult

# The proportions of A4: letters are larger than in the preview. No card is seen, so that their edges may overlap.
PAGE = Page(1560, 1103, 20, -8, 96, 1034, (308, 384, 256, 304), head=66, foot=1066, inset=panels.PAD, small=15)
_RULE = 84


def render_today(result: SpineResult) -> bytes:
    """Return the report with the date and time of now as those of the file; see `render`."""
    return render(result, fixed_date=False)


def render(result: SpineResult, *, fixed_date: bool = True) -> bytes:
    """Return the report as PDF, one A4 page in landscape.

    With a fixed date of the file, the same scan and model give the same bytes. Fonts are embedded, and text can be
    selected. The name of the scan's file is on the page, with "?" for letters that the font lacks, and nothing else
    that names the patient.
    """
    register_fonts()
    stream, size = BytesIO(), landscape(A4)
    sheet = Sheet(stream, pagesize=size, invariant=1, pageCompression=1, lang="en", initialFontName=FONTS[False][0])
    if not fixed_date:
        sheet._doc._timeStamp = TimeStamp(invariant=False)
    sheet.setTitle(f"{TITLE}: {SUBTITLE}")
    sheet.setSubject(NOTICE)
    sheet.setAuthor(TITLE)
    sheet.setCreator(TITLE)
    canvas = PdfCanvas(sheet, PAGE.width, PAGE.height, size)
    PAGE.draw_head(canvas, SUBTITLE, scan_name(result))
    left = PAGE.margin + PAGE.inset
    canvas.rule(left, _RULE, PAGE.width - 2 * left, palette.RULE)
    PAGE.draw_foot(canvas, origin(result))
    panels.draw_panels(canvas, PAGE.cards(), result)
    sheet.showPage()
    sheet.save()
    return stream.getvalue()
