"""Columns of a cohort's table: names, types and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_spine.quantities import CURVE_NAMES, CURVE_QUANTITIES, ERRORS, QUANTITIES, ROWS_OF_209, Quantity
from edge_spine.reading.checks import storable
from edge_spine.result import STAGES
from edge_spine.runner import Report
from edge_spine.version import __version__

if TYPE_CHECKING:
    import pyarrow

    from edge_spine.result import SpineResult

# Codes of failures, which have no refusal code.
FAILED, WORKER_DIED = "failed", "worker-died"
_MODEL = ("name", "version", "sha256", "engine", "precision")
_ANGLES = tuple(name for name, quantity in QUANTITIES.items() if quantity.unit == "deg")
_SIZES = tuple(name for name in QUANTITIES if name not in _ANGLES)


def _said(quantity: Quantity) -> str:
    return quantity.definition + ("; inferred, not seen" if quantity.inferred else "")


# Columns with what they hold; the names of numbers end in their units.
TEXTS = {
    "id": "Name of the scan in the manifest, or its path there",
    "path": "File or folder of the scan",
    "entry": "Name of the scan within that zip or folder",
    "sha256": "SHA-256 of the content of the file",
    "status": "done, refused (the scan cannot be used) or failed (it could not be read or processed)",
    "code": "Code of the refusal; of failures failed, or worker-died",
    "message": "What happened, in one sentence",
    "sop_instance_uid": "SOP Instance UID of the scan",
    "decided_by": "Hash of model, precision and spacing that decided this row",
    "folder": "Folder of the files of the scan, in scans",
    **{f"model_{name}": f"The model's {name}" for name in _MODEL},
    "edge_spine_version": "Version of edge-spine",
    **{f"largest_curve_{name}": f"Largest lateral curve: {text}" for name, text in CURVE_NAMES.items()},
}
FLAGS, CURVES = "flags", "scoliosis_curves"
LISTED = {FLAGS: "What to know about the result", CURVES: "Number of lateral curves of 3 degrees or more"}
NUMBERS = {
    "row_spacing_mm": "Distance of the rows of the image",
    "column_spacing_mm": "Distance of the columns of the image",
    **{name: _said(QUANTITIES[name]) for name in _ANGLES},
    **{
        quantity.error: f"Half-width of the calibrated 90 % interval of {name}, "
        "wider where the image is disturbed; empty without calibration"
        for name, quantity in QUANTITIES.items()
        if quantity.error is not None
    },
    **{f"largest_curve_{name}": f"Largest lateral curve: {_said(kind)}" for name, kind in CURVE_QUANTITIES.items()},
    **{name: _said(QUANTITIES[name]) for name in _SIZES},
    **{f"{stage}_ms": f"Time of the stage {stage}" for stage in STAGES},
}
NAMES = (*TEXTS, *LISTED, *NUMBERS, *ROWS_OF_209)

Row = dict[str, Any]
# Status and code; "" where there is no code.
End = tuple[str, str]


def schema() -> pyarrow.Schema:
    """Return the Parquet schema."""
    import pyarrow as pa

    kinds = dict.fromkeys(TEXTS, pa.string()) | dict.fromkeys(NUMBERS, pa.float64())
    kinds |= dict.fromkeys(ROWS_OF_209, pa.list_(pa.float32()))
    kinds |= {FLAGS: pa.list_(pa.string()), CURVES: pa.int64()}
    return pa.schema([(name, kinds[name]) for name in NAMES])


def row_of(scan_id: str, path: str, entry: str | None, report: Report, result: SpineResult | None) -> Row:
    """Return the row of one scan: id and path of the manifest, its name within a zip, and the result if it is done."""
    row: Row = dict.fromkeys(NAMES)
    texts = {"id": scan_id, "path": path, "entry": entry, "message": report.message}
    row |= {name: None if text is None else storable(text) for name, text in texts.items()}
    row |= {"edge_spine_version": __version__, "status": report.status}
    row["code"] = report.code or (FAILED if report.status == "failed" else None)
    row |= {f"{stage}_ms": report.timing_ms.get(stage) for stage in STAGES}
    row["folder"] = Path(report.outputs[0]).parent.name if report.outputs else None
    if result is None or report.status != "done":
        return row
    row["sha256"] = result.scan.sha256
    measured = result.measurements
    row |= {f"model_{name}": result.model[name] for name in _MODEL}
    row["sop_instance_uid"] = result.scan.sop_instance_uid
    row["row_spacing_mm"], row["column_spacing_mm"] = map(float, result.scan.pixel_spacing_mm)
    row[FLAGS] = list(result.quality.flags)
    row |= {name: getattr(measured, name) for name in (*_ANGLES, *ERRORS, *_SIZES)}
    row[CURVES] = len(measured.scoliosis_curves)
    if measured.scoliosis_curves:
        largest = measured.scoliosis_curves[0]
        row |= {f"largest_curve_{name}": getattr(largest, name) for name in CURVE_QUANTITIES}
        row |= {f"largest_curve_{name}": getattr(largest, name) for name in CURVE_NAMES}
    # as the file holds them
    columns = result.columns().items()
    return row | {name: None if values is None else values.astype(np.float32).tolist() for name, values in columns}


def end_of(row: Row) -> End:
    """Return status and code of a row."""
    return row["status"], row["code"] or ""


def lost_row(scan_id: str, path: str, times: int) -> Row:
    """Return the row of a scan whose worker process died at each attempt."""
    report = Report(path, "failed", WORKER_DIED, f"the worker process died {times} times while processing this scan")
    return row_of(scan_id, path, None, report, None)
