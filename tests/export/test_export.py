"""From weights to a bundle: one full-size export, its contents, and what must be refused."""

import json
import logging
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge_spine import SpineEstimator, read_scan
from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.verification import crop_tensor, read_references, verify
from edge_spine.errors import BundleError, UsageError
from export.__main__ import _companion, main
from export.bias_correction import correct_biases, rounded
from export.checkpoint import load_regressor
from export.gate import GateError, pass_gate, reference_outputs
from export.onnx_graph import GraphError, check_graph
from export.package import _write, build_bundle, find_card, read_card
from export.quantize import Recipe

ROOT = Path(__file__).resolve().parents[2]
DEMO_SCAN = files("edge_spine") / "data" / "synthetic_whole_body.dcm"


@pytest.fixture(scope="module")
def bundle(exported):
    assert exported.status == 0
    return load_bundle(exported.folder)


@pytest.mark.slow
def test_the_bundle_says_what_it_is(bundle, released):
    manifest = bundle.manifest
    assert (bundle.name, bundle.version) == ("test-spine", "0.0.1")
    assert bundle.read("card.md").decode("utf-8").startswith("# Model card: test-spine 0.0.1\n")
    assert sorted(manifest["files"]) == [
        "card.md",
        "levels.npz",
        "localiser.onnx",
        "model.fp16.onnx",
        "model.int8.onnx",
        "references.npz",
        "refinement.npz",
    ]
    assert manifest["training"] == "Random weights; nothing was trained."
    assert (manifest["checkpoint"]["file"], manifest["checkpoint"]["epoch"]) == (released.path.name, 12)
    assert manifest["calibration"]["crops"] == 4
    assert manifest["accuracy"]["passed"] is True
    assert sorted(manifest["forms"]) == ["fp16", "fp32", "int8-trt"]
    assert all(form["accuracy"]["passed"] for form in manifest["forms"].values())
    assert manifest["preprocessing"]["canonical_rows"] == 832
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted([*manifest["files"], "manifest.json"])
    assert [path.name for path in bundle.folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_the_graph_is_int8_where_it_should_be(bundle):
    graph = onnx.load_model_from_string(bundle.read("model.int8.onnx"))
    assert [(opset.version) for opset in graph.opset_import if opset.domain in ("", "ai.onnx")] == [17]
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    producers = {node.output[0]: node for node in graph.graph.node}
    kinds = Counter()
    for node in graph.graph.node:
        if node.op_type == "Conv":
            source = producers[node.input[1]]
            assert source.op_type == "DequantizeLinear"
            kinds[weights[source.input[0]].data_type] += 1
            channels = weights[source.input[0]].dims[0]
            assert list(weights[source.input[1]].dims) == [channels], "one scale per output channel"
    assert kinds == {onnx.TensorProto.INT8: 62}
    points = {weights[node.input[2]].data_type for node in graph.graph.node if node.op_type == "QuantizeLinear"}
    assert points == {onnx.TensorProto.UINT8}
    assert [node.op_type for node in graph.graph.node if "linear/Gemm" in node.name] == ["Gemm"]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)


@pytest.mark.slow
def test_int8_follows_the_network(bundle, released, crops):
    """Each crop moves the INT8 output as it moves PyTorch's: a constant would pass a loose tolerance.

    Judged by the published composition's own answers: nothing here can say whether curves are right.
    """
    expected = reference_outputs(released.network, crops.references)
    stored, outputs = read_references(bundle)
    assert np.array_equal(stored, crops.references)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-5)
    with open_engine(bundle, "onnx-cpu") as engine:
        found = np.concatenate([engine.infer(crop_tensor(crop)) for crop in crops.references])
        result = verify(bundle, engine)
    assert result.passed and result.references == len(crops.references)
    moved, wanted = (values - values.mean(axis=0) for values in (found, expected))
    assert np.corrcoef(moved.ravel(), wanted.ravel())[0, 1] > 0.9
    assert result.deviations[-1].mean_px == pytest.approx(np.abs(found - expected).mean() * 224, rel=1e-3)


@pytest.mark.slow
def test_a_released_checkpoint_becomes_a_bundle_that_runs(bundle, exported):
    said = exported.said.splitlines()
    assert said[0].startswith(
        "released.pt: released layout (PyTorch, a state dict under 'model_state_dict'), epoch 12, 380 tensors, "
    )
    assert "parameters, float32" in said[0]
    bundled = load_bundle()
    assert bundle.read("localiser.onnx") == bundled.read(bundled.file_with_role("localiser"))
    with SpineEstimator("onnx-cpu", bundle.folder) as estimator:
        result = estimator(read_scan(DEMO_SCAN))
    assert np.isfinite(result.curves.coronal).all() and result.band_90 is None


@pytest.mark.slow
def test_the_gate_refuses_a_network_that_strays(bundle, crops):
    model = bundle.read("model.int8.onnx")
    expected = read_references(bundle)[1]
    for shift in (np.float32(0.3 / 224), np.float32(np.nan)):
        with pytest.raises(GateError, match=r"^no bundle written: int8 differs") as caught:
            pass_gate(model, crops.references, expected + shift, precision="int8", model_pixel_mm=2.2)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_refused_bundle_leaves_the_old_one(exported, weights_file, card_file, monkeypatch, crops, tmp_path):
    old = tmp_path / "bundle"
    shutil.copytree(exported.folder, old)
    before = (old / "manifest.json").read_bytes()

    def strays(*_, **__):
        raise GateError("no bundle written")

    monkeypatch.setattr("export.package.pass_gate", strays)
    monkeypatch.setattr("export.package.export_graph", lambda _: onnx.ModelProto())
    monkeypatch.setattr("export.package.quantise", lambda *_: onnx.ModelProto())
    monkeypatch.setattr("export.package.narrowed", lambda _: b"")
    regressor, source = load_regressor(weights_file)
    with pytest.raises(GateError):
        build_bundle(
            regressor,
            old,
            card=read_card(card_file),
            source=source,
            calibration_crops=crops.calibration,
            reference_crops=crops.references,
            crops_from="blotches",
        )
    assert (old / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_writing_replaces_a_bundle_as_a_whole(exported, tmp_path):
    target = tmp_path / "bundle"
    shutil.copytree(exported.folder, target)
    manifest = (target / "manifest.json").read_bytes()
    contents = {path.name: path.read_bytes() for path in target.iterdir() if path.name != "manifest.json"}
    (target / "left-over.txt").write_text("of the old bundle")
    _write(target, contents, manifest)
    assert not (target / "left-over.txt").exists()
    load_bundle(target)
    with pytest.raises(BundleError):
        _write(target, {**contents, "references.npz": b"other"}, manifest)
    load_bundle(target)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_the_exported_graph_is_compared_with_the_network(exported, regressor):
    graph = exported.graph
    assert check_graph(graph, regressor) < 1e-5
    assert not [node for node in graph.graph.node if node.domain not in ("", "ai.onnx")]
    bias = next(tensor for tensor in graph.graph.initializer if tensor.name == "linear.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1000] += 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    with pytest.raises(GraphError, match="differs from PyTorch's by"):
        check_graph(graph, regressor)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--method", "minmax", "--float-parts", "tail"], 2, "'tail'"),
        (["--reference-count", "8"], 2, "8 crops, more than the 8 references"),
        (["--calibration-crops", "missing.npz"], 2, "missing.npz: not an archive"),
        (["--card", "missing.json"], 2, "missing.json: No such file"),
        (["--localiser", "missing.onnx"], 2, "missing.onnx: No such file"),
    ],
)
def test_wrong_usage_is_one_line(exported, weights_file, card_file, tmp_path, capsys, extra, status, message):
    arguments = [str(weights_file), "--out", str(tmp_path / "out"), "--card", str(card_file)]
    assert main([*arguments, "--calibration-crops", str(exported.archive), *extra]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_steps_are_announced_on_stderr(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.pt").write_bytes(b"")
    monkeypatch.setattr(logging.root, "handlers", [])
    assert main([str(tmp_path / "wrong.pt"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("export: reading wrong.pt\n")


@pytest.mark.slow
def test_a_checkpoint_that_is_none_exits_1(exported, card_file, tmp_path, capsys):
    wrong = tmp_path / "wrong.pt"
    torch.save({"fc.weight": torch.zeros(2)}, wrong)
    arguments = [str(wrong), "--out", str(tmp_path / "out"), "--card", str(card_file)]
    assert main([*arguments, "--calibration-crops", str(exported.archive), "--reference-count", "2"]) == 1
    assert "does not hold the weights" in capsys.readouterr().err


def test_the_files_that_go_with_the_network_can_be_chosen(tmp_path):
    (tmp_path / "finder.onnx").write_bytes(b"stands for the localiser: the export does not read it")
    assert _companion("localiser", tmp_path / "finder.onnx") == (tmp_path / "finder.onnx").read_bytes()


@pytest.mark.slow
def test_a_folder_with_other_things_is_never_replaced(exported, weights_file, card_file, tmp_path, capsys):
    (tmp_path / "thesis.docx").write_text("precious")
    arguments = [str(weights_file), "--out", str(tmp_path), "--card", str(card_file)]
    assert main([*arguments, "--calibration-crops", str(exported.archive), "--reference-count", "4"]) == 2
    assert "other things than a bundle" in capsys.readouterr().err
    assert (tmp_path / "thesis.docx").read_text() == "precious"


@pytest.mark.slow
def test_shared_crops_are_refused(weights_file, card_file, crops, tmp_path):
    regressor, source = load_regressor(weights_file)
    with pytest.raises(UsageError, match="1 reference crops are in the calibration set too"):
        build_bundle(
            regressor,
            tmp_path / "out",
            card=read_card(card_file),
            source=source,
            calibration_crops=crops.calibration,
            reference_crops=np.concatenate([crops.references, crops.calibration[:1]]),
            crops_from="blotches",
        )


def test_only_the_card_beside_them_speaks_for_weights(card_file, tmp_path):
    weights = tmp_path / "mine.safetensors"
    nobody = find_card(weights)
    assert (nobody.name, nobody.evaluation) == ("mine", {}) and nobody.training.startswith("Unknown")
    (tmp_path / "mine.card.json").write_bytes(card_file.read_bytes())
    assert find_card(weights) == read_card(card_file)


@pytest.mark.slow
def test_bands_belong_to_one_engine_and_a_fresh_bundle_has_none(bundle, capsys):
    assert "bands" not in bundle.manifest and bundle.bands is None
    with pytest.raises(SystemExit):
        main(["-h"])
    assert "a fresh bundle has none" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "message"), [("released", "a safetensors file"), ("own", "a PyTorch file")])
def test_the_layout_that_was_asked_for_is_demanded(released, weights_file, exported, tmp_path, capsys, layout, message):
    given = weights_file if layout == "released" else released.path
    arguments = [str(given), "--layout", layout, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--calibration-crops", str(exported.archive), "--reference-count", "4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"export: {given.name}: {message}; --layout {layout} expects") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"licence": ""}, {"training": None}, {"author": "x"}, {"evaluation": 3}])
def test_a_card_with_gaps_is_refused(card_file, tmp_path, change):
    path = tmp_path / "card.json"
    path.write_text(json.dumps({**json.loads(card_file.read_text(encoding="utf-8")), **change}))
    with pytest.raises(UsageError, match=r"^card\.json: "):
        read_card(path)


def test_recipes_name_what_exists():
    with pytest.raises(ValueError, match="'best' is none of"):
        Recipe(method="best")


@pytest.mark.parametrize("shape", [(16, 3, 7, 7), (8, 4, 3, 3), (4, 9, 1, 1)])
def test_errors_of_rounded_weights_cancel(shape):
    kernel = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kernel[1] = 0
    step = np.abs(kernel).max(axis=(1, 2, 3)) / 127
    found = rounded(kernel)
    np.testing.assert_allclose(rounded(found), found, atol=1e-6)
    assert (np.abs(found - kernel).max(axis=(1, 2, 3)) <= 1.001 * step).all()
    assert (np.abs((found - kernel).sum(axis=(2, 3))).max(axis=1) <= 0.501 * step).all()


def test_bias_correction_takes_out_the_mean_error(crops):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((8, 3, 1, 1)).astype(np.float32)
    kernel[3] = 0
    bias = rng.standard_normal(8).astype(np.float32)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "kernel", "bias"], ["out"], name="conv")],
        "one convolution",
        [info("image", onnx.TensorProto.FLOAT, (1, 3, 224, 224))],
        [info("out", onnx.TensorProto.FLOAT, (1, 8, 224, 224))],
        [onnx.numpy_helper.from_array(kernel, "kernel"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    corrected = correct_biases(model, crops.calibration)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in corrected.graph.initializer}
    assert sorted(tensors) == ["conv.corrected_bias", "conv.rounded_kernel"]
    np.testing.assert_array_equal(tensors["conv.rounded_kernel"], rounded(kernel))
    mean = crops.calibration.mean() / 255
    wanted = kernel.sum(axis=(1, 2, 3)) * mean + bias
    plain = rounded(kernel).sum(axis=(1, 2, 3)) * mean + bias
    found = rounded(kernel).sum(axis=(1, 2, 3)) * mean + tensors["conv.corrected_bias"]
    assert np.abs(plain - wanted).max() > 1e-3
    assert np.abs(found - wanted).max() < 1e-5
