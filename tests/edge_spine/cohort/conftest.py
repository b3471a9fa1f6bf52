"""A cohort of copies of the bundled scan, one of them cut off, and what every run of it must have left."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pip install '.[batch]'")

from edge_spine.bundle import load_bundle
from edge_spine.cohort import SpineBatch, read_cohort
from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.workers import Finished, Workers
from tests.edge_spine.cli.running import Ended, called

ROOT = Path(__file__).resolve().parents[3]
BUNDLED = ROOT / "edge_spine/data/synthetic_whole_body.dcm"
CUT_OFF = "scan-07.dcm"
NOTE = {"model_sha256": "FAKE"}
# of rows that the packaged model has computed
LITE_NOTE = {"model_sha256": load_bundle("lite").sha256}
OPTIONS = ("--model", "lite", "--engine", "onnx-cpu")


def command(*arguments: object, before: str = "") -> list[str]:
    """The command line in a process of its own, with small shards, so that a short run writes several."""
    code = (
        "import signal\nimport sys\nimport edge_spine.cohort.shards as shards\n"
        "if __name__ == '__main__':\n"
        # what a shell runs in the background ignores SIGINT, and so would what it starts
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    shards.ROWS_A_SHARD = 4\n    {before or 'pass'}\n"
        "    from edge_spine.cli.main import main\n    raise SystemExit(main(sys.argv[1:]))\n"
    )
    return [sys.executable, "-c", code, "batch", *OPTIONS, *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


class Here(Workers):
    """One worker in this process, which loads the model once for all runs."""

    def __init__(self, batch: SpineBatch, _count: int | None) -> None:
        self.count, self._batch = 1, batch
        self._queue: list[tuple[Scan, ...]] = []

    def submit(self, scans: tuple[Scan, ...]) -> None:
        self._queue.append(scans)

    def wait(self, seconds: float) -> list[Finished]:
        scans = self._queue.pop(0)
        return [Finished(scans, self._batch.rows(scans))]

    def close(self) -> None:
        pass


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run the command as `run` does, without another process: for tests of what a run does with earlier results."""
    monkeypatch.setattr("edge_spine.cohort.run.ProcessPool", Here)
    return lambda *arguments: called("batch", *OPTIONS, *arguments)


def make_cohort(folder: Path, count: int) -> Path:
    """Write `count` scans, of which one is cut off, and a CSV manifest of them; returns the manifest."""
    whole = BUNDLED.read_bytes()
    lines = ["id,path,arm"]
    for number in range(count):
        name = f"scan-{number:02}.dcm"
        (folder / name).write_bytes(whole[:3000] if name == CUT_OFF else whole)
        lines.append(f"P{number:02},{name},a")
    manifest = folder / "cohort.csv"
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def check_whole(out: Path, count: int) -> None:
    """Each scan has one row, the cut-off one is refused by its code, all others are done."""
    table = read_cohort(out)
    rows = table.select(["id", "status", "code"]).to_pylist()
    assert Counter(row["id"] for row in rows) == {f"P{number:02}": 1 for number in range(count)}
    ends = Counter((row["status"], row["code"]) for row in rows)
    assert ends == {("done", None): count - 1, ("refused", "unreadable"): 1}
    assert not [path.name for path in out.rglob("*") if "part" in path.suffix]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return make_cohort(folder, 24)
