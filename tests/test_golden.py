"""Bytes of every output and text of every refusal, kept equal while the code is moved.

`EDGE_SPINE_RECORD_GOLDEN=1 python -m pytest tests/test_golden.py` records them anew. The digests hold for the packages
and the processor that they were recorded with; elsewhere the tests are skipped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_files
from pydicom.filewriter import dcmwrite

import edge_spine
from benchmarks.pictures import REFUSED
from benchmarks.refusals import from_png
from edge_spine import Scan, SpineEstimator, SpineResult, read_scan
from edge_spine.errors import EdgeSpineError
from edge_spine.outputs.registry import DICOM_OBJECTS, FORMATS
from edge_spine.reading.files import find_scans
from edge_spine.reading.read import scan_from_bytes
from edge_spine.result import STAGES
from export.training.phantoms.phantom import dicom_file, make_phantom
from export.training.phantoms.scanner import IDXA
from tests.conftest import MakeDicom

pytestmark = pytest.mark.slow

STORED = Path(__file__).with_name("golden.json")
DEMO_SCAN = Path(edge_spine.__file__).parent / "data" / "synthetic_whole_body.dcm"
PHANTOMS = (56_000_000, 56_000_001)
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "pydicom", "highdicom", "reportlab", "trimesh")
RECORDING = os.environ.get("EDGE_SPINE_RECORD_GOLDEN") == "1"


def surroundings() -> dict[str, str]:
    vnni = cv2.checkHardwareSupport(23)
    return {"machine": f"{platform.machine()} vnni {vnni}", **{name: version(name) for name in PACKAGES}}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def golden() -> Iterator[dict[str, Any]]:
    """Return what was recorded, or record what is found."""
    if RECORDING:
        found: dict[str, Any] = {"surroundings": surroundings()}
        yield found
        STORED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    if stored["surroundings"] != surroundings():
        pytest.skip(f"recorded with other packages or another processor: {stored['surroundings']}")
    yield stored


@pytest.fixture(scope="module")
def estimator() -> SpineEstimator:
    return SpineEstimator(engine="onnx-cpu", threads=1)


def check(golden: dict[str, Any], name: str, found: dict[str, str]) -> None:
    if RECORDING:
        golden[name] = found
    assert found == golden[name]


def outputs(result: SpineResult, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    fixed = replace(result, timing_ms=dict.fromkeys(STAGES, 1.0))
    files = {name: digest(form.render(fixed)) for name, form in FORMATS.items()}
    return files | {f"dicom {kind}": digest(form.render(fixed)) for kind, form in DICOM_OBJECTS.items()}


def test_the_bundled_scan(golden: dict[str, Any], estimator: SpineEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    check(golden, "bundled", outputs(estimator(read_scan(DEMO_SCAN)), monkeypatch))


def test_the_real_scan(
    golden: dict[str, Any], real_bone: Path, estimator: SpineEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(golden, "real", outputs(estimator(read_scan(real_bone)), monkeypatch))


@pytest.mark.parametrize("seed", PHANTOMS)
def test_a_phantom(
    seed: int, golden: dict[str, Any], estimator: SpineEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    dcmwrite(stream, dicom_file(make_phantom(seed, scanner=IDXA)), enforce_file_format=True)
    scan = scan_from_bytes(stream.getvalue(), "phantom.dcm")
    # the phantom has changed where only this differs: record anew
    check(golden, f"phantom {seed} pixels", {"pixels": digest(scan.pixels.tobytes())})
    check(golden, f"phantom {seed}", outputs(estimator(scan), monkeypatch))


def answer(read: Callable[[], Scan], estimator: SpineEstimator | None = None) -> str:
    try:
        scan = read()
        if estimator is None:
            return "read"
        return "accepted " + ",".join(estimator(scan).quality.flags)
    except EdgeSpineError as error:
        return f"{getattr(error, 'code', type(error).__name__)}: {error}"


def test_pictures_that_are_refused(golden: dict[str, Any], estimator: SpineEstimator) -> None:
    phantom = make_phantom(PHANTOMS[0], scanner=IDXA)
    check(golden, "pixels of the pictures", {"bone": digest(phantom.bone.tobytes())})
    found = {
        kind: answer(from_png(build(phantom, np.random.default_rng(0)), "other.png"), estimator)
        for kind, build in REFUSED.items()
    }
    check(golden, "pictures", found)


def test_the_real_soft_tissue_image(golden: dict[str, Any], real_tissue: Path, estimator: SpineEstimator) -> None:
    check(golden, "real tissue", {"tissue": answer(lambda: read_scan(real_tissue), estimator)})


def test_outputs_of_the_network_that_are_refused(golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = SpineEstimator(engine="onnx-cpu", threads=1)
    scan = read_scan(DEMO_SCAN)
    engine = estimator._engine
    good = engine.infer(estimator_input(estimator, scan))[0].reshape(209, 6)
    rng = np.random.default_rng(0)
    changes = {
        "not finite": np.where(np.arange(6) == 1, np.nan, good),
        "crossed": good[:, [2, 1, 0, 3, 4, 5]],
        "crossed sagittal": good[:, [0, 1, 2, 5, 4, 3]],
        "wide": (good - good.mean(1, keepdims=True)) * 4 + 0.5,
        "rough": good + rng.normal(0, 0.05, (209, 1)),
        "aside": good + np.array([0.25, 0.25, 0.25, 0, 0, 0]),
        "straight": np.broadcast_to(good.mean(0), good.shape),
    }
    found = {}
    for name, curves in changes.items():
        output = np.ascontiguousarray(curves, dtype=np.float32).reshape(1, 1254)
        monkeypatch.setattr(engine, "infer", lambda tensor, output=output: output)
        found[name] = answer(lambda: scan, estimator)
    check(golden, "outputs of the network", found)


def estimator_input(estimator: SpineEstimator, scan: Scan) -> Any:
    return estimator(scan).prepared.tensor


def test_files_that_are_refused(golden: dict[str, Any], make_dicom: MakeDicom, tmp_path: Path) -> None:
    zeros = np.zeros
    files: dict[str, bytes] = {"empty": b"", "text": b"hello world, no image", "zip head": b"PK\x03\x04" + bytes(40)}
    attributes: dict[str, dict[str, Any]] = {
        "no spacing": {"ExposedArea": None},
        "imager spacing": {"ExposedArea": None, "ImagerPixelSpacing": [4, 4]},
        "implausible spacing": {"PixelSpacing": [0, 4], "ExposedArea": None},
        "giant": {"PixelSpacing": [19, 4]},
        "lateral": {"PatientOrientation": ["A", "F"]},
        "CT": {"Modality": "CT"},
        "secret modality": {"Modality": "SECRET"},
        "hip": {"ProtocolName": "Left Hip"},
        "lumbar": {"ProtocolName": None, "BodyPartExamined": "LSPINE"},
        "frames": {"NumberOfFrames": 2},
        "no rows": {"Rows": 0},
        "rows": {"Rows": 16385},
        "both": {"Rows": 5001, "Columns": 5000},
        "bits": {"BitsStored": 7, "HighBit": 6},
        "high bit": {"HighBit": 9},
        "photometric": {"PhotometricInterpretation": "YBR_PARTIAL_420"},
        "slope": {"RescaleSlope": "0", "RescaleIntercept": "0"},
        "large slope": {"RescaleSlope": "1e300", "RescaleIntercept": "0"},
        "ours": {"Manufacturer": "Edge-Spine"},
        "more pixels than bytes": {"Rows": 500},
    }
    files |= {name: make_dicom(**values) for name, values in attributes.items()}
    whole = make_dicom()
    files |= {
        "short body": make_dicom(zeros((224, 160), np.uint8)),
        "small": make_dicom(zeros((99, 160), np.uint8), PixelSpacing=[10, 4]),
        "narrow": make_dicom(zeros((480, 39), np.uint8)),
        "cut": whole[: len(whole) * 2 // 3],
        "cut early": whole[:400],
        "magic only": whole[:132],
    }
    png = cv2.imencode(".png", zeros((480, 160), np.uint8))[1].tobytes()
    files |= {"png without spacing": png, "png cut": png[:60], "png damaged": png[:50] + b"\0" * 20 + png[70:]}
    arrays = {
        "npy": zeros((480, 160)),
        "npy 3d": zeros((4, 480, 160)),
        "npy complex": zeros((480, 160), complex),
        "npy nan": np.full((480, 160), np.nan),
    }
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.save(stream, array)
        files[name] = stream.getvalue()
    files |= {"npy cut": files["npy"][:500], "npy damaged": files["npy"][:20]}
    found = {}
    spacing = (4.0, 4.0)
    for name, data in files.items():
        found[name] = answer(lambda data=data: scan_from_bytes(data, "file.dcm"))
        found[f"{name}, 4 mm"] = answer(lambda data=data: scan_from_bytes(data, "file.dcm", pixel_spacing=spacing))
    found["given spacing"] = answer(lambda: scan_from_bytes(png, "file.png", pixel_spacing=(0.0, 4.0)))
    found["given giant"] = answer(lambda: scan_from_bytes(png, "file.png", pixel_spacing=(19.0, 19.0)))
    found["none"] = answer(lambda: read_scan(tmp_path / "none.dcm"))
    found["folder"] = answer(lambda: read_scan(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("note.txt", "no scan")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("scan.dcm", whole)
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04" + bytes(60))
    for name in ("a.zip", "b.zip", "c.zip"):
        found[name] = answer(lambda name=name: find_scans([tmp_path / name])[0].read())
    found["missing"] = answer(lambda: find_scans([tmp_path / "none.zip"])[0].read())
    check(golden, "files", {name: text.replace(str(tmp_path), "TMP") for name, text in found.items()})


@pytest.mark.filterwarnings("ignore")
def test_files_of_pydicom(golden: dict[str, Any], estimator: SpineEstimator) -> None:
    paths = sorted({Path(name) for name in get_testdata_files("*.dcm")})
    found = {path.name: answer(lambda path=path: read_scan(path), estimator) for path in paths}
    assert len(found) > 50
    check(golden, "pydicom", found)
