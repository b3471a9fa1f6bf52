"""The verb build, and the others with TensorRT, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.cli import main as cli
from edge_spine.engines.tensorrt import engine as tensorrt
from tests.edge_spine.engines.gpus import no_gpu


@no_gpu
@pytest.mark.parametrize(
    "arguments",
    [
        ("build",),
        ("build", "--precision", "fp16"),
        ("verify", "--engine", "tensorrt"),
        ("demo", "--engine", "tensorrt"),
    ],
)
def test_without_a_driver_it_is_one_clear_line(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--out", str(tmp_path)) if arguments[0] == "demo" else ()
    assert cli.main([*arguments, *more]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("edge-spine: tensorrt: ") and shown.err.count("\n") == 1
    assert "driver" in shown.err and "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (
            RuntimeError("the network could not be started on the GPU\nmore"),
            "it fails to start: RuntimeError: the network",
        ),
        (Exception("cuMemAlloc failed: out of memory"), "gpu-memory: the GPU ran out of memory (cuMemAlloc failed: "),
    ],
)
def test_a_library_that_fails_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception, line: str
) -> None:
    """A FAKE failure, of a type that is not ours."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(tensorrt, "ready_plan", fail)
    assert cli.main(["build"]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"edge-spine: tensorrt: {line}") and shown.err.count("\n") == 1 and shown.out == ""
