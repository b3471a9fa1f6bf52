"""All that is known about one scan after the walk, and the schema of its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import Bands, PopulationRange
from edge_spine.measure import Measurements
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.quality import Quality
from edge_spine.reconstruct import Curves, Spine
from edge_spine.scan import Scan

SCHEMA = "edge-spine/result/1"
NOTICE = "Research use only. Not for diagnosis."
STAGES = ("read", "preprocess", "infer", "reconstruct", "write", "total")


@dataclass(frozen=True)
class SpineResult:
    """All that is known about one scan after the walk.

    Attributes
    ----------
    scan : Scan
        What was read.
    prepared : Prepared
        The network's input and its place in the scan.
    curves : Curves
        Six borders and centres in mm, anchored to the scanned image.
    spine : Spine
        The 3D centreline, cross-sections, surface and volume.
    measurements : Measurements
        Angles and lengths.
    quality : Quality
        Whether the result may be shown, and what to know about it.
    model : Mapping
        ``name``, ``version``, ``sha256`` (of the bundle's manifest), ``engine`` and ``precision``.
    timing_ms : Mapping
        One time for each of `STAGES`; ``read`` and ``write`` are 0 until whoever reads or writes
        adds them with `with_timing`.
    band_90 : Bands, optional
        Half-widths (mm) of the 90 % band of each row's centre; None where the bundle has no calibration.
    population : PopulationRange, optional
        Where 90 % of the model's population have the sagittal centre, mm; None where the bundle does not say.
    """

    scan: Scan
    prepared: Prepared
    curves: Curves
    spine: Spine
    measurements: Measurements
    quality: Quality
    model: Mapping[str, str]
    timing_ms: Mapping[str, float]
    band_90: Bands | None = None
    population: PopulationRange | None = None

    def with_timing(self, **stages: float) -> SpineResult:
        """Return the same result with other times (ms) for the named stages, and their new total."""
        timing = {**self.timing_ms, **stages}
        timing["total"] = sum(timing[stage] for stage in STAGES if stage != "total")
        return replace(self, timing_ms=timing)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values as the schema "edge-spine/result/1" wants them, with three decimals.

        Raises
        ------
        ValueError
            A number is not finite.
        """
        coronal, sagittal = _columns(self.curves.coronal), _columns(self.curves.sagittal)
        measured = self.measurements
        return {
            "schema": SCHEMA,
            "scan": {
                "source": self.scan.source,
                "sop_instance_uid": self.scan.sop_instance_uid,
                "rows": int(self.scan.pixels.shape[0]),
                "columns": int(self.scan.pixels.shape[1]),
                # Scanned millimetres hang on these, so they keep more digits than what is measured.
                "pixel_spacing_mm": [_rounded(value, 6) for value in self.scan.pixel_spacing_mm],
                "model_pixel_mm": _rounded(self.prepared.model_pixel_mm, 6),
                "crop_origin_px": [_rounded(value, 6) for value in self.prepared.crop_origin_px],
            },
            "model": dict(self.model),
            "quality": {"accepted": bool(self.quality.accepted), "flags": list(self.quality.flags)},
            "curves": {
                "z": _row(self.curves.z),
                "coronal": dict(zip(("left", "centre", "right"), coronal, strict=True)),
                "sagittal": dict(zip(("anterior", "centre", "posterior"), sagittal, strict=True)),
                "band_90": {
                    "coronal": None if self.band_90 is None else _row(self.band_90.coronal),
                    "sagittal": None if self.band_90 is None else _row(self.band_90.sagittal),
                },
            },
            "measurements": {
                "posture": measured.posture,
                "max_cobb_deg": _rounded(measured.max_cobb_deg),
                "scoliosis_curves": [
                    {
                        "cobb_deg": _rounded(curve.cobb_deg),
                        "ferguson_deg": _rounded(curve.ferguson_deg),
                        "side": curve.side,
                        "apex_level": curve.apex_level,
                        "upper_end_level": curve.upper_end_level,
                        "lower_end_level": curve.lower_end_level,
                    }
                    for curve in measured.scoliosis_curves
                ],
                "kyphosis_t4_t12_deg": _rounded(measured.kyphosis_t4_t12_deg),
                "lordosis_l1_l5_deg": _rounded(measured.lordosis_l1_l5_deg),
                "plane_of_maximal_curvature_deg": _rounded(measured.plane_of_maximal_curvature_deg),
                "centreline_length_mm": _rounded(measured.centreline_length_mm),
                "max_lateral_deviation_mm": _rounded(measured.max_lateral_deviation_mm),
                "volume_ml": _rounded(measured.volume_ml),
            },
            "timing_ms": {stage: _rounded(self.timing_ms[stage]) for stage in STAGES},
            "notice": NOTICE,
        }

    def to_json(self) -> str:
        """Return `to_dict` as one JSON object.

        Raises
        ------
        ValueError
            A number is not finite.
        """
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that every result.json is valid against."""
    text = files("edge_spine").joinpath("result.schema.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _rounded(value: float, digits: int = 3) -> float:
    # Adding zero turns -0.0 into 0.0.
    return round(float(value), digits) + 0.0


def _row(values: NDArray[np.floating[Any]]) -> list[float]:
    rounded: list[float] = (np.round(values.astype(np.float64), 3) + 0.0).tolist()
    return rounded


def _columns(values: NDArray[np.floating[Any]]) -> list[list[float]]:
    return [_row(values[:, column]) for column in range(values.shape[1])]
