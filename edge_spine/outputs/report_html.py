"""report.html: one self-contained page with pictures, measurements and an interactive 3D view."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from html import escape
from importlib.resources import files
from string import Template

from edge_spine.outputs import preview_png
from edge_spine.outputs.drawing import panels
from edge_spine.outputs.drawing.canvas import Box
from edge_spine.outputs.drawing.end_lines import DRAWN_FROM_DEG
from edge_spine.outputs.drawing.palette import PALETTE, PAPER
from edge_spine.outputs.report.scene import plane_picture, scene
from edge_spine.outputs.report.svg import SvgCanvas, data_uri
from edge_spine.outputs.report.vector import hexadecimal
from edge_spine.outputs.wording import SUBTITLE, TITLE, headline, origin, remark, scan_name, sections, verdict
from edge_spine.result import NOTICE, SpineResult

_LABELS = {
    "scan": "The whole scan with the coronal curves of the spine; the patient's right is on the left",
    "coronal": "Coronal view, seen in the scan: the spine's borders, centre and levels, and lines of the Cobb angles",
    "sagittal": "Sagittal view, inferred, not seen: the spine's borders, centre, levels, lines across T4, T12, L1, L5",
    "surface": "The spine's surface and its levels, inferred, from the right front and from the left front",
}


def render(result: SpineResult) -> bytes:
    """Return the report as UTF-8 HTML.

    The same scan and model give the same bytes. The page loads nothing, which its Content-Security-Policy enforces.
    The name of the scan's file is on it, and nothing else that names the patient.
    """
    style, script = _style(), _asset("viewer.min.js")
    page = Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        viewer=script,
        title=TITLE,
        subtitle=SUBTITLE,
        source=escape(scan_name(result)),
        notice=escape(NOTICE),
        posture=escape(result.measurements.posture),
        measurements=_measurements(result),
        remark=escape(remark(result)),
        origin=escape(origin(result)),
        plane=data_uri(plane_picture(result)),
        # Only "<" can end a script element.
        scene=json.dumps(scene(result), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        **_panels(result),
    )
    # A file's name may hold lone surrogates, which UTF-8 cannot encode.
    return page.encode("utf-8", "replace")


def _panels(result: SpineResult) -> dict[str, str]:
    own = [Box(0, 0, card.width, card.height) for card in preview_png.PAGE.cards()]
    view = panels.shared_view(result, own)
    elements = {}
    for (name, draw), card in zip(panels.PICTURES.items(), own, strict=False):
        canvas = SvgCanvas(card.width, card.height, name)
        panels.draw_card(canvas, card)
        draw(canvas, card, result, view)
        elements[name] = canvas.element(_LABELS[name])
    return elements


def _measurements(result: SpineResult) -> str:
    figure, sentence = headline(result)
    seen, inferred = sections(result)
    word, flags = verdict(result)
    drawn = " drawn" if result.measurements.max_cobb_deg >= DRAWN_FROM_DEG else ""
    refused = "" if result.quality.accepted else " refused"
    return "\n".join(
        [
            f"<h3>{escape(seen.heading)}</h3>",
            f'<p class="figure{drawn}">{escape(figure)}</p><p>{escape(sentence)}</p>',
            _table(seen.heading, seen.rows),
            f"<h3>{escape(inferred.heading)}</h3>",
            _table(inferred.heading, inferred.rows),
            *([f'<p class="note">{escape(" ".join(inferred.note))}</p>'] if inferred.note else []),
            f'<h3>Quality</h3>\n<p class="verdict{refused}">{escape(word)}</p>',
            f'<ul class="flags">{"".join(f"<li>{escape(flag)}</li>" for flag in flags)}</ul>',
        ]
    )


def _table(label: str, rows: tuple[tuple[str, str], ...]) -> str:
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table aria-label="{escape(label)}">{cells}</table>'


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


@lru_cache(maxsize=1)
def _style() -> str:
    names = "".join(f".fill-{name}{{fill:var(--{name})}}.stroke-{name}{{stroke:var(--{name})}}" for name in PALETTE)
    return (
        f":root{{{_variables(PALETTE)}}}\n@media print{{:root{{{_variables(PAPER)}}}}}\n{names}\n{_asset('page.css')}"
    )


def _variables(palette: dict[str, tuple[int, int, int]]) -> str:
    return "".join(f"--{name}:{hexadecimal(colour)};" for name, colour in palette.items())


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return files("edge_spine.outputs.report").joinpath(name).read_text(encoding="utf-8")
