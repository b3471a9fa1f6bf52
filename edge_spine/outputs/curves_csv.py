"""curves.csv: the curves as a table, one line for each row of the network, from the head down."""

from __future__ import annotations

from edge_spine.csv_tables import table
from edge_spine.outputs.wording import about
from edge_spine.quantities import ROWS_OF_209, rounded
from edge_spine.result import SpineResult

_LEVEL = "vertebral_level"
_WHOLE = ("flags", "notice", "made_by", "scan_sha256")


def render(result: SpineResult) -> bytes:
    """Return the curves of result.json as CSV (RFC 4180, UTF-8) with three decimals.

    "left" and "right" are those of the image, as in result.json. The bands are half-widths, empty where the bundle has
    no calibration. CSV has no comments: each line ends with what `about` says of the whole result. No cell comes from
    the file's name or header, so that none can be a formula.
    """
    measured = {name: values for name, values in result.columns().items() if values is not None}
    whole = about(result)
    rows = [
        {name: f"{rounded(value):.3f}" for name, value in zip(measured, values, strict=True)} | {_LEVEL: level} | whole
        for *values, level in zip(*measured.values(), result.levels.names_at(result.curves.z), strict=True)
    ]
    return table((*ROWS_OF_209, _LEVEL, *_WHOLE), rows)
