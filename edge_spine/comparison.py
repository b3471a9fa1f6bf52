"""Compare the measurements of two scans of one person with the error between two readings of one spine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from edge_spine.measure import MIN_CURVE_DEG, LevelledCurve
from edge_spine.quantities import QUANTITIES
from edge_spine.result import NOTICE, SpineResult

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SCHEMA = "edge-spine/comparison/1"
# Repeated readings of DXA scans: 95 % of the differences are below 6.2 degrees (PMC10198858), and the field counts
# a change below 6 as none.
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
    before, after : float or None
        Values; None where a lateral curve is below `MIN_CURVE_DEG` in that scan.
    change : float
        `after` minus `before`; a missing curve counts as `MIN_CURVE_DEG`, the most that it can be.
    error : float or None
        Measurement error: smaller changes mean nothing. None where it is unknown.
    beyond_error : bool or None
        Whether the change is larger than the error; None where the error is unknown.
    """

    name: str
    unit: str
    before: float | None
    after: float | None
    change: float
    error: float | None
    beyond_error: bool | None

    @property
    def verdict(self) -> str:
        """Return how the change compares with the error, in words."""
        if self.error is None:
            return "not known"
        return f"{'beyond' if self.beyond_error else 'within'} {self.error:g} {self.unit}"


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
        """Return plain values in the schema "edge-spine/comparison/1", numbers with three decimals."""
        return {
            "schema": SCHEMA,
            "before": self.before.scan.source,
            "after": self.after.scan.source,
            "person": self.person,
            "interval_days": self.interval_days,
            "model_sha256": self.after.model["sha256"],
            "changes": [
                {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(change).items()}
                for change in self.changes
            ],
            "notice": NOTICE,
        }

    def table(self) -> str:
        """Return the changes as a table of text."""
        lines = [f"{'':32}{'before':>10}{'after':>10}{'change':>10}   error"]
        for change in self.changes:
            values = (
                f"{value:10.1f}" if value is not None else f"{'none':>10}" for value in (change.before, change.after)
            )
            lines.append(f"{change.name:32}{''.join(values)}{change.change:+10.1f}   {change.verdict}")
        return "\n".join([*lines, NOTICE])


def compare(before: SpineResult, after: SpineResult) -> Comparison:
    """Compare two results.

    Parameters
    ----------
    before, after : SpineResult
        Results of one person and one model, in the order of their dates.

    Returns
    -------
    Comparison
    """
    first, second = before.measurements, after.measurements
    changes = [
        _angle("max_cobb_deg", first.max_cobb_deg, second.max_cobb_deg),
        *(_curve_change(*pair) for pair in paired_curves(first.scoliosis_curves, second.scoliosis_curves)),
    ]
    for name in _COMPARED:
        old, new = float(getattr(first, name)), float(getattr(second, name))
        changes.append(Change(name, QUANTITIES[name].unit, old, new, new - old, None, None))
    person, days = _person_and_days(before.scan.header, after.scan.header)
    return Comparison(before, after, tuple(changes), person, days)


def paired_curves(
    before: tuple[LevelledCurve, ...], after: tuple[LevelledCurve, ...]
) -> list[tuple[LevelledCurve | None, LevelledCurve | None]]:
    """Pair the lateral curves of two spines that bend to the same side and share half of the shorter one's length.

    Returns
    -------
    list of tuple
        Largest first; None where a curve has no partner.
    """
    free = list(after)
    pairs: list[tuple[LevelledCurve | None, LevelledCurve | None]] = []
    for curve in before:
        near = [other for other in free if _overlap(curve, other) >= _SHARED]
        partner = max(near, key=lambda other: _overlap(curve, other), default=None)
        if partner is not None:
            free.remove(partner)
        pairs.append((curve, partner))
    pairs += [(None, curve) for curve in free]
    return sorted(pairs, key=lambda pair: -max(curve.cobb_deg for curve in pair if curve is not None))


def _overlap(one: LevelledCurve, other: LevelledCurve) -> float:
    """Return the share of the shorter curve that lies along the other one; 0 for opposite sides."""
    if one.side != other.side:
        return 0.0
    common = min(one.lower_end, other.lower_end) - max(one.upper_end, other.upper_end)
    return common / min(one.lower_end - one.upper_end, other.lower_end - other.upper_end)


def _curve_change(before: LevelledCurve | None, after: LevelledCurve | None) -> Change:
    shown = after or before
    assert shown is not None
    angles = [None if curve is None else curve.cobb_deg for curve in (before, after)]
    return _angle(f"cobb_deg {shown.side} apex {shown.apex_level}", *angles)


def _angle(name: str, before: float | None, after: float | None) -> Change:
    change = (MIN_CURVE_DEG if after is None else after) - (MIN_CURVE_DEG if before is None else before)
    return Change(name, "deg", before, after, change, ERROR_DEG, abs(change) > ERROR_DEG)


def _person_and_days(before: Dataset | None, after: Dataset | None) -> tuple[Person, int | None]:
    """Return whether two headers name the same person, and the days between their studies."""
    if before is None or after is None:
        return "unknown", None
    person: Person = "unknown"
    # An empty value proves nothing, and names have too many spellings.
    for keyword in ("PatientID", "PatientBirthDate", "PatientSex"):
        pair = [str(header.get(keyword) or "").strip().upper() for header in (before, after)]
        if not all(pair):
            continue
        if pair[0] != pair[1]:
            return "different", _days(before, after)
        if keyword == "PatientID":
            person = "same"
    return person, _days(before, after)


def _days(before: Dataset, after: Dataset) -> int | None:
    texts = (str(header.get("StudyDate") or "") for header in (before, after))
    try:
        first, second = (date(int(text[:4]), int(text[4:6]), int(text[6:8])) for text in texts)
    except ValueError:
        return None
    return (second - first).days
