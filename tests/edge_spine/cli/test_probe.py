"""Optional packages that crash, hang or talk, in a process of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from edge_spine.cli import main as cli
from edge_spine.cli import probe as probes
from edge_spine.cli.doctor import as_text
from edge_spine.cli.probe import QUESTIONS, Crashed, probe


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FAKE openvino that prints something and then aborts its process, as a broken library does."""
    (tmp_path / "openvino.py").write_text(
        "import os, signal\nprint('loading')\nos.kill(os.getpid(), signal.SIGABRT)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "openvino", raising=False)


@pytest.mark.usefixtures("crashing")
@pytest.mark.slow
def test_a_crash_is_the_doctors_finding_and_not_its_end(fake_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--model", str(fake_model), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "openvino: it crashes its process (" in found["engines"]["openvino"]
    assert ("SIGABRT" in found["engines"]["openvino"]) or os.name == "nt"
    assert found["engines"]["onnx-cpu"] is None
    # auto would try openvino before onnx-cpu, and crash
    assert found["auto"] is None and found["usable"] is False
    assert "engine auto" in (shown := as_text(found)) and "use --engine onnx-cpu\n" in shown


@pytest.mark.slow
def test_answers_are_those_of_this_process(fake_model: Path) -> None:
    assert probe("engine", "onnx-cpu", str(fake_model), True) is None
    assert probe("providers") == QUESTIONS["providers"]()
    assert probe("gpu") == QUESTIONS["gpu"]()


def test_a_package_that_is_hidden_here_is_hidden_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install '.[cpu]'" in probe("engine", "onnx-cpu", None, False)
    assert probe("providers") == []


def test_what_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_PATIENCE_S", 0.01)
    with pytest.raises(Crashed, match=r"no answer within 0\.01 s"):
        probe("gpu")


def test_an_error_is_no_answer() -> None:
    with pytest.raises(Crashed, match="status 1"):
        probe("no such question")
