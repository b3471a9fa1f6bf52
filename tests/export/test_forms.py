"""The forms beside the INT8 file, on spine-lite: how they are gated, and what stays in higher precision."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import onnx
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import INT8, INT8_TENSORRT, form_graph, narrowed
from edge_spine.engines.tensorrt.symmetric import quantised_readers, symmetric_graph
from edge_spine.engines.verification import compare, read_references
from export import forms
from export.forms import answers, choose_exact, gated_forms, summary
from export.gate import GateError
from export.studies import sensitivity

COUNT = 3


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("lite")


@pytest.fixture(scope="module")
def model(bundle) -> bytes:
    return form_graph(bundle, INT8)


@pytest.fixture(scope="module")
def all_references(bundle):
    """What the limits are for: a mean over a few crops strays further."""
    return read_references(bundle)


@pytest.fixture(scope="module")
def references(all_references):
    return tuple(part[:COUNT] for part in all_references)


@pytest.fixture(scope="module")
def plain(model) -> onnx.ModelProto:
    """The INT8 network's weights as a float32 graph."""
    return onnx.load_model_from_string(symmetric_graph(model, quantised_readers(symmetric_graph(model))))


def judge_of(expected):
    return partial(compare, expected=expected, engine="onnx graph", precision=INT8_TENSORRT, model_pixel_mm=2.2)


@pytest.fixture
def few(model, monkeypatch) -> list[str]:
    """The first and two late readers: the table of all of them takes minutes."""
    names = [quantised_readers(symmetric_graph(model))[place] for place in (0, -2, -1)]
    monkeypatch.setattr(forms, "quantised_readers", lambda graph: names)
    return names


@pytest.mark.slow
def test_nothing_is_left_out_where_all_is_well(model, references) -> None:
    crops, _ = references
    exact, found = choose_exact(model, crops, judge_of(answers(symmetric_graph(model), crops)))
    assert exact == [] and found.strain < forms.ROOM


@pytest.mark.slow
def test_what_costs_most_is_left_out_first(model, all_references, few, monkeypatch) -> None:
    crops, expected = all_references
    said: list[str] = []

    def judge(found):
        return judge_of(expected[: len(found)])(found)

    monkeypatch.setattr(forms, "ROOM", 0.0)
    monkeypatch.setattr(forms, "MOST_EXACT", 1)
    monkeypatch.setattr(forms, "RANKED_ON", COUNT)
    exact, found = choose_exact(model, crops, judge, said.append)
    assert len(said) == 3 and len(exact) == 1
    ranked = {name: judge(answers(symmetric_graph(model, [name]), crops[:COUNT])).strain for name in few}
    assert exact == [min(ranked, key=ranked.__getitem__)]
    assert found.strain == judge(answers(symmetric_graph(model, exact), crops)).strain


@pytest.mark.slow
def test_a_form_that_strays_is_refused(model, references, few) -> None:
    crops, expected = references
    with pytest.raises(GateError, match=r"^no bundle written: int8-trt differs from PyTorch float32 by .* Cobb"):
        gated_forms(model, None, crops, expected + np.float32(0.3 / 224), 2.2)


@pytest.mark.slow
def test_every_form_has_its_line_and_its_place(bundle, model, plain, all_references, monkeypatch) -> None:
    """The reference is the float32 graph here, so that float16 and float32 are judged by what they are made from."""
    crops, _ = all_references
    monkeypatch.setattr(forms, "ROOM", 1.0)
    monkeypatch.setattr(forms, "quantised_readers", lambda graph: bundle.exact_readers)
    expected = answers(plain.SerializeToString(), crops)
    half = narrowed(plain.SerializeToString())
    found, verifications = gated_forms(model, half, crops, expected, 2.2)
    assert [row.precision for row in verifications] == ["int8-trt", "fp16", "fp32"] == list(found)
    assert [form["derived"] for form in found.values()] == [True, False, True]
    assert found["int8-trt"]["exact"] == list(bundle.exact_readers)
    assert all(form["accuracy"]["passed"] for form in found.values())
    lines = summary(verifications).splitlines()
    assert len(lines) == 4 and all(line.endswith("passed") for line in lines[1:])
    strays = onnx.load_model_from_string(half)
    for tensor in strays.graph.initializer:
        if tensor.name == "linear.1.bias":
            values = onnx.numpy_helper.to_array(tensor) + np.float16(0.1 / 224)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(GateError, match=r"^no bundle written: fp16 differs"):
        gated_forms(model, strays.SerializeToString(), crops, expected, 2.2)


@pytest.mark.slow
def test_the_table_is_printed_by_one_command(bundle, few, tmp_path, capsys) -> None:
    report = tmp_path / "sensitivity.json"
    assert sensitivity.main(["--model", str(bundle.folder), "--count", "1", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "all quantised" in shown and all(name in shown for name in few)
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert sorted(figures["without"]) == sorted(few)
    assert figures["all quantised"]["references"] == 1
