"""Faults that are injected into plans. A FAKE TensorRT runs the graph that a plan consists of in ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_spine.bundle import load_bundle
from edge_spine.cli import doctor, probe
from edge_spine.cli import main as cli
from edge_spine.engines import open_engine
from edge_spine.engines.forms import form_graph
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.tensorrt import engine as tensorrt
from edge_spine.engines.tensorrt import verdict
from edge_spine.engines.tensorrt.build import PlanRefused
from edge_spine.engines.tensorrt.plan_cache import PlanCache
from edge_spine.engines.verification import read_references
from edge_spine.errors import EngineUnavailable

pytest.importorskip("filelock")

MILLIMETRES = 224 * 2.2
FORMS = ("int8-trt", "fp16", "fp32")


class Remembering(OnnxEngine):
    """ONNX Runtime that computes each answer of a graph once, for all tests."""

    answers: ClassVar[dict[tuple[bytes, bytes], Any]] = {}

    def __init__(self, model: bytes, **options: Any) -> None:
        super().__init__(model, **options)
        graph = onnx.load_model_from_string(model)
        # the FAKE builder notes the block size there
        self.block = int(graph.doc_string) if graph.doc_string.isdigit() else 1
        self.model = hashlib.sha256(graph.graph.SerializeToString()).digest()

    def _infer_block(self, image):
        key = self.model, hashlib.sha256(image.tobytes()).digest()
        if key not in self.answers:
            self.answers[key] = super()._infer_block(image)
        return self.answers[key].copy()


class GraphEngine(Remembering):
    """FAKE TensorRT engine, whose plan is a graph that ONNX Runtime computes as it is written."""

    told: tuple[Any, ...] = ()
    row = scan = in_blocks = 0.0

    def __init__(self, plan: bytes, *, precision: str) -> None:
        super().__init__(plan, precision=precision, as_written=True)
        self.name, self.asked = "tensorrt", 0

    def _infer_block(self, image):
        if len(image) > 1:
            return np.concatenate([self._infer_block(each[None]) for each in image]) + self.in_blocks / MILLIMETRES
        curves = super()._infer_block(image).reshape(209, 6)
        curves[100] += self.row / MILLIMETRES
        if self.asked == 5:
            curves[:, 1] += self.scan / MILLIMETRES
        self.asked += 1
        return curves.reshape(1, -1)

    def layers(self) -> list[Any]:
        return list(self.told)


@pytest.fixture(scope="module")
def lite():
    return load_bundle("lite")


@pytest.fixture(scope="module")
def graphs(lite) -> dict[str, bytes]:
    return {form: form_graph(lite, form) for form in FORMS}


@pytest.fixture
def built(monkeypatch, tmp_path, fake_gpu) -> dict[str, Any]:
    """A FAKE GPU and a FAKE builder, whose plan is the graph, changed by a function."""
    state: dict[str, Any] = {"fault": lambda model: model, "builds": []}

    def build(trt: Any, model: bytes, form: str, *, block: int, **_: Any) -> tuple[bytes, bytes]:
        state["builds"].append(form)
        graph = onnx.load_model_from_string(state["fault"](model))
        graph.doc_string = str(block)
        return graph.SerializeToString(), b""

    monkeypatch.setenv("EDGE_SPINE_CACHE", str(tmp_path / "plans"))
    monkeypatch.setattr(tensorrt, "import_pycuda", lambda: None)
    monkeypatch.setattr(tensorrt, "free_memory", lambda integrated: 8 << 30)
    monkeypatch.setattr(tensorrt, "build_plan", build)
    monkeypatch.setattr(tensorrt, "TensorRTEngine", GraphEngine)
    monkeypatch.setattr(verdict, "OnnxEngine", Remembering)
    # the faults show on a few references
    monkeypatch.setattr(verdict, "read_references", lambda bundle: tuple(part[:8] for part in read_references(bundle)))
    return state


def changed(model: bytes, kind: str, place: int, factor: float) -> bytes:
    """Return the graph with one scale or one layer's weights multiplied."""
    graph = onnx.load_model_from_string(model)
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    if kind == "scale":
        names = [node.input[1] for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    else:
        names = [node.input[1] for node in graph.graph.node if node.op_type == "Conv" and node.input[1] in weights]
    tensor = weights[names[place]]
    value = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((value * value.dtype.type(factor)).astype(value.dtype), tensor.name))
    return graph.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_plan_that_computes_its_graph_passes_once(lite, built, form: str) -> None:
    plan, found = tensorrt.ready_plan(lite, form)
    assert found["passed"] and found["problems"] == [] and found["graph"]["deviations"][2]["max_mm"] == 0
    assert (found["quantisation_share"] == 1) if form == "int8-trt" else (found["quantisation_share"] is None)
    assert found["driver"] and found["power"] and found["tactics"] is None
    assert verdict.in_words(found).startswith("passed")
    assert tensorrt.kept_verdict(lite, form) == found
    assert tensorrt.ready_plan(lite, form) == (plan, found) and built["builds"] == [form]


def with_other_sums(model: bytes, share: float) -> bytes:
    """Return the graph with the sums of every convolution larger by a share of them, as in another order of adding."""
    graph = onnx.load_model_from_string(model)
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(1 + share), "share"))
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    for node in nodes:
        output = node.output[0]
        if node.op_type == "Conv":
            node.output[0] = f"{output}.sum"
        graph.graph.node.append(node)
        if node.op_type == "Conv":
            graph.graph.node.append(onnx.helper.make_node("Mul", [node.output[0], "share"], [output]))
    return graph.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spine", "lite"])
def test_a_plan_that_adds_in_another_order_passes(name: str) -> None:
    """Of each packaged model, on all references: roundings to INT8 that turn out otherwise move the curves."""
    bundle = load_bundle(name)
    model = form_graph(bundle, "int8-trt")
    engine = GraphEngine(with_other_sums(model, 1e-6), precision="int8")
    found = verdict.judge(bundle, "int8-trt", model, engine, [])
    assert found["problems"] == [] and found["graph"]["deviations"][2]["mean_mm"] > 0


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", [{"row": 10.0}, {"scan": 12.0}], ids=["row", "scan"])
def test_a_row_or_a_scan_that_is_off_is_refused(lite, built, monkeypatch, form: str, fault: dict[str, float]) -> None:
    for name, millimetres in fault.items():
        monkeypatch.setattr(GraphEngine, name, millimetres)
    with pytest.raises(PlanRefused, match="did not pass: it differs from"):
        tensorrt.ready_plan(lite, form)
    # it is refused again without another build
    with pytest.raises(PlanRefused):
        tensorrt.ready_plan(lite, form)
    assert built["builds"] == [form]
    assert tensorrt.kept_verdict(lite, form)["passed"] is False


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "kind", "place", "factor"),
    [
        ("int8-trt", "scale", 0, 4),
        ("int8-trt", "scale", 9, 0.5),
        ("int8-trt", "scale", 25, 0.5),
        ("fp16", "weights", 0, 4),
        ("fp16", "weights", 9, 0.5),
        ("fp16", "weights", 25, 0.5),
        ("fp32", "weights", 0, 4),
        ("fp32", "weights", 9, 0.5),
        ("fp32", "weights", 25, 0.5),
    ],
)
def test_a_wrong_scale_of_one_layer_is_refused(lite, built, form: str, kind: str, place: int, factor: float) -> None:
    built["fault"] = lambda model: changed(model, kind, place, factor)
    with pytest.raises(PlanRefused, match="did not pass"):
        tensorrt.ready_plan(lite, form)


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.slow
def test_blocks_are_judged_too_and_kept_where_they_are_faster(lite, built, monkeypatch, capsys) -> None:
    """A FAKE engine and FAKE times: the fastest size that passes is kept, if it gains a tenth."""
    rates = {1: (100.0, 100.0), 4: (95.0, 200.0), 5: (100.0, 105.0), 6: (50.0, 900.0), 8: (95.0, 300.0)}
    monkeypatch.setattr(tensorrt, "_images_per_second", lambda engine: rates[engine.block])
    assert tensorrt.fastest_block(lite, "int8-trt", [5, 6])["block"] == 1, "too little gain; single scans slower"
    assert tensorrt.fastest_block(lite, "int8-trt", [4, 8]) == {
        "block": 8,
        "single": 100.0,
        "sizes": {
            "4": {"images_per_second": 200.0, "one_by_one": 95.0},
            "8": {"images_per_second": 300.0, "one_by_one": 95.0},
        },
    }
    assert cli.main(["build", "--model", "lite", "--blocks", "4,8"]) == 0
    assert "kept for cohorts: blocks of 8; single scans: 100.0 a second\nblocks of 4: 200.0" in capsys.readouterr().out
    assert cli.main(["build", "--model", "lite", "--blocks", "1"]) == 2
    _, found = tensorrt.ready_plan(lite)
    assert found["block"] == 8 and found["in_blocks"]["passed"] and "blocks of 8" in verdict.in_words(found)
    assert tensorrt.kept_verdict(lite, "int8-trt") == found
    monkeypatch.setattr(GraphEngine, "in_blocks", 2.0)
    chosen = tensorrt.fastest_block(lite, "int8-trt", [8], fresh=True)
    assert chosen["block"] == 1 and "in blocks of 8 it differs from" in chosen["sizes"]["8"]["problem"]
    assert tensorrt.ready_plan(lite)[1]["block"] == 1, "single scans pass"


def test_blocks_are_timed_against_single_images(monkeypatch) -> None:
    """A FAKE engine that takes as long for a block as for an image, by a FAKE clock."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(tensorrt, "time", clock)
    engine = SimpleNamespace(block=8, infer=lambda images: vars(clock).update(now=clock.now + 0.002))
    assert tensorrt._images_per_second(engine) == pytest.approx((500, 4000))


@pytest.mark.hazard("computes-wrongly")
@pytest.mark.slow
@pytest.mark.parametrize("told", [False, True])
def test_float16_under_the_name_of_int8_is_refused(lite, built, graphs, monkeypatch, told: bool) -> None:
    built["fault"] = lambda model: graphs["fp16"]
    if told:
        monkeypatch.setattr(GraphEngine, "told", (layer("Half"),) * 30)
    with pytest.raises(PlanRefused) as caught:
        tensorrt.ready_plan(lite, "int8-trt")
    assert ("only 0 of 30 convolutions read INT8" if told else "it repeats 0.") in str(caught.value)
    assert verdict.GRAPH in str(caught.value)


@pytest.mark.slow
def test_auto_takes_float16_where_int8_does_not_pass(lite, built, monkeypatch, caplog) -> None:
    built["fault"] = lambda model: changed(model, "scale", 0, 4) if built["builds"] == ["int8-trt"] else model
    monkeypatch.setattr(tensorrt, "require_tensorrt", lambda: None)
    with open_engine(lite) as engine:
        assert (engine.name, engine.precision) == ("tensorrt", "fp16")
    assert built["builds"] == ["int8-trt", "fp16"] and "trying fp16" in caplog.text
    monkeypatch.setattr(GraphEngine, "row", 10.0)
    for path in PlanCache().folder.glob("*.verdict"):
        path.unlink()
    with open_engine(lite) as engine:
        assert engine.name != "tensorrt"
    with pytest.raises(EngineUnavailable, match="did not pass"):
        open_engine(lite, "tensorrt")


@pytest.mark.slow
def test_build_verify_and_doctor_say_what_was_found(built, monkeypatch, capsys) -> None:
    monkeypatch.setattr(tensorrt, "require_tensorrt", lambda: None)
    # the FAKES are in this process
    monkeypatch.setattr(doctor, "probe", lambda question, *arguments: probe.QUESTIONS[question](*arguments))
    assert cli.main(["build", "--model", "lite"]) == 0
    assert ", which passed, repeats 1.00 of the INT8 graph's rounding, without a CUDA graph" in capsys.readouterr().out
    assert cli.main(["verify", "--model", "lite", "--engine", "tensorrt"]) == 0
    assert "plan when it was built: passed, " in capsys.readouterr().out
    assert cli.main(["doctor", "--model", "lite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auto"] == "tensorrt" and found["plans"]["verdicts"]["fp16"] == "not built"
    assert found["plans"]["verdicts"]["int8-trt"].startswith("passed")
    assert found["plans"]["graph"] == {"int8-trt": False}
    monkeypatch.setattr(GraphEngine, "row", 10.0)
    for form in ("int8", "fp16"):
        assert cli.main(["build", "--model", "lite", "--force", "--precision", form]) == 1
        shown = capsys.readouterr()
        assert "did not pass" in shown.err and shown.out == ""
    assert cli.main(["doctor", "--model", "lite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auto"] != "tensorrt" and "did not pass" in found["engines"]["tensorrt"]


def layer(kind: str, name: str = "conv", tactic: str = "0x1") -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": f"Row major {kind} format"}],
        "TacticName": tactic,
    }


# FAKE layers in the forms of NVIDIA's documentation: the type in words up to 10, apart from 11 on, in the tactic alone
INT8_FORMS = {
    "8.6": {
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
        "ParameterType": "Convolution",
        "Metadata": "[ONNX Layer: conv]\x1e",
    },
    "10": {"LayerType": "conv", "Inputs": [{"Format/Datatype": "Int8"}, {"Format/Datatype": "Half"}]},
    "11": {"LayerType": "CaskConvolution", "Inputs": [{"Format": "Row major linear (kLINEAR)", "DataType": "Int8"}]},
    "tactic": {"LayerType": "fusion", "TacticName": "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_nchw"},
}


@pytest.mark.parametrize("version", INT8_FORMS)
def test_every_form_of_the_inspector_tells_int8(version: str) -> None:
    integer = INT8_FORMS[version]
    half = json.loads(json.dumps(integer).replace("Int8", "Half").replace("i8i8_i8i32", "f16f16_f16f32"))
    assert verdict.integer_layers([integer] * 12 + [half] * 3) == (12, 15)
    other = {"LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Int8", "DataType": "Int8"}]}
    assert verdict.integer_layers([half] * 12 + [other] * 9) == (0, 12)
    assert verdict.integer_layers([integer] * 9) is None, "too few to tell"


def test_names_alone_tell_no_precision() -> None:
    assert verdict.integer_layers(["conv1 + relu", "conv2"] * 20) is None
    assert verdict.integer_layers([{"LayerType": "CaskConvolution", "TacticName": "0x1"}] * 20) is None
    assert verdict.integer_layers([{"LayerType": "CaskConvolution", "Inputs": None}] * 20) is None
    assert verdict.integer_layers([]) is None


def test_the_hash_is_that_of_the_tactics() -> None:
    hashed = verdict.tactics_hash([layer("Int8")])
    assert hashed == verdict.tactics_hash([layer("Int8")]) != verdict.tactics_hash([layer("Int8", tactic="0x2")])
    assert verdict.tactics_hash([]) is None and verdict.tactics_hash(["conv1"])


def test_the_share_is_1_for_the_graph_and_0_for_floats() -> None:
    rng = np.random.default_rng(1)
    expected, noise = rng.random((4, 1254), dtype=np.float32), rng.normal(0, 1e-3, (4, 1254)).astype(np.float32)
    assert verdict.quantisation_share(expected + noise, expected + noise, expected) == pytest.approx(1)
    assert verdict.quantisation_share(expected, expected + noise, expected) == 0
    assert verdict.quantisation_share(expected, expected, expected) == 1


@pytest.mark.hazard("foreign-plan")
def test_a_verdict_belongs_to_one_plan(tmp_path) -> None:
    cache = PlanCache(tmp_path / "cache")
    cache.load_or_build("plan", {}, lambda: b"FAKE plan")
    assert cache.verdict("plan", b"FAKE plan") is None
    cache.keep_verdict("plan", b"FAKE plan", {"passed": True})
    assert cache.verdict("plan", b"FAKE plan") == {"passed": True}
    assert cache.verdict("plan", b"FAKE other") is None
    (path,) = cache.folder.glob("*.verdict")
    path.write_bytes(path.read_bytes().replace(b"true", b"null"))
    assert cache.verdict("plan", b"FAKE plan") is None
    cache.load_or_build("plan", {}, lambda: b"FAKE new", fresh=True)
    assert list(cache.folder.glob("*.verdict")) == []
