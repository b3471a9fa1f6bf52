"""curves.csv: the curves as a table, one line for each row of the network, from the head down."""

from __future__ import annotations

import numpy as np

from edge_spine.csv_tables import table
from edge_spine.outputs.wording import about
from edge_spine.quantities import rounded
from edge_spine.result import SpineResult

HEADER = (
    "z_mm",
    "coronal_left_mm",
    "coronal_centre_mm",
    "coronal_right_mm",
    "sagittal_anterior_mm",
    "sagittal_centre_mm",
    "sagittal_posterior_mm",
    "coronal_band_90_mm",
    "sagittal_band_90_mm",
    "vertebral_level",
    "flags",
    "notice",
    "made_by",
    "scan_sha256",
)
_MEASURED = 9


def render(result: SpineResult) -> bytes:
    """Return the curves of result.json as CSV (RFC 4180, UTF-8) with three decimals.

    "left" and "right" are those of the image, as in result.json. The bands are half-widths, empty where the bundle has
    no calibration. CSV has no comments: each line ends with what `about` says of the whole result. No cell comes from
    the file's name or header, so that none can be a formula.
    """
    curves, bands = result.curves, result.band_90
    measured = np.column_stack([curves.z, curves.coronal, curves.sagittal])
    if bands is not None:
        measured = np.column_stack([measured, bands.coronal, bands.sagittal])
    rows = [[f"{rounded(value):.3f}" for value in values] for values in measured.tolist()]
    levels = result.levels.names_at(curves.z)
    whole = about(result)
    named = (
        {**whole, "vertebral_level": level, **dict(zip(HEADER[:_MEASURED], row, strict=False))}
        for row, level in zip(rows, levels, strict=True)
    )
    return table(HEADER, named)
