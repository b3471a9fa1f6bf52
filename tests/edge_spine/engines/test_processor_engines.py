"""The engines' contract on the processor, and what an explicit choice means."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge_spine.engines.onnx as onnx_engine
import edge_spine.engines.openvino as openvino_engine
from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import manifest_bytes, parse_manifest
from edge_spine.engines import ENGINES, PRECISIONS, engine_problems, open_engine, select
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.openvino import OpenVinoEngine
from edge_spine.engines.quiet_import import import_onnxruntime
from edge_spine.engines.verification import read_references, verify
from edge_spine.errors import BundleError, EngineUnavailable, UsageError

ROOT = Path(__file__).resolve().parents[3]
IMAGE = np.zeros((1, 3, 224, 224), np.float32)
ENGINE_OF = {"onnx-cpu": OnnxEngine, "openvino": OpenVinoEngine}


@pytest.fixture
def bundle(fake_model: Path):
    return load_bundle(fake_model)


def has_openvino() -> bool:
    return engine_problems()["openvino"] is None


needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed here")


@pytest.fixture(params=["onnx-cpu", pytest.param("openvino", marks=needs_openvino)])
def processor(request) -> str:
    """Each engine that runs on the processor."""
    return request.param


def has_cuda() -> bool:
    return engine_problems()["onnx-cuda"] is None


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


def test_infer_gives_the_networks_answer_for_each_image(bundle, processor) -> None:
    _, outputs = read_references(bundle)
    with open_engine(bundle, processor, threads=1) as engine:
        assert (engine.name, engine.precision) == (processor, "float32")
        found = engine.infer(np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32))
    assert found.shape == (3, 1254) and found.dtype == np.float32
    assert np.abs(found - outputs[0]).max() < 1e-6


def test_images_that_are_not_contiguous_are_read_in_order(bundle, processor) -> None:
    with open_engine(bundle, processor) as engine:
        view = np.broadcast_to(np.float32(0.5), (2, 3, 224, 224))[::-1]
        assert engine.infer(view).shape == (2, 1254)


@pytest.mark.parametrize(
    "tensor",
    [
        IMAGE.astype(np.float64),
        IMAGE[0],
        IMAGE[:, :1],
        np.zeros((1, 3, 112, 112), np.float32),
        IMAGE[:0],
        IMAGE.tolist(),
    ],
    ids=["float64", "no batch", "one channel", "small", "empty", "list"],
)
def test_wrong_input_is_refused_before_inference(bundle, processor, tensor) -> None:
    with open_engine(bundle, processor) as engine, pytest.raises(UsageError, match=rf"^{processor}: input 'image'"):
        engine.infer(tensor)


def test_a_closed_engine_says_so(bundle, processor) -> None:
    engine = open_engine(bundle, processor)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.infer(IMAGE)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_make_sense(bundle, processor, threads) -> None:
    with pytest.raises(UsageError, match="whole number"):
        open_engine(bundle, processor, threads=threads)


def test_unknown_engines_are_wrong_usage(bundle) -> None:
    with pytest.raises(UsageError, match="'onnx' is none of auto, "):
        open_engine(bundle, "onnx")


def test_a_damaged_model_is_one_line(processor, capfd) -> None:
    for content in (b"", b"not a model", bytes(1000)):
        with pytest.raises(BundleError) as caught:
            ENGINE_OF[processor](content)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_with_other_ends_is_refused(bundle, processor) -> None:
    with pytest.raises(BundleError, match="inputs and outputs are"):
        ENGINE_OF[processor](bundle.read("localiser.onnx"))


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


@needs_openvino
def test_threads_of_a_process_share_one_openvino_engine(bundle) -> None:
    """A request of OpenVINO refuses a second caller; the engine makes it wait."""
    _, outputs = read_references(bundle)
    with open_engine(bundle, "openvino") as engine, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: engine.infer(IMAGE), range(64)))
    assert all(np.abs(answer - outputs[0]).max() < 1e-6 for answer in answers)


@needs_openvino
def test_openvino_computes_in_float32_what_is_not_int8() -> None:
    """Where the processor has bfloat16, OpenVINO's default would lose a third of a crop pixel at the end."""
    bundle = load_bundle()
    largest = {}
    for name in ("onnx-cpu", "openvino"):
        with open_engine(bundle, name) as engine:
            found = verify(bundle, engine)
        assert found.passed
        largest[name] = found.deviations[-1].max_mm
    # a third of a crop pixel is 0.7 mm
    assert largest["openvino"] < largest["onnx-cpu"] + 0.35


def test_a_provider_that_onnxruntime_replaces_is_an_error(bundle, monkeypatch) -> None:
    """ONNX Runtime starts on the processor when CUDA's libraries fail to load; nobody asked for that."""
    if has_cuda():
        pytest.skip("CUDA works here, so nothing is replaced")
    monkeypatch.setattr(onnx_engine, "runtime_with", lambda name: import_onnxruntime())
    with pytest.raises(EngineUnavailable, match="could not start CUDAExecutionProvider"):
        open_engine(bundle, "onnx-cuda")
    with open_engine(bundle, "auto") as engine:
        assert engine.name in ("onnx-cpu", "openvino")


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


@pytest.mark.skipif(sys.platform == "win32", reason="the home folder is found in another way there")
@pytest.mark.parametrize(
    "arguments", [["verify", "--engine", "onnx-cpu"], ["verify", "--engine", "openvino"], ["doctor"]]
)
def test_nothing_is_reported_or_kept_in_the_users_home(arguments: list[str], tmp_path: Path, fake_model: Path) -> None:
    """ONNX Runtime 1.32 and OpenVINO 2026.4 both start a file for their makers there when they are imported."""
    if "openvino" in arguments and not has_openvino():
        pytest.skip("openvino is not installed here")
    without = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CI"}
    surroundings = {name: value for name, value in os.environ.items() if name not in without}
    ended = subprocess.run(
        [sys.executable, "-m", "edge_spine", *arguments, "--model", str(fake_model)],
        env={**surroundings, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# --- processors without VNNI


class SaturatingEngine(OnnxEngine):
    """FAKE processor that cuts off INT8 sums unless told to be exact; the rest is the real engine."""

    cures: bool = True

    def __init__(self, *arguments, exact_integers: bool = False, **more) -> None:
        super().__init__(*arguments, exact_integers=exact_integers, **more)
        self.exact = exact_integers and self.cures

    def _infer_one(self, image):
        return super()._infer_one(image) + np.float32(0 if self.exact else 0.01)


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
    with open_engine(int8_bundle, "onnx-cpu") as engine:
        assert engine.exact and verify(int8_bundle, engine).passed
    assert "computing them exactly" in caplog.text


def test_a_processor_that_stays_wrong_is_refused(int8_bundle, monkeypatch) -> None:
    monkeypatch.setattr(SaturatingEngine, "cures", False)
    monkeypatch.setattr(onnx_engine, "OnnxEngine", SaturatingEngine)
    monkeypatch.setattr(select, "_may_saturate", lambda: True)
    with pytest.raises(EngineUnavailable, match="INT8 gives wrong results on this processor"):
        open_engine(int8_bundle, "onnx-cpu")


def test_openvino_that_is_wrong_is_refused_and_auto_goes_on(int8_bundle, monkeypatch) -> None:
    """FAKE processor whose sums are cut off in OpenVINO; there is no exact way there."""
    if not has_openvino():
        pytest.skip("openvino is not installed here")
    right = OpenVinoEngine._infer_one
    monkeypatch.setattr(OpenVinoEngine, "_infer_one", lambda self, image: right(self, image) + np.float32(0.01))
    monkeypatch.setattr(select, "_may_saturate", lambda: True)
    with pytest.raises(EngineUnavailable, match="use onnx-cpu"):
        open_engine(int8_bundle, "openvino")
    with open_engine(int8_bundle) as engine:
        assert engine.name == "onnx-cpu"


def test_a_processor_with_vnni_is_not_asked(int8_bundle, monkeypatch) -> None:
    monkeypatch.setattr(onnx_engine, "OnnxEngine", SaturatingEngine)
    monkeypatch.setattr(select, "_may_saturate", lambda: False)
    with open_engine(int8_bundle, "onnx-cpu") as engine:
        assert not engine.exact


def test_exact_sums_give_the_packaged_models_answers() -> None:
    """The real session with the real model: where VNNI is, both ways agree to rounding."""
    bundle = load_bundle()
    crops, _ = read_references(bundle)
    image = np.repeat(crops[0][None, None].astype(np.float32) / 255, 3, axis=1)
    answers = []
    for exact in (False, True):
        with OnnxEngine(bundle.read("model.int8.onnx"), exact_integers=exact) as engine:
            answers.append(engine.infer(image))
    assert np.abs(answers[0] - answers[1]).max() * 224 < 0.5


@pytest.mark.parametrize(("machine", "vnni", "asked"), [("x86_64", True, False), ("AMD64", False, True)])
def test_only_x86_without_vnni_may_saturate(monkeypatch, machine: str, vnni: bool, asked: bool) -> None:
    monkeypatch.setattr(select.platform, "machine", lambda: machine)
    monkeypatch.setattr(cv2, "checkHardwareSupport", lambda feature: vnni)
    assert select._may_saturate() is asked
    monkeypatch.setattr(select.platform, "machine", lambda: "aarch64")
    assert not select._may_saturate()


# --- precisions


def test_precisions_are_taken_or_refused(bundle) -> None:
    assert PRECISIONS == ("auto", "int8", "fp16", "fp32")
    with pytest.raises(UsageError, match="'int4' is none of auto, "):
        open_engine(bundle, precision="int4")
    with pytest.raises(UsageError, match="no float file"):
        open_engine(bundle, "onnx-cpu", precision="fp16")
