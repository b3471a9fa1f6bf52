"""Lay the report of `export.training.yardstick` out as text."""

from __future__ import annotations

from typing import Any

from export.training.figures import WAVES

SEEN = "seen in training"
_COLUMNS = (
    ("coronal", "coronal_mae_mm"),
    ("centre", "coronal_centre_mae_mm"),
    ("borders", "coronal_borders_mae_mm"),
    ("sagittal", "sagittal_mae_mm"),
    ("ratio", "sagittal_ratio"),
    ("sag.centre", "sagittal_centre_mae_mm"),
    ("constant", "sagittal_constant_mm"),
    ("rest", "sagittal_rest_mm"),
    ("3D", "deviation3d_mm"),
    ("IoU", "iou3d"),
    ("Cobb MAE", "cobb_mae_deg"),
    ("bias", "cobb_bias_deg"),
    ("slope", "cobb_slope"),
    ("kyph.slope", "kyphosis_slope"),
    ("lord.slope", "lordosis_slope"),
    ("gain 0-5", "gain_least"),
    ("cor.band", "coronal_coverage"),
    ("sag.band", "sagittal_coverage"),
)
_WIDTH = 11


def table(report: dict[str, Any]) -> str:
    """Return people as rows, all of them with intervals and baseline, Cobb by class, waves, and the targets.

    Where training saw one of the people, every line that holds a figure of theirs says so.
    """
    mark = f"  ({SEEN})" if report["seen_in_training"] else ""
    named = max(len(name) for name in (*report["people"], "person")) + 2
    heads = "".join(f"{head:>{_WIDTH}}" for head in ("images", "refused", *(head for head, _ in _COLUMNS)))
    lines = [f"{'person':{named}}{heads}"]
    for name, part in report["people"].items():
        seen = f"  ({SEEN})" if part["seen_in_training"] else ""
        lines.append(f"{name:{named}}{_cells(part)}{seen}")
        if part["count"]:
            lines.append(f"{'  baseline':{named}}{_cells(part['baseline'], counted=False)}{seen}")
    lines += ["", *(line + mark for line in _overall(report)), "", *(line + mark for line in _classes(report))]
    lines += ["", *(line + mark for line in _waves(report)), "", *(line + mark for line in _targets(report))]
    if report.get("training_people", ()) is None:
        lines.append("the bundle does not say which people its training saw")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    # adding zero turns -0.0 into 0.0
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"


def _within(part: dict[str, Any], figure: str, kind: str) -> str:
    ends = (part[kind] or {}).get(figure)
    return f"[{_number(ends[0])}, {_number(ends[1])}]" if ends else "-"


def _cells(part: dict[str, Any], *, counted: bool = True) -> str:
    counts = [str(part["count"]), str(part["refused"])] if counted else ["", ""]
    return "".join(f"{cell:>{_WIDTH}}" for cell in (*counts, *(_number(part.get(name)) for _, name in _COLUMNS)))


def _overall(report: dict[str, Any]) -> list[str]:
    images = f"{report['count']} images, {report['refused']} refused, {len(report['people'])} people"
    lines = [f"{images}, {1000 * report['seconds_per_image']:.0f} ms an image in the walk"]
    lines.append(f"{'':26}{'all':>10}{'over images':>20}{'over people':>20}{'baseline':>10}")
    for name in (name for name in report["interval_95_images"] if not name.startswith(("gain_", "wave_"))):
        cells = f"{_number(report[name]):>10}{_within(report, name, 'interval_95_images'):>20}"
        cells += f"{_within(report, name, 'interval_95_people'):>20}{_number(report['baseline'].get(name)):>10}"
        lines.append(f"{name:26}{cells}")
    return lines


def _classes(report: dict[str, Any]) -> list[str]:
    low, high = report["true_cobb_range_deg"]
    lines = [
        f"true Cobb {low:.1f} to {high:.1f} degrees; lines through those up to {report['cobb_line_up_to_deg']:.0f}"
    ]
    names = ("cobb_mae_deg", "cobb_bias_deg", "endplate_cobb_bias_deg", "cobb_slope", "cobb_correlation")
    lines.append(f"{'true Cobb':12}{'images':>8}" + "".join(f"{name:>26}" for name in names))
    for label, part in report["severity"].items():
        if not part["count"]:
            lines.append(f"{label:12}{0:>8}")
            continue
        cells = (f"{_number(part[name])} {_within(part, name, 'interval_95_images')}" for name in names)
        lines.append(f"{label:12}{part['count']:>8}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def _waves(report: dict[str, Any]) -> list[str]:
    rows = [("half-waves", [str(k) for k in range(WAVES)])]
    rows.append(("true RMS, degrees", [_number(report[f"wave_{k}_deg"]) for k in range(WAVES)]))
    rows.append(("gain", [_number(report[f"gain_{k}"]) for k in range(WAVES)]))
    for kind in ("images", "people"):
        within = [_within(report, f"gain_{k}", f"interval_95_{kind}") for k in range(WAVES)]
        rows.append((f"  over {kind}", within))
    return [f"{head:18}" + "".join(f"{cell:>15}" for cell in cells) for head, cells in rows]


def _targets(report: dict[str, Any]) -> list[str]:
    lines = []
    for judged in report["targets"]:
        who = f" ({judged['person']})" if "person" in judged else ""
        lines.append(f"{'met' if judged['met'] else 'MISSED':8}{_number(judged['value']):>8}  {judged['target']}{who}")
    return lines
