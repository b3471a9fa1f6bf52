"""Estimate a 3D spine from a scan: preprocessing, network, reconstruction, measurements and quality."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from edge_spine.bundle import load_bundle
from edge_spine.disturbance import find_disturbances, widened
from edge_spine.engines import Engine, open_engine
from edge_spine.errors import named_refusals
from edge_spine.locate import locate
from edge_spine.measure import levels_of, measure
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import INPUT_PIXEL_MM as LOCALISER_PIXEL_MM
from edge_spine.preprocessing.locator import INPUT_SHAPE as LOCALISER_SHAPE
from edge_spine.preprocessing.locator import Localiser
from edge_spine.quality import judge
from edge_spine.reconstruct import curves_from_output, reconstruct
from edge_spine.refine import refined
from edge_spine.result import STAGES, SpineResult
from edge_spine.scan import Scan

# the most that the end of the process waits for a call
_LONGEST_CALL_S = 10.0


class _DaemonCalls:
    """Running calls of daemon threads, for which the end of the process waits: it must not cut off native code."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the calls of other threads, which a forked process does not have."""
        self._changed, self._running, self._ending = threading.Condition(), 0, False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a call of a daemon thread; when the process ends, end the thread before or after the call."""
        if not threading.current_thread().daemon:
            yield
            return
        with self._changed:
            if self._ending:
                raise SystemExit
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
        if self._ending:
            raise SystemExit

    def wait_first(self) -> None:
        """Let the end of the process wait for calls before it runs what was registered until now."""
        atexit.unregister(self.end)
        atexit.register(self.end)

    def end(self) -> None:
        """Wait for the running calls, and let no further one begin."""
        with self._changed:
            self._ending = True
            self._changed.wait_for(lambda: not self._running, _LONGEST_CALL_S)


_daemon_calls = _DaemonCalls()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_daemon_calls.forget)


class SpineEstimator(AbstractContextManager["SpineEstimator"]):
    """Estimate the 3D spine of DXA scans with one loaded model; a context manager. Any number of threads may share it.

    Each call needs one processor most of the time: with `threads=1` several threads use several processors.

    Parameters
    ----------
    engine : str or Engine
        One of `edge_spine.engines.ENGINES`; any but "auto" is used or refused, never replaced. Or an open engine of the
        same model, which `close` closes.
    model : str or path, optional
        "spine" (default), "lite", or the folder of a model bundle; see `edge_spine.bundle.load.load_bundle`.
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
        engine: str | Engine = "auto",
        model: str | Path | None = None,
        threads: int | None = None,
        precision: str = "auto",
    ) -> None:
        bundle = load_bundle(model)
        self._localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
        # read first: an error after the engine is opened would leave it open
        self._refinement, self._level_network = bundle.refinement, bundle.level_network
        self._angle_errors = bundle.angle_errors
        if not isinstance(engine, Engine):
            engine = open_engine(bundle, engine, threads=threads, precision=precision)
        self._engine = engine
        self._bands, self._population = bundle.bands, bundle.population
        self._model = {
            "name": bundle.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "engine": self._engine.name,
            "precision": self._engine.precision,
        }
        # the first inference allocates memory and is slow; the engine has had its own
        self._localiser(np.zeros(LOCALISER_SHAPE, np.float32), (LOCALISER_PIXEL_MM, LOCALISER_PIXEL_MM))
        # finalizers of an engine on a GPU close it
        _daemon_calls.wait_first()

    @property
    def model(self) -> Mapping[str, str]:
        """Name, version and SHA-256 of the model, engine and precision: `SpineResult.model` of every result."""
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
            With 0 ms for reading and writing, which are not part of this call.

        Raises
        ------
        Refusal
            The scan shows no spine that can be estimated; its code says why.
        """
        with _daemon_calls.counted(), named_refusals(scan.source):
            return self._estimate(scan)

    def _estimate(self, scan: Scan) -> SpineResult:
        times = [time.perf_counter()]
        prepared = prepare(scan, self._localiser)
        times.append(time.perf_counter())
        output = self._engine.infer(prepared.tensor)[0]
        times.append(time.perf_counter())
        if self._refinement is not None:
            output = refined(prepared.tensor, output, self._refinement)
        curves = curves_from_output(output, prepared)
        levels = None
        if self._level_network is not None:
            levels = locate(prepared.tensor, output, self._level_network).levels(prepared)
            curves = curves.between(levels.top, levels.bottom)
        spine = reconstruct(curves)
        levels = levels or levels_of(spine)
        disturbed = find_disturbances(prepared, curves)
        measurements = measure(spine, levels, self._angle_errors, disturbed.local)
        quality = judge(scan, prepared, curves, spine, measurements, levels, self._population, tuple(disturbed.rows))
        bands = None if self._bands is None else self._bands.at(prepared.model_pixel_mm, measurements.max_cobb_deg)
        times.append(time.perf_counter())
        result = SpineResult(
            scan=scan,
            prepared=prepared,
            curves=curves,
            spine=spine,
            levels=levels,
            measurements=measurements,
            quality=quality,
            model=dict(self._model),
            timing_ms=dict.fromkeys(STAGES, 0.0),
            band_90=None if bands is None else widened(bands, disturbed),
            population=None if self._population is None else self._population.at(prepared.model_pixel_mm),
            graph=self._engine.graph,
        )
        preprocess, infer, rest = (1000.0 * (end - start) for start, end in pairwise(times))
        return result.with_timing(preprocess=preprocess, infer=infer, reconstruct=rest)

    def close(self) -> None:
        """Release the engine; a second call does nothing."""
        self._engine.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def with_threads(engine: str | Engine, model: str | Path | None, threads: int | None, precision: str) -> SpineEstimator:
    """Return a `SpineEstimator` after limiting OpenCV, in the whole process, to the same number of threads."""
    if threads is not None:
        cv2.setNumThreads(threads)
    return SpineEstimator(engine, model, threads, precision)
