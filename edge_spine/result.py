"""The result of one scan, and the schema of its JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import Bands, PopulationRange
from edge_spine.measure import Measurements
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.quality import Quality
from edge_spine.quantities import BORDERS, CURVE_NAMES, CURVE_QUANTITIES, QUANTITIES, ROWS_OF_209, rounded
from edge_spine.reconstruct import Curves, Spine
from edge_spine.scan import Scan
from edge_spine.version import __version__
from edge_spine.vertebrae import LEVELS, Levels

SCHEMA = "edge-spine/result/2"
NOTICE = "Research use only. Not for diagnosis."
STAGES = ("read", "preprocess", "infer", "reconstruct", "write", "total")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SpineResult:
    """The spine of one scan, its measurements and whether to trust them.

    Attributes
    ----------
    scan : Scan
        The scan that was read.
    prepared : Prepared
        The network's input and its place in the scan.
    curves : Curves
        Six borders and centres in mm, anchored to the scanned image.
    spine : Spine
        The 3D centreline, cross-sections, surface and volume.
    levels : Levels
        Heights of the vertebrae, mm.
    measurements : Measurements
        Angles, lengths and volume.
    quality : Quality
        Whether the result may be shown, and its flags.
    model : Mapping
        ``name``, ``version``, ``sha256`` (of the bundle's manifest), ``engine`` and ``precision``.
    timing_ms : Mapping
        One time for each of `STAGES`; ``read`` and ``write`` are 0 until `with_timing` sets them.
    band_90 : Bands, optional
        Half-widths (mm) of the 90 % band of each row's centre; None where the bundle has no calibration.
    population : PopulationRange, optional
        Range (mm) of the sagittal centre in 90 % of the model's training population; None where the bundle has none.
    graph : bool
        Whether the network was replayed from a recorded CUDA graph.
    shown_date : str
        Date of the scan in pictures and reports; "" where the user did not ask for it.
    """

    scan: Scan
    prepared: Prepared
    curves: Curves
    spine: Spine
    levels: Levels
    measurements: Measurements
    quality: Quality
    model: Mapping[str, str]
    timing_ms: Mapping[str, float]
    band_90: Bands | None = None
    population: PopulationRange | None = None
    graph: bool = False
    shown_date: str = ""

    _derived: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    def derived(self, make: Callable[[SpineResult], T]) -> T:
        """Return `make(self)`, computed at the first call and kept with the result.

        `make` is a function of a module, and must not use `timing_ms`: `with_timing` keeps what was computed.
        """
        if make not in self._derived:
            self._derived[make] = make(self)
        return cast(T, self._derived[make])

    def with_timing(self, **stages: float) -> SpineResult:
        """Return the same result with other times (ms) for the named stages, and their new total."""
        timing = {**self.timing_ms, **stages}
        timing["total"] = sum(timing[stage] for stage in STAGES if stage != "total")
        timed = replace(self, timing_ms=timing)
        object.__setattr__(timed, "_derived", self._derived)
        return timed

    def mesh(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return vertices and faces of the closed surface, see `Spine.mesh`; the arrays are read-only."""
        return self.derived(_mesh)

    def columns(self) -> dict[str, NDArray[np.float64] | None]:
        """Return `ROWS_OF_209` by their names, (209,) each, mm: curves, and bands or None without calibration."""
        bands = (None, None) if self.band_90 is None else (self.band_90.coronal, self.band_90.sagittal)
        values = (self.curves.z, *self.curves.coronal.T, *self.curves.sagittal.T, *bands)
        return dict(zip(ROWS_OF_209, values, strict=True))

    def body_centres(self) -> NDArray[np.float64]:
        """Return x, y and z of the vertebral bodies, (17, 3), mm: on the centreline at the heights that were found."""
        z, line = self.levels.z, self.spine.centreline
        return np.column_stack([*(np.interp(-z, -line[:, 2], line[:, axis]) for axis in (0, 1)), z])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the schema "edge-spine/result/2", numbers with three decimals.

        Later calls return the same inner dictionaries and lists: copy before changing them.
        """
        timing = {stage: rounded(self.timing_ms[stage]) for stage in STAGES}
        return {**self.derived(_values), "timing_ms": timing, "timing": {"graph": self.graph}, "notice": NOTICE}

    def to_json(self) -> str:
        """Return `to_dict` as one JSON object; raise ValueError where a number is not finite."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of result.json."""
    parsed: dict[str, Any] = json.loads((files("edge_spine") / "result.schema.json").read_text(encoding="utf-8"))
    return parsed


def _mesh(result: SpineResult) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    vertices, faces = result.spine.mesh()
    vertices.setflags(write=False)
    faces.setflags(write=False)
    return vertices, faces


def _values(result: SpineResult) -> dict[str, Any]:
    """Return the parts of `SpineResult.to_dict` that do not depend on the time that it took."""
    scan, curves, band = result.scan, result.curves, result.band_90
    measured = result.measurements
    numbers: dict[str, float | None] = {}
    for name, quantity in QUANTITIES.items():
        for key, value in zip((name, quantity.error), quantity.of(measured, name), strict=True):
            if key is not None:
                numbers[key] = None if value is None else rounded(value)
    return {
        "schema": SCHEMA,
        "software": {"name": "edge-spine", "version": __version__},
        "scan": {
            "source": scan.source,
            "path": scan.path,
            "sha256": scan.sha256,
            "sop_instance_uid": scan.sop_instance_uid,
            "rows": int(scan.pixels.shape[0]),
            "columns": int(scan.pixels.shape[1]),
            # An error in these grows with the distance from the first pixel, so they keep more digits.
            "pixel_spacing_mm": [rounded(value, 6) for value in scan.pixel_spacing_mm],
            "model_pixel_mm": rounded(result.prepared.model_pixel_mm, 6),
            "crop_origin_px": [rounded(value, 6) for value in result.prepared.crop_origin_px],
        },
        "model": dict(result.model),
        "quality": {
            "accepted": bool(result.quality.accepted),
            "flags": list(result.quality.flags),
            "notes": list(result.quality.notes),
        },
        "levels": _levels(result),
        "curves": {
            "z": _row(curves.z),
            **{
                view: dict(zip(names, map(_row, getattr(curves, view).T), strict=True))
                for view, names in BORDERS.items()
            },
            "band_90": {view: None if band is None else _row(getattr(band, view)) for view in BORDERS},
        },
        "measurements": {
            "posture": measured.posture,
            "max_cobb_deg": numbers.pop("max_cobb_deg"),
            "max_cobb_error_90_deg": numbers.pop("max_cobb_error_90_deg"),
            "scoliosis_curves": [
                {name: rounded(getattr(curve, name)) for name in CURVE_QUANTITIES}
                | {name: getattr(curve, name) for name in CURVE_NAMES}
                for curve in measured.scoliosis_curves
            ],
            **numbers,
        },
    }


def _levels(result: SpineResult) -> dict[str, dict[str, float | None]]:
    found = result.levels.z_error
    errors = [None] * len(LEVELS) if found is None else [rounded(error) for error in found]
    return {
        name: {"x": rounded(x), "y": rounded(y), "z": rounded(z), "z_error_mm": error}
        for name, (x, y, z), error in zip(LEVELS, result.body_centres(), errors, strict=True)
    }


def _row(values: NDArray[np.floating[Any]]) -> list[float]:
    # one call for all is faster than `rounded` for each; adding zero turns -0.0 into 0.0
    row: list[float] = (np.round(values.astype(np.float64), 3) + 0.0).tolist()
    return row
