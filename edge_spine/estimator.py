"""The walk from a scan to a judged 3D spine, one call."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bands import Bands
from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.base import INPUT_SHAPE
from edge_spine.localise import INPUT_PIXEL_MM as LOCALISER_PIXEL_MM
from edge_spine.localise import INPUT_SHAPE as LOCALISER_SHAPE
from edge_spine.localise import Localiser
from edge_spine.measure import Measurements, measure
from edge_spine.outputs.result_json import SCHEMA
from edge_spine.population import PopulationRange
from edge_spine.preprocess import Prepared, prepare
from edge_spine.quality import Quality, judge
from edge_spine.reconstruct import Curves, Spine, curves_from_output, reconstruct
from edge_spine.refine import refined
from edge_spine.second_opinion import FLAG as MODELS_DISAGREE
from edge_spine.second_opinion import disagreement_mm, mirrored

if TYPE_CHECKING:
    from edge_spine.scan import Scan

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


class SpineEstimator:
    """A loaded model that turns scans into spines; a context manager.

    Parameters
    ----------
    engine : str
        One of `edge_spine.engines.ENGINES`; any but "auto" is taken or refused, never replaced.
    model : str or path, optional
        "spine" (default), "lite", or the folder of a model bundle; see `edge_spine.bundle.load_bundle`.
    threads : int, optional
        Threads of the engine on the processor.
    precision : str
        One of `edge_spine.engines.PRECISIONS`.

    Raises
    ------
    BundleError
        The bundle is missing or damaged.
    EngineUnavailable
        The engine cannot run here.
    """

    def __init__(
        self,
        engine: str = "auto",
        model: str | Path | None = None,
        threads: int | None = None,
        precision: str = "auto",
    ) -> None:
        bundle = load_bundle(model)
        self._localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
        self._engine = open_engine(bundle, engine, threads=threads, precision=precision)
        self._bands, self._population = bundle.bands, bundle.population
        self._second_opinion = bundle.second_opinion
        self._refinement = bundle.refinement
        self._model = {
            "name": bundle.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "engine": self._engine.name,
            "precision": self._engine.precision,
        }
        # The first inferences allocate; they should not fall on the first scan.
        self._localiser(np.zeros(LOCALISER_SHAPE, np.float32), (LOCALISER_PIXEL_MM, LOCALISER_PIXEL_MM))
        self._engine.infer(np.zeros(INPUT_SHAPE, np.float32))

    @property
    def model(self) -> Mapping[str, str]:
        """What `SpineResult.model` says of every result."""
        return self._model

    def __call__(self, scan: Scan) -> SpineResult:
        """Estimate the spine of one scan.

        Parameters
        ----------
        scan : Scan
            From `edge_spine.read_scan`.

        Returns
        -------
        SpineResult
            Its timing holds 0 for reading and writing, which happen elsewhere.

        Raises
        ------
        Refusal
            The scan shows no spine that can be estimated; its code says why.
        """
        times = [time.perf_counter()]
        prepared = prepare(scan, self._localiser)
        times.append(time.perf_counter())
        outputs = self._infer(prepared.tensor)
        times.append(time.perf_counter())
        if self._refinement is not None:
            outputs[0] = refined(prepared.tensor, outputs[0], self._refinement)
        curves, *others = (curves_from_output(output, prepared) for output in outputs)
        spine = reconstruct(curves)
        measurements = measure(spine)
        quality = judge(scan, prepared, curves, spine, measurements, self._population)
        bands = None if self._bands is None else self._bands.at(prepared.model_pixel_mm, measurements.max_cobb_deg)
        opinion = self._second_opinion
        if opinion is not None and disagreement_mm(curves, *others) > opinion.limit_mm:
            quality = replace(quality, flags=(*quality.flags, MODELS_DISAGREE))
            bands = None if bands is None else replace(bands, sagittal=bands.sagittal * opinion.widening)
        times.append(time.perf_counter())
        result = SpineResult(
            scan=scan,
            prepared=prepared,
            curves=curves,
            spine=spine,
            measurements=measurements,
            quality=quality,
            model=self._model,
            timing_ms=dict.fromkeys(STAGES, 0.0),
            band_90=bands,
            population=None if self._population is None else self._population.at(prepared.model_pixel_mm),
        )
        preprocess, infer, rest = (float(step) for step in np.diff(times) * 1000.0)
        return result.with_timing(preprocess=preprocess, infer=infer, reconstruct=rest)

    def _infer(self, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the network's answer to a crop, then that to its mirror image where the bundle asks for one."""
        crops = [tensor] if self._second_opinion is None else [tensor, mirrored(tensor)]
        return [self._engine.infer(crop)[0] for crop in crops]

    def close(self) -> None:
        """Give back what the engine holds; closing twice is harmless."""
        self._engine.close()

    def __enter__(self) -> SpineEstimator:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _rounded(value: float, digits: int = 3) -> float:
    # Adding zero turns -0.0 into 0.0.
    return round(float(value), digits) + 0.0


def _row(values: NDArray[np.floating[Any]]) -> list[float]:
    rounded: list[float] = (np.round(values.astype(np.float64), 3) + 0.0).tolist()
    return rounded


def _columns(values: NDArray[np.floating[Any]]) -> list[list[float]]:
    return [_row(values[:, column]) for column in range(values.shape[1])]
