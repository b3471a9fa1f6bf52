"""What a choice of engine and precision means, on processors with and without VNNI, and without packages."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_spine.engines.onnx as onnx_engine
import edge_spine.engines.openvino as openvino_engine
from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import manifest_bytes, parse_manifest
from edge_spine.engines import ENGINES, PRECISIONS, engine_problems, open_engine, runs_on_gpu, select
from edge_spine.engines.base import Engine, EngineName
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.openvino import OpenVinoEngine
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.engines.verification import verify
from edge_spine.errors import BundleError, EngineUnavailable, UsageError
from tests.edge_spine.engines.processors import has_openvino

ROOT = Path(__file__).resolve().parents[3]


def test_every_name_opens_or_says_why(bundle) -> None:
    assert ENGINES == ("auto", "onnx-cpu", "onnx-cuda", "openvino", "tensorrt")
    for name, problem in engine_problems().items():
        if problem is None:
            with open_engine(bundle, name) as engine:
                assert engine.name == name
        else:
            assert problem.startswith(f"{name}: ") and "\n" not in problem
            with pytest.raises(EngineUnavailable) as caught:
                open_engine(bundle, name)
            assert str(caught.value) == problem


def test_unknown_engines_are_wrong_usage(bundle) -> None:
    with pytest.raises(UsageError, match="'onnx' is none of auto, "):
        open_engine(bundle, "onnx")


def unavailable(reason: str):
    """Return a function that raises EngineUnavailable."""

    def missing(*_arguments) -> None:
        raise EngineUnavailable(reason)

    return missing


def test_auto_takes_the_processor_without_a_gpu(bundle, monkeypatch) -> None:
    monkeypatch.setattr(onnx_engine, "require_gpu", unavailable("onnx-cuda: no GPU"))
    with open_engine(bundle) as engine:
        assert engine.name == ("openvino" if has_openvino() else "onnx-cpu")
    monkeypatch.setattr(openvino_engine, "openvino_runtime", unavailable("openvino: not here"))
    with open_engine(bundle) as engine:
        assert engine.name == "onnx-cpu"


class PycudaMemoryError(Exception):
    """FAKE of PyCUDA's own MemoryError, which is not Python's."""


FAILURES = [
    BundleError("the model cannot be loaded"),
    EngineUnavailable("no GPU"),
    RuntimeError("the network could not be started on the GPU\nmore lines"),
    PycudaMemoryError("cuMemAlloc failed: out of memory"),
    MemoryError(),
    FileNotFoundError(2, "Could not find: nvinfer_10.dll"),
    ImportError("DLL load failed"),
    AttributeError("module 'tensorrt' has no attribute 'Builder'"),
    TypeError("factory function returned nullptr"),
    AssertionError(),
]


class GpuEngine(Engine):
    """FAKE GPU engine whose inference raises the given error or returns the given value."""

    name, precision = "tensorrt", "int8"
    closed = 0

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def _infer_block(self, image):
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.full((1, 1254), self.answer, np.float32)

    def close(self) -> None:
        type(self).closed += 1


def raising(failure: Exception):
    """Return a function that raises `failure`."""

    def fail(*_arguments, **_more):
        raise failure

    return fail


@pytest.mark.parametrize("where", ["asked", "plan", "session", "first inference"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_auto_goes_on_however_a_gpu_fails(fake_model, monkeypatch, caplog, failure: Exception, where: str) -> None:
    """A FAKE TensorRT that fails: `auto` says why and runs on the processor; by name it is one line."""
    bundle = load_bundle(fake_model)
    monkeypatch.setattr(tensorrt, "require_tensorrt", lambda: None)
    monkeypatch.setattr(tensorrt, "ready_plan", lambda *_: (b"FAKE plan", {}))
    monkeypatch.setattr(tensorrt, "TensorRTEngine", lambda *_, **__: GpuEngine(failure))
    monkeypatch.setattr(GpuEngine, "closed", 0)
    if where == "asked":
        monkeypatch.setattr(tensorrt, "require_tensorrt", raising(failure))
    elif where == "plan":
        monkeypatch.setattr(tensorrt, "ready_plan", raising(failure))
    elif where == "session":
        monkeypatch.setattr(tensorrt, "TensorRTEngine", raising(failure))
    with caplog.at_level(logging.INFO), open_engine(bundle) as engine:
        assert engine.name in ("openvino", "onnx-cpu")
    said = "\n".join(record.message for record in caplog.records)
    assert (str(failure).splitlines() or [type(failure).__name__])[0] in said
    if where != "asked":
        with pytest.raises((EngineUnavailable, BundleError)) as caught:
            open_engine(bundle, "tensorrt")
        assert "\n" not in str(caught.value)
    assert GpuEngine.closed == (2 if where == "first inference" else 0)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_session_of_onnx_runtime_that_fails_is_one_line(bundle, monkeypatch, failure: Exception) -> None:
    monkeypatch.setattr(onnx_engine, "runtime_with", lambda name: onnx_engine.import_onnxruntime())
    monkeypatch.setattr(OnnxEngine, "__init__", raising(failure))
    for name in ("onnx-cuda", "onnx-cpu"):
        with pytest.raises((EngineUnavailable, BundleError)) as caught:
            open_engine(bundle, name)
        assert "\n" not in str(caught.value)
    if not has_openvino():
        pytest.skip("openvino is not installed here")
    with open_engine(bundle) as engine:
        assert engine.name == "openvino"


def test_an_engine_that_answers_no_numbers_is_passed_over(bundle, monkeypatch, caplog) -> None:
    monkeypatch.setattr(tensorrt, "require_tensorrt", lambda: None)
    monkeypatch.setattr(tensorrt, "ready_plan", lambda *_: (b"FAKE plan", {}))
    monkeypatch.setattr(tensorrt, "TensorRTEngine", lambda *_, **__: GpuEngine(np.nan))
    with open_engine(bundle) as engine:
        assert engine.name != "tensorrt"
    assert "tensorrt: its first answer holds numbers that are not finite" in caplog.text


def test_where_every_engine_fails_it_is_one_line(bundle, monkeypatch) -> None:
    monkeypatch.setattr(select, "_open", raising(RuntimeError("broken\nmore")))
    for name in ("auto", EngineName.ONNX_CPU.value):
        with pytest.raises(EngineUnavailable, match=r"onnx-cpu: it fails to start: RuntimeError: broken$"):
            open_engine(bundle, name)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


BLOCKER = """
    import sys

    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in NAMES:
                raise ModuleNotFoundError(f"{name} is blocked", name=name.partition(".")[0])

    sys.meta_path.insert(0, Blocked())
"""


def test_the_runtime_needs_neither_torch_nor_any_extra(fake_model: Path) -> None:
    names = {"torch", "onnx", "pycuda", "tensorrt", "tensorrt_rtx", "cuda", "filelock", "platformdirs", "google"}
    names |= {"safetensors", "jsonschema", "scipy", "highdicom", "pynetdicom", "prometheus_client", "gdcm"}
    names |= {"reportlab", "trimesh", "PIL", "openvino"}
    result = run(
        f"    NAMES = {names!r}\n"
        + BLOCKER
        + """
    import importlib, pkgutil
    import numpy as np
    import edge_spine

    for module in pkgutil.walk_packages(edge_spine.__path__, "edge_spine."):
        # The services, and the child process that decodes, are what their extras and limits are for.
        if module.name.startswith("edge_spine.node.") or module.name.endswith(("__main__", "_child")):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # Only the writers of some formats may ask for more.
            assert error.name in ("highdicom", "reportlab", "trimesh", "PIL"), (module.name, error.name)
            assert module.name.startswith("edge_spine.outputs."), module.name

    from edge_spine.bundle.load import load_bundle
    from edge_spine.engines import open_engine

    with open_engine(load_bundle(sys.argv[1]), "onnx-cpu") as engine:
        print(engine.infer(np.zeros((1, 3, 224, 224), np.float32)).shape)
    """,
        str(fake_model),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(1, 1254)"
    assert result.stderr == ""


def test_without_onnxruntime_the_extra_is_named(fake_model: Path) -> None:
    result = run(
        "    NAMES = {'onnxruntime', 'openvino'}\n"
        + BLOCKER
        + """
    import edge_spine.cli.main
    from edge_spine.bundle.load import load_bundle
    from edge_spine.engines import open_engine
    from edge_spine.errors import EngineUnavailable

    for name in ("auto", "onnx-cpu", "onnx-cuda", "openvino"):
        try:
            open_engine(load_bundle(sys.argv[1]), name)
        except EngineUnavailable as error:
            print(error)
    """,
        str(fake_model),
    )
    assert result.returncode == 0, result.stderr
    auto, cpu, cuda, openvino = result.stdout.splitlines()
    assert "pip install '.[openvino]'" in openvino
    assert auto.startswith("no engine can run here")
    assert all("pip install '.[cpu]'" in line for line in (auto, cpu)) and "pip install '.[cuda]'" in cuda


class SaturatingEngine(OnnxEngine):
    """FAKE processor that cuts off INT8 sums unless told to be exact; the rest is the real engine."""

    cures: bool = True

    def __init__(self, *arguments, exact_integers: bool = False, **more) -> None:
        super().__init__(*arguments, exact_integers=exact_integers, **more)
        self.exact = exact_integers and self.cures

    def _infer_block(self, image):
        return super()._infer_block(image) + np.float32(0 if self.exact else 0.01)


@pytest.fixture
def int8_bundle(fake_model: Path, tmp_path: Path):
    """A copy of the FAKE bundle, whose manifest calls its engine INT8."""
    folder = tmp_path / "int8"
    shutil.copytree(fake_model, folder)
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    manifest["files"]["model.fake.onnx"]["precision"] = "int8"
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return load_bundle(folder)


def test_a_processor_that_saturates_computes_exactly(int8_bundle, monkeypatch, caplog) -> None:
    monkeypatch.setattr(onnx_engine, "OnnxEngine", SaturatingEngine)
    monkeypatch.setattr(select, "_may_saturate", lambda: True)
    with caplog.at_level(logging.INFO), open_engine(int8_bundle, "onnx-cpu") as engine:
        assert engine.exact and verify(int8_bundle, engine).passed
    (said,) = [record for record in caplog.records if "computing them exactly" in record.message]
    # the results are right, and nobody can do anything about it
    assert said.levelno == logging.INFO


@pytest.mark.hazard("computes-wrongly")
def test_a_processor_that_stays_wrong_is_refused(int8_bundle, monkeypatch) -> None:
    monkeypatch.setattr(SaturatingEngine, "cures", False)
    monkeypatch.setattr(onnx_engine, "OnnxEngine", SaturatingEngine)
    monkeypatch.setattr(select, "_may_saturate", lambda: True)
    with pytest.raises(EngineUnavailable, match="INT8 gives wrong results on this processor"):
        open_engine(int8_bundle, "onnx-cpu")


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.parametrize(("machine", "vnni"), [("x86_64", False), ("aarch64", True)])
def test_openvino_that_is_wrong_is_refused_and_auto_goes_on(int8_bundle, monkeypatch, caplog, machine, vnni) -> None:
    """FAKE processor on which OpenVINO's INT8 is wrong; there is no exact way there."""
    if not has_openvino():
        pytest.skip("openvino is not installed here")
    right = OpenVinoEngine._infer_block
    monkeypatch.setattr(OpenVinoEngine, "_infer_block", lambda self, image: right(self, image) + np.float32(0.01))
    monkeypatch.setattr(select.platform, "machine", lambda: machine)
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda feature: vnni)
    with pytest.raises(EngineUnavailable, match="use onnx-cpu"):
        open_engine(int8_bundle, "openvino")
    with open_engine(int8_bundle) as engine:
        assert engine.name == "onnx-cpu"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_processor_with_vnni_is_not_asked(int8_bundle, monkeypatch) -> None:
    monkeypatch.setattr(onnx_engine, "OnnxEngine", SaturatingEngine)
    monkeypatch.setattr(select, "_may_saturate", lambda: False)
    with open_engine(int8_bundle, "onnx-cpu") as engine:
        assert not engine.exact


@pytest.mark.parametrize(("machine", "vnni", "asked"), [("x86_64", True, False), ("AMD64", False, True)])
def test_only_x86_without_vnni_may_saturate(monkeypatch, machine: str, vnni: bool, asked: bool) -> None:
    monkeypatch.setattr(select.platform, "machine", lambda: machine)
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda feature: vnni)
    assert select._may_saturate() is asked
    monkeypatch.setattr(select.platform, "machine", lambda: "aarch64")
    assert not select._may_saturate()


def test_precisions_are_taken_or_refused(bundle) -> None:
    assert PRECISIONS == ("auto", "int8", "fp16", "fp32")
    with pytest.raises(UsageError, match="'int4' is none of auto, "):
        open_engine(bundle, precision="int4")
    for precision in ("fp16", "fp32"):
        with open_engine(bundle, "onnx-cpu", precision=precision) as engine:
            assert engine.precision == precision and verify(bundle, engine).passed


def test_what_runs_on_a_gpu(monkeypatch) -> None:
    assert runs_on_gpu("tensorrt") and runs_on_gpu("onnx-cuda")
    assert not runs_on_gpu("onnx-cpu") and not runs_on_gpu("openvino")
    for problem in (None, "tensorrt: no driver"):
        monkeypatch.setattr(select, "engine_problem", lambda name, problem=problem: problem)
        assert runs_on_gpu("auto") is (problem is None)
