"""Compare the measurements of two scans of one person with the error of their difference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from math import hypot
from typing import TYPE_CHECKING, Any, Literal

from edge_spine.measure import LevelledCurve, tilts_of
from edge_spine.quantities import QUANTITIES, rounded
from edge_spine.reading.checks import printable
from edge_spine.result import NOTICE, SpineResult
from edge_spine.scan import study_date
from edge_spine.version import __version__
from edge_spine.vertebrae import LEVELS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SCHEMA = "edge-spine/comparison/2"
# Where a model has no intervals. Repeated readings of DXA scans: 95 % of the differences are below 6.2 degrees
# (PMC10198858), and the field counts a change below 6 as none.
ERROR_DEG = 6.0
# Two curves are one and the same where they bend to the same side and share this part of the shorter one's length.
_SHARED = 0.5
# The quantities that are compared beside the angles of the lateral curves, in the order of the table.
_COMPARED = (
    *("kyphosis_t4_t12_deg", "lordosis_l1_l5_deg"),
    *("max_lateral_deviation_mm", "centreline_length_mm", "volume_ml"),
)

Person = Literal["same", "different", "unknown"]


@dataclass(frozen=True)
class Change:
    """The change of one measurement.

    Attributes
    ----------
    name, unit : str
        Name in result.json, and unit.
    before, after : float
        Values. In a scan without a lateral curve this is the angle between its end vertebrae in the other scan,
        negative where it opens to the other side.
    change : float
        `after` minus `before`.
    error : float or None
        Measurement error: smaller changes mean nothing. The root of the sum of squares of both 90 % intervals, where
        both results have them; for lateral curves those of the largest angle. Else `ERROR_DEG` for Cobb angles, and
        None where it is unknown.
    beyond_error : bool or None
        Whether the change is larger than the error; None where the error is unknown.
    """

    name: str
    unit: str
    before: float
    after: float
    change: float
    error: float | None
    beyond_error: bool | None

    @property
    def verdict(self) -> str:
        """Return how the change compares with the error, in words."""
        if self.error is None:
            return "not known"
        return f"{'beyond' if self.beyond_error else 'within'} {round(self.error, 1):g} {self.unit}"


@dataclass(frozen=True)
class Comparison:
    """Two results and the changes between them.

    Attributes
    ----------
    before, after : SpineResult
        The results, in the order in which they were given.
    changes : tuple of Change
        Lateral curves first, largest first.
    person : {"same", "different", "unknown"}
        Whether the two headers name the same person.
    interval_days : int or None
        Days from the date of the first study to that of the second; None where a header has no date.
    """

    before: SpineResult
    after: SpineResult
    changes: tuple[Change, ...]
    person: Person
    interval_days: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the schema "edge-spine/comparison/2", numbers with three decimals."""
        return {
            "schema": SCHEMA,
            "edge_spine_version": __version__,
            "before": self.before.scan.source,
            "after": self.after.scan.source,
            "scans": [
                {
                    "path": result.scan.path,
                    "sha256": result.scan.sha256,
                    "flags": list(result.quality.flags),
                    "notes": list(result.quality.notes),
                }
                for result in (self.before, self.after)
            ],
            "person": self.person,
            "interval_days": self.interval_days,
            "model_sha256": self.after.model["sha256"],
            "changes": [
                {key: rounded(value) if isinstance(value, float) else value for key, value in asdict(change).items()}
                for change in self.changes
            ],
            "notice": NOTICE,
        }

    def table(self) -> str:
        """Return a text table of the changes, below the two scans and their flags."""
        lines = [f"{when}: {_named(result)}" for when, result in (("before", self.before), ("after", self.after))]
        lines.append(f"{'':32}{'before':>10}{'after':>10}{'change':>10}   error")
        for change in self.changes:
            before, after, difference = (rounded(value, 1) for value in (change.before, change.after, change.change))
            values = f"{before:10.1f}{after:10.1f}{difference:+10.1f}"
            lines.append(f"{change.name:32}{values}   {change.verdict}")
        return "\n".join([*lines, NOTICE])


def _named(result: SpineResult) -> str:
    """Return the path of a scan, with what there is to know about its result."""
    flags = f" ({', '.join(result.quality.flags)})" if result.quality.flags else ""
    return "; ".join([f"{printable(result.scan.path)}{flags}", *result.quality.notes])


def compare(before: SpineResult, after: SpineResult) -> Comparison:
    """Compare two results of one person and one model, in the order of their dates."""
    both = before, after
    first, second = before.measurements, after.measurements
    cobb_error = _error_of_change("max_cobb_deg", both) or ERROR_DEG
    changes = [_change("max_cobb_deg", first.max_cobb_deg, second.max_cobb_deg, cobb_error)]
    for pair in paired_curves(first.scoliosis_curves, second.scoliosis_curves):
        shown = pair[1] or pair[0]
        assert shown is not None
        old, new = (
            _angle_between_ends(shown, result) if curve is None else curve.cobb_deg
            for curve, result in zip(pair, both, strict=True)
        )
        changes.append(_change(f"cobb_deg {shown.side} apex {shown.apex_level}", old, new, cobb_error))
    for name in _COMPARED:
        old, new = (float(getattr(measured, name)) for measured in (first, second))
        changes.append(_change(name, old, new, _error_of_change(name, both)))
    dates = study_date(before.scan.header), study_date(after.scan.header)
    days = None if dates[0] is None or dates[1] is None else (dates[1] - dates[0]).days
    return Comparison(before, after, tuple(changes), same_person(before.scan.header, after.scan.header), days)


def paired_curves(
    before: tuple[LevelledCurve, ...], after: tuple[LevelledCurve, ...]
) -> list[tuple[LevelledCurve | None, LevelledCurve | None]]:
    """Pair the lateral curves of two spines that bend to the same side and share half of the shorter one's length.

    Returns
    -------
    list of tuple
        Largest first; None where a curve has no partner.
    """
    near = [pair for pair in product(before, after) if _overlap(*pair) >= _SHARED]
    # the closest first, so that the order of the two spines makes no difference
    near.sort(key=lambda pair: (_overlap(*pair), sum(curve.cobb_deg for curve in pair)), reverse=True)
    pairs: list[tuple[LevelledCurve | None, LevelledCurve | None]] = []
    for old, new in near:
        if all(old != one and new != other for one, other in pairs):
            pairs.append((old, new))
    pairs += [(old, None) for old in before if all(old != one for one, _ in pairs)]
    pairs += [(None, new) for new in after if all(new != other for _, other in pairs)]
    return sorted(pairs, key=lambda pair: -max(curve.cobb_deg for curve in pair if curve is not None))


def _overlap(one: LevelledCurve, other: LevelledCurve) -> float:
    """Return the share of the shorter curve that lies along the other one; 0 for opposite sides."""
    if one.side != other.side:
        return 0.0
    common = min(one.lower_end, other.lower_end) - max(one.upper_end, other.upper_end)
    return common / min(one.lower_end - one.upper_end, other.lower_end - other.upper_end)


def _angle_between_ends(curve: LevelledCurve, other: SpineResult) -> float:
    """Return the angle between the end vertebrae of a curve in another scan, degrees; positive on the same side."""
    tilts_deg = tilts_of(other.spine, other.levels)[:, 0]
    upper, lower = (LEVELS.index(level) for level in (curve.upper_end_level, curve.lower_end_level))
    return float(tilts_deg[upper] - tilts_deg[lower]) * curve.convex_sign


def _error_of_change(name: str, results: tuple[SpineResult, SpineResult]) -> float | None:
    """Return the 90 % interval of a difference; None where a result has no interval."""
    errors = [QUANTITIES[name].of(result.measurements, name)[1] for result in results]
    known = [error for error in errors if error is not None]
    return hypot(*known) if len(known) == len(errors) else None


def _change(name: str, before: float, after: float, error: float | None) -> Change:
    unit = "deg" if name.startswith("cobb_deg") else QUANTITIES[name].unit
    change = after - before
    return Change(name, unit, before, after, change, error, None if error is None else abs(change) > error)


def same_person(before: Dataset | None, after: Dataset | None) -> Person:
    """Return whether two headers name the same person."""
    if before is None or after is None:
        return "unknown"
    person: Person = "unknown"
    # An empty value proves nothing, and names have too many spellings.
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"):
        pair = [str(header.get(keyword) or "").strip().upper() for header in (before, after)]
        if not all(pair):
            continue
        if keyword == "IssuerOfPatientID":
            # one number of two hospitals says nothing
            return person if pair[0] == pair[1] else "unknown"
        if pair[0] != pair[1]:
            return "different"
        if keyword == "PatientID":
            person = "same"
    return person
