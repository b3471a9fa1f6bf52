"""Texts and tables of preview and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_spine.measure import MIN_CURVE_DEG
from edge_spine.quantities import CURVE_QUANTITIES, QUANTITIES
from edge_spine.reading.checks import printable
from edge_spine.result import NOTICE, SpineResult
from edge_spine.version import __version__

TITLE = "edge-spine"
SUBTITLE = "3D spine from one DXA scan"
COBB = CURVE_QUANTITIES["cobb_deg"]
# Every flag in words; a flag that is not here is shown by its name.
FLAGS = {
    "aspect-doubtful": "proportions of the image are doubtful",
    "contrast-medium": "contrast medium or another bright area beside the spine",
    "extent-estimated": "body height was estimated",
    "feet-outside": "feet are outside the image",
    "head-outside": "head is outside the image",
    "imager-pixel-spacing": "scale is that of the detector: lengths are too large",
    "inverted": "image was inverted and put right",
    "levels-uncertain": "the count of vertebrae may be off by one",
    "low-confidence": "spine was hard to find",
    "metal": "metal near the spine",
    "mirrored-put-right": "image was mirrored and put right",
    "motion": "patient may have moved during the scan",
    "object-across": "an object lies across the spine",
    "orientation-unknown": "file does not say which side is right",
    "pixel-spacing-given": "scale was given by the user",
    "rescale-ignored": "damaged grey scale of the file was ignored",
    "rotated-put-right": "image was rotated and put right",
    "rows-coarse": "image rows are too coarse to show vertebrae",
    "saturated": "brightest parts of the image are cut off",
    "scale-doubtful": "scale of the image is doubtful",
    "side-view-atypical": "inferred side view is unusual",
    "spacing-conflict": "file states two scales that disagree",
    "spine-faint": "spine is faint in the image",
    "spine-leaves-crop": "spine leaves the part that was analysed",
    "trunk-leans": "trunk leans to one side",
    "window-ignored": "damaged window of the file was ignored",
}
_NEXT_CURVES = 2
# A smaller gain is "hardly" one.
_CLEAR_GAIN = 0.10


@dataclass(frozen=True)
class Section:
    """A part of the table of measurements: heading, rows of name and value, and the lines of a note."""

    heading: str
    rows: tuple[tuple[str, str], ...]
    note: tuple[str, ...] = ()


def headline(result: SpineResult) -> tuple[str, str]:
    """Return the largest Cobb angle with its 90 % interval, and a line on its curve's side and apex."""
    curves = result.measurements.scoliosis_curves
    figure = COBB.text(result.measurements.max_cobb_deg, result.measurements.max_cobb_error_90_deg)
    if not curves:
        return figure, f"no curve of {MIN_CURVE_DEG:g}° or more"
    return figure, f"convex to the {curves[0].side}, apex {curves[0].apex_level}"


def remark(result: SpineResult) -> str:
    """Return what limits the angles, and the levels where they are those of average proportions."""
    estimated = " Levels are estimated." if result.levels.z_error is None else ""
    return f"Lying down, curves measure less than on standing films.{estimated}"


def scan_name(result: SpineResult) -> str:
    """Return the name of the scan's file, and the scan's date where the user asked for it."""
    return ", ".join(part for part in (result.scan.source, result.shown_date) if part)


def sections(result: SpineResult) -> tuple[Section, Section]:
    """Return the measurements that the scan shows, and those that are inferred."""
    measured = result.measurements
    curves = measured.scoliosis_curves
    seen: list[tuple[str, str]] = []
    if curves:
        ferguson = CURVE_QUANTITIES["ferguson_deg"]
        seen.append(("Ends", f"{curves[0].upper_end_level} to {curves[0].lower_end_level}"))
        seen.append((ferguson.label, ferguson.text(curves[0].ferguson_deg)))
    for curve in curves[1 : 1 + _NEXT_CURVES]:
        seen.append((f"Next: {curve.side}, apex {curve.apex_level}", COBB.text(curve.cobb_deg)))
    inferred: list[tuple[str, str]] = []
    for name, quantity in QUANTITIES.items():
        # The largest angle is the headline.
        value, error = quantity.of(measured, name)
        if name != "max_cobb_deg" and value is not None:
            rows = inferred if quantity.inferred else seen
            rows.append((quantity.label, quantity.text(value, error)))
    return (
        Section("Largest lateral curve (Cobb)", tuple(seen)),
        Section("Inferred, not seen", tuple(inferred), side_view_worth(result)),
    )


def side_view_worth(result: SpineResult) -> tuple[str, ...]:
    """Return the lines of a sentence on the accuracy of the side view on unseen people; none where it is unknown."""
    gain = None if result.band_90 is None else result.band_90.sagittal_gain
    if gain is None:
        return ()
    worth = f"about {100 * gain:.0f} %" if gain >= _CLEAR_GAIN else "hardly" if gain > 0 else "no"
    return "Side view inferred, on people it has not seen", f"{worth} better than an average spine."


def in_words(flag: str) -> str:
    """Return a flag in words."""
    return FLAGS.get(flag, flag.replace("-", " "))


def verdict(result: SpineResult) -> tuple[str, tuple[str, ...]]:
    """Return "Accepted" or "Not accepted", and the flags in words."""
    flags = tuple(in_words(flag) for flag in result.quality.flags)
    return ("Accepted" if result.quality.accepted else "Not accepted"), flags or ("no flags",)


def model_line(model: Mapping[str, str], timing: str = "") -> str:
    """Return `SpineResult.model` as a line of text, with the time that it took where it is given."""
    named, run = f"{model['name']} {model['version']}", f"{model['engine']} {model['precision']}"
    return ",  ".join(part for part in (named, run, timing, f"model {model['sha256'][:12]}") if part)


def origin(result: SpineResult) -> str:
    """Return the versions that made the result, without times: the same scan gives the same text."""
    model = result.model
    return (
        f"{TITLE} {__version__}, model {model['name']} {model['version']}, {model['engine']} {model['precision']}, "
        f"{model['sha256'][:12]}"
    )


def widest_bands(result: SpineResult) -> tuple[int, int] | None:
    """Return the largest half-widths of the 90 % bands of x and y over all rows, mm, rounded up; None without bands."""
    bands = result.band_90
    return None if bands is None else (int(np.ceil(bands.coronal.max())), int(np.ceil(bands.sagittal.max())))


def about(result: SpineResult) -> dict[str, str]:
    """Return what a file without its folder must say of the result: by name, ASCII texts of one line without names.

    The same scan gives the same texts whatever its file is called.
    """
    bands = widest_bands(result)
    width = "not calibrated" if bands is None else f"up to {bands[0]} mm in x, {bands[1]} mm in y to either side"
    texts = {
        "notice": NOTICE,
        "flags": " ".join(result.quality.flags) or "none",
        "band_90": width,
        "side_view": "y is inferred, not seen",
        "made_by": origin(result),
        "scan_sha256": result.scan.sha256 or "unknown",
    }
    # the name of a model of the user's own can hold anything
    return {name: printable(text).encode("ascii", "backslashreplace").decode() for name, text in texts.items()}
