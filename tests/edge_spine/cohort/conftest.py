"""A cohort of copies of the bundled scan, one of them cut off, and what every run of it must have left."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pip install '.[batch]'")

from edge_spine.bundle import load_bundle
from edge_spine.cohort import read_cohort

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
        "import sys\nimport edge_spine.cohort.shards as shards\n"
        "if __name__ == '__main__':\n"
        f"    shards.ROWS_A_SHARD = 4\n    {before or 'pass'}\n"
        "    from edge_spine.cli.main import main\n    raise SystemExit(main(sys.argv[1:]))\n"
    )
    return [sys.executable, "-c", code, "batch", *OPTIONS, *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


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
