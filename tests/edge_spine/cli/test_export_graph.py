"""The verb export-graph: a graph that NVIDIA's own parser takes, or nothing."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.cli import main as cli
from edge_spine.engines import verification
from edge_spine.engines.forms import form_graph


@pytest.mark.slow
@pytest.mark.parametrize("form", ["int8-trt", "fp16", "fp32"])
def test_the_real_parser_takes_what_is_written(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "folder" / "spine.onnx"
    assert cli.main(["export-graph", "--model", "lite", "--form", form, "--json", str(file)]) == 0
    report = json.loads(capsys.readouterr().out)
    content = file.read_bytes()
    assert report["verification"]["passed"] and report["verification"]["references"] == 32
    assert (report["form"], report["file"]) == (form, str(file))
    assert report["sha256"] == hashlib.sha256(content).hexdigest()
    assert content == form_graph(load_bundle("lite"), form)
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux x86_64 only")
    logger = rtx.Logger(rtx.Logger.ERROR)
    network = rtx.Builder(logger).create_network(0)
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse_from_file(str(file)), [parser.get_error(index).desc() for index in range(parser.num_errors)]
    assert [network.get_input(0).name, network.get_output(0).name] == ["image", "curves"]
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    assert (rtx.LayerType.QUANTIZE in kinds) is (form == "int8-trt")


def test_a_graph_that_strays_is_not_written(
    fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = verification.outputs_of
    monkeypatch.setattr(verification, "outputs_of", lambda *given: right(*given) + np.float32(0.01))
    assert cli.main(["export-graph", "--model", str(fake_model), "--form", "fp32", str(tmp_path / "a.onnx")]) == 1
    assert "MISSED" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_a_package_it_is_one_line(
    fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["export-graph", "--model", str(fake_model), "--form", "fp32", str(tmp_path / "a.onnx")]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "pip install" in shown.err


def test_a_place_that_cannot_be_written_is_one_line(
    fake_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "a.onnx"
    assert cli.main(["export-graph", "--model", str(fake_model), "--form", "fp32", str(place)]) == 1
    shown = capsys.readouterr()
    assert "cannot be written" in shown.err and shown.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_table_that_cannot_be_printed_is_one_line(
    fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as disk:
        disk.setattr(sys, "stdout", full)
        assert cli.main(["export-graph", "--model", str(fake_model), "--form", "fp32", str(tmp_path / "a.onnx")]) == 1
    assert "stdout cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "folder"])
def test_a_folder_is_no_file(
    place: str, fake_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert cli.main(["export-graph", "--model", str(fake_model), "--form", "fp32", place]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == f"edge-spine: {place}: this is a folder; the name of a file is expected\n"
    assert [*(tmp_path / "folder").iterdir()] == []
