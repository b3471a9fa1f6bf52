from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.errors import BundleError, EngineUnavailable, Refusal, UsageError
from edge_spine.result import schema
from edge_spine.scan import Scan
from tests.edge_spine.engines.processors import needs_openvino
from tests.edge_spine.fake_result import phantom_pixels

BUNDLED = Path(__file__).resolve().parents[2] / "edge_spine/data/synthetic_whole_body.dcm"


@pytest.fixture
def phantom() -> Scan:
    """A FAKE body of 1920 x 658 mm."""
    return Scan(phantom_pixels(), (2.427, 2.419), "FAKE.npy", None, ("pixel-spacing-given",))


# --- the walk, with the FAKE bundle


def test_an_open_engine_is_used_and_closed(fake_model: Path, phantom: Scan) -> None:
    opened = open_engine(load_bundle(fake_model), "onnx-cpu", threads=1)
    opened.graph = True
    with SpineEstimator(opened, fake_model) as estimator:
        assert estimator(phantom).to_dict()["timing"] == {"graph": True}
    with pytest.raises(UsageError, match="closed"):
        opened.infer(np.zeros((1, 3, 224, 224), np.float32))


def test_the_walk_ends_in_a_valid_result(fake_model: Path, phantom: Scan) -> None:
    with SpineEstimator("onnx-cpu", fake_model, threads=1) as estimator:
        result = estimator(phantom)
    found = json.loads(result.to_json())
    jsonschema.Draft202012Validator(schema()).validate(found)
    assert found["scan"]["source"] == "FAKE.npy"
    assert (found["scan"]["rows"], found["scan"]["columns"]) == phantom.pixels.shape
    assert found["model"] == {
        "name": "FAKE",
        "version": "0",
        "sha256": load_bundle(fake_model).sha256,
        "engine": "onnx-cpu",
        "precision": "float32",
    }
    assert "pixel-spacing-given" in found["quality"]["flags"]
    assert found["timing"] == {"graph": False}
    timing = result.timing_ms
    assert min(timing[stage] for stage in ("preprocess", "infer", "reconstruct")) > 0
    assert timing["read"] == timing["write"] == 0
    assert timing["total"] == pytest.approx(sum(timing.values()) - timing["total"])


def test_the_curves_are_those_of_the_output_at_the_place_of_the_crop(fake_model: Path, phantom: Scan) -> None:
    from tests.edge_spine.fake_bundle import fake_output

    with SpineEstimator(model=fake_model) as estimator:
        result = estimator(phantom)
    prepared = result.prepared
    expected = prepared.crop_origin_px[1] * 2.419 + (
        fake_output().reshape(209, 6)[:, :3] * 224 * prepared.model_pixel_mm
    )
    np.testing.assert_allclose(result.curves.coronal, expected, atol=1e-3)
    assert [curve.side for curve in result.measurements.scoliosis_curves[:2]].count("left") == 1


def test_the_rows_run_from_the_top_of_t1_to_the_bottom_of_l5_as_found(tmp_path: Path, phantom: Scan) -> None:
    from tests.edge_spine.bundle.test_blocks import fake_angles
    from tests.edge_spine.fake_bundle import fake_bundle
    from tests.edge_spine.test_locate import saved

    plain, found = (
        fake_bundle(tmp_path / "plain"),
        fake_bundle(tmp_path / "found", levels=saved(), angles=fake_angles()),
    )
    with SpineEstimator(model=plain) as one, SpineEstimator(model=found) as other:
        average, result = one(phantom), other(phantom)
    levels, curves = result.levels, result.curves
    assert (curves.z[0], curves.z[-1]) == (levels.top, levels.bottom) and len(curves.z) == 209
    assert average.levels.z_error is None and levels.z_error is not None
    # the same spine, read at other heights
    inside = (curves.z < average.curves.z[0]) & (curves.z > average.curves.z[-1])
    expected = np.interp(-curves.z, -average.curves.z, average.curves.coronal[:, 1])
    np.testing.assert_allclose(curves.coronal[inside, 1], expected[inside], atol=1e-6)
    written = json.loads(result.to_json())
    jsonschema.Draft202012Validator(schema()).validate(written)
    assert written["levels"]["T7"]["z"] == pytest.approx(levels.z[6], abs=1e-3)
    assert written["measurements"]["max_cobb_error_90_deg"] in fake_angles()["cobb_deg"]
    assert json.loads(average.to_json())["measurements"]["kyphosis_error_90_deg"] is None


def test_the_network_runs_once_on_the_crop(fake_model: Path, phantom: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = []
    with SpineEstimator("onnx-cpu", fake_model, threads=1) as estimator:
        infer = estimator._engine.infer

        def recorded(crop: np.ndarray) -> np.ndarray:
            crops.append(crop)
            return infer(crop)

        monkeypatch.setattr(estimator._engine, "infer", recorded)
        result = estimator(phantom)
    assert len(crops) == 1
    np.testing.assert_array_equal(crops[0], result.prepared.tensor)


def test_the_bands_of_the_bundle_become_millimetres_of_the_scan(tmp_path: Path, phantom: Scan) -> None:
    from tests.edge_spine.fake_bundle import fake_bundle, fake_calibration

    with SpineEstimator(model=fake_bundle(tmp_path, bands=fake_calibration())) as estimator:
        result = estimator(phantom)
    pixel, cobb = result.prepared.model_pixel_mm, result.measurements.max_cobb_deg
    assert cobb > 5 and result.band_90 is not None
    np.testing.assert_allclose(result.band_90.coronal, 0.5 * pixel * (1 + (cobb / 30) ** 2))
    np.testing.assert_allclose(result.band_90.sagittal[:-1], 1.5 * pixel * (1 + (cobb / 60) ** 2))
    found = json.loads(result.to_json())
    jsonschema.Draft202012Validator(schema()).validate(found)
    for view in ("coronal", "sagittal"):
        np.testing.assert_allclose(found["curves"]["band_90"][view], getattr(result.band_90, view), atol=5.1e-4)


def test_without_a_calibration_there_is_no_band(fake_model: Path, phantom: Scan) -> None:
    with SpineEstimator(model=fake_model) as estimator:
        result = estimator(phantom)
    assert result.band_90 is None
    assert result.to_dict()["curves"]["band_90"] == {"coronal": None, "sagittal": None}


def test_one_estimator_gives_the_same_for_the_same_scan(fake_model: Path, phantom: Scan) -> None:
    with SpineEstimator(model=fake_model) as estimator:
        first, second = estimator(phantom).to_dict(), estimator(phantom).to_dict()
    first.pop("timing_ms"), second.pop("timing_ms")
    assert first == second


def test_curves_that_are_no_spine_are_refused(tmp_path: Path, phantom: Scan, fake_model: Path) -> None:
    from tests.edge_spine.fake_bundle import fake_bundle, fake_output

    crossed = fake_output().reshape(209, 6)[:, ::-1].reshape(-1)
    with (
        SpineEstimator(model=fake_bundle(tmp_path, crossed)) as estimator,
        pytest.raises(Refusal) as caught,
    ):
        estimator(phantom)
    assert caught.value.code == "implausible-curves"


def test_an_empty_image_is_refused(fake_model: Path) -> None:
    empty = Scan(np.zeros((480, 160), np.float32), (4.0, 4.0), "FAKE.npy", None)
    with SpineEstimator(model=fake_model) as estimator, pytest.raises(Refusal) as caught:
        estimator(empty)
    assert caught.value.code == "no-spine"


def test_a_damaged_bundle_is_refused(tmp_path: Path, fake_model: Path) -> None:
    from tests.edge_spine.fake_bundle import fake_bundle

    folder = fake_bundle(tmp_path)
    network = folder / "model.fake.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        SpineEstimator(model=folder)


@pytest.mark.hazard("computes-wrongly")
def test_an_engine_is_never_replaced_in_silence(fake_model: Path) -> None:
    with pytest.raises(UsageError, match="onnx-gpu"):
        SpineEstimator("onnx-gpu", fake_model)
    with pytest.raises(EngineUnavailable):
        SpineEstimator("tensorrt", fake_model)


def test_the_estimator_cannot_be_used_after_closing(fake_model: Path, phantom: Scan) -> None:
    with SpineEstimator(model=fake_model) as estimator:
        pass
    estimator.close()
    with pytest.raises(UsageError, match="closed"):
        estimator(phantom)


# --- many threads


def shifted(scan: Scan) -> list[Scan]:
    """Five copies of a scan, each with the body elsewhere."""
    places = [(3 * number, 2 * number) for number in range(5)]
    return [replace(scan, pixels=np.ascontiguousarray(np.roll(scan.pixels, place, (0, 1)))) for place in places]


def content(estimator: SpineEstimator, scan: Scan) -> bytes:
    """Return every number of a result, bit for bit."""
    result = estimator(scan)
    curves = result.curves
    arrays = (curves.z, curves.coronal, curves.sagittal, result.spine.centreline, result.prepared.tensor)
    return b"".join(array.tobytes() for array in arrays) + repr(result.measurements).encode()


@pytest.mark.hazard("results-exchanged")
@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("engine", ["onnx-cpu", pytest.param("openvino", marks=needs_openvino)])
def test_threads_share_one_estimator(engine: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # wrong sums of a processor are equally wrong in each thread
    monkeypatch.setattr("edge_spine.engines.select._may_saturate", lambda: False)
    # several objects are lent, whatever this machine has
    for module in ("preprocessing.locator", "engines.openvino"):
        monkeypatch.setattr(f"edge_spine.{module}.usable_cores", lambda: 3)
    scans = shifted(read_scan(BUNDLED))
    with SpineEstimator(engine, "lite", threads=1) as estimator:
        expected = [content(estimator, scan) for scan in scans]
        assert len(set(expected)) == 5
        calls = [number % 5 for number in range(60)]
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda number: content(estimator, scans[number]), calls))
        assert [answer == expected[number] for answer, number in zip(found, calls, strict=True)] == [True] * 60
        # and nothing is wrong afterwards
        assert [content(estimator, scan) for scan in scans] == expected


@pytest.mark.parametrize("engine", ["onnx-cpu", pytest.param("openvino", marks=needs_openvino)])
def test_threads_at_work_when_the_estimator_is_closed_finish_or_are_told(
    engine: str, fake_model: Path, phantom: Scan
) -> None:
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            while True:
                estimator(phantom)
        except BaseException as error:
            ended.append(error)

    estimator = SpineEstimator(engine, fake_model, threads=1)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.2)
    estimator.close()
    for worker in workers:
        worker.join(60)
    assert [type(error) for error in ended] == [UsageError] * 4


@pytest.mark.hazard("results-exchanged")
def test_no_result_can_change_another_one(fake_model: Path, phantom: Scan) -> None:
    with SpineEstimator(model=fake_model) as estimator:
        first = estimator(phantom)
        first.model["engine"] = "changed"  # type: ignore[index]
        assert estimator(phantom).model["engine"] == estimator.model["engine"] != "changed"


CLOSING = """
import threading, time, weakref
from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.engines import Engine, open_engine

class Closed(Engine):
    name, precision = "onnx-cpu", "int8"
    def __init__(self):
        self.real, self.ends = open_engine(load_bundle("lite"), "onnx-cpu"), []
        self.finalizer = weakref.finalize(self, self.ends.append, "closed")
    def _infer_block(self, images):
        began.set()
        time.sleep(1)
        print(*self.ends, "answered", flush=True)
        return self.real.infer(images)
    def close(self):
        self.finalizer()

began = threading.Event()
scan, estimator = read_scan({scan!r}), SpineEstimator(Closed(), "lite")
threading.Thread(target=lambda: estimator(scan), daemon=True).start()
began.wait()
"""
ENDING = """
import threading, time
from edge_spine import SpineEstimator, read_scan
scan, estimator = read_scan({scan!r}), SpineEstimator("onnx-cpu", "lite", 2)
for _ in range(2):
    threading.Thread(target=lambda: [estimator(scan) for _ in range(1000)], daemon=True).start()
time.sleep(0.3)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("code", "said"), [(ENDING, "done"), (CLOSING, "answered")])
def test_daemon_threads_do_not_abort_the_end_of_the_process(code: str, said: str) -> None:
    """As those of a server or a window; the interpreter stopped them within native code, with SIGABRT.

    Nor is their engine closed before they have their answer, as one on a GPU by its finalizer.
    """
    pytest.importorskip("onnxruntime", reason="pip install '.[cpu]'")
    code = code.format(scan=str(BUNDLED))
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=BUNDLED.parents[2], timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{said}\n", "")
