"""Texts and tables of preview and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_spine.quantities import CURVE_QUANTITIES, QUANTITIES
from edge_spine.result import SpineResult
from edge_spine.version import __version__

TITLE = "edge-spine"
SUBTITLE = "3D spine from one DXA scan"
REMARK = "Lying down, curves measure less than on standing films. Levels are estimated."
COBB = CURVE_QUANTITIES["cobb_deg"]
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
    """Return the Cobb angle of the largest curve, and a line on its side and apex."""
    curves = result.measurements.scoliosis_curves
    if not curves:
        return "none", "no curve that can be measured"
    largest = COBB.text(curves[0].cobb_deg, result.measurements.max_cobb_error_90_deg)
    return largest, f"convex to the {curves[0].side}, apex {curves[0].apex_level}"


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


def verdict(result: SpineResult) -> tuple[str, tuple[str, ...]]:
    """Return "Accepted" or "Not accepted", and the flags in words."""
    flags = tuple(flag.replace("-", " ") for flag in result.quality.flags)
    return ("Accepted" if result.quality.accepted else "Not accepted"), flags or ("no flags",)


def model_line(model: Mapping[str, str], timing: str = "") -> str:
    """Return `SpineResult.model` as a line of text, which may tell the time that it took."""
    named, run = f"{model['name']} {model['version']}", f"{model['engine']} {model['precision']}"
    return ",  ".join(part for part in (named, run, timing, f"model {model['sha256'][:12]}") if part)


def origin(result: SpineResult) -> str:
    """Return the versions that made the result, without times: the same scan gives the same text."""
    model = result.model
    return (
        f"{TITLE} {__version__}, model {model['name']} {model['version']}, {model['engine']} {model['precision']}, "
        f"{model['sha256'][:12]}"
    )
