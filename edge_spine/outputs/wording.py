"""What the report says in words and numbers, as the preview does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_spine.version import __version__

if TYPE_CHECKING:
    from edge_spine.result import SpineResult

TITLE = "edge-spine"
SUBTITLE = "3D spine from one DXA scan"
REMARK = "Lying down, curves measure less than on standing films. Levels are estimated."
_NEXT_CURVES = 2
# a gain below this is called hardly any
_CLEAR_GAIN = 0.10


@dataclass(frozen=True)
class Section:
    """A headed part of the table of measurements: names and values, and the lines of a note on them."""

    heading: str
    rows: tuple[tuple[str, str], ...]
    note: tuple[str, ...] = ()


def headline(result: SpineResult) -> tuple[str, str]:
    """Return the largest curve's Cobb angle, and a line that says where it is."""
    curves = result.measurements.scoliosis_curves
    if not curves:
        return "none", "no curve that can be measured"
    return f"{curves[0].cobb_deg:.1f}°", f"convex to the {curves[0].side}, apex {curves[0].apex_level}"


def sections(result: SpineResult) -> tuple[Section, Section]:
    """Return what was measured in the scan, and what was inferred."""
    measured = result.measurements
    curves = measured.scoliosis_curves
    seen: list[tuple[str, str]] = []
    if curves:
        seen.append(("Ends", f"{curves[0].upper_end_level} to {curves[0].lower_end_level}"))
        seen.append(("Ferguson", f"{curves[0].ferguson_deg:.1f}°"))
    for curve in curves[1 : 1 + _NEXT_CURVES]:
        seen.append((f"Next: {curve.side}, apex {curve.apex_level}", f"{curve.cobb_deg:.1f}°"))
    seen.append(("Largest lateral deviation", f"{measured.max_lateral_deviation_mm:.1f} mm"))
    inferred = (
        ("Kyphosis T4 to T12", f"{measured.kyphosis_t4_t12_deg:.1f}°"),
        ("Lordosis L1 to L5", f"{measured.lordosis_l1_l5_deg:.1f}°"),
        ("Plane of maximal curvature", f"{measured.plane_of_maximal_curvature_deg:.0f}°"),
        ("Length T1 to L5", f"{measured.centreline_length_mm:.0f} mm"),
        ("Volume", f"{measured.volume_ml:.0f} ml"),
    )
    return (
        Section("Largest lateral curve (Cobb)", tuple(seen)),
        Section("Inferred, not seen", inferred, side_view_worth(result)),
    )


def side_view_worth(result: SpineResult) -> tuple[str, ...]:
    """Return how good inferred side views are on unseen people, as the lines of one sentence; none where unknown."""
    gain = None if result.band_90 is None else result.band_90.sagittal_gain
    if gain is None:
        return ()
    worth = f"about {100 * gain:.0f} %" if gain >= _CLEAR_GAIN else "hardly" if gain > 0 else "no"
    return "Side view inferred, on people it has not seen", f"{worth} better than an average spine."


def verdict(result: SpineResult) -> tuple[str, tuple[str, ...]]:
    """Return whether the result was accepted, and its flags in words."""
    flags = tuple(flag.replace("-", " ") for flag in result.quality.flags)
    return ("Accepted" if result.quality.accepted else "Not accepted"), flags or ("no flags",)


def origin(result: SpineResult) -> str:
    """Return the versions that the result hangs on, without times: the same scan gives the same words."""
    model = result.model
    return (
        f"{TITLE} {__version__}, model {model['name']} {model['version']}, {model['engine']} {model['precision']}, "
        f"{model['sha256'][:12]}"
    )
