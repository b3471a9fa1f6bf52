"""Fail where a stage of the runtime costs more than 15 % above the baseline in guard.json.

`python benchmarks/guard.py [--update] [--json FILE]`; `tests/benchmarks/test_guard.py` runs it too. For each stage of
one scan, without the network and the localiser's, three figures are compared:

- time: processor time divided by that of the baseline's commit, both measured here and now in processes that take turns
  (against.py). No time is stored, since that of the same code differs by a third between machines of one name.
- calls: number of Python and C function calls; deterministic.
- peak, KB: peak memory as measured by tracemalloc; deterministic.

Calls and peak are compared if system and the minor versions of Python, NumPy, OpenCV and pydicom are those of the
baseline. Times are compared if this clone has the baseline's commit; one made with `--depth` may lack it. `--update`
makes the current commit the baseline, after a change that is meant to cost more.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import against
from measuring import ROOT, laid_out, machine, options_of, write_json
from stages import NAMES, Work, stages

BASELINE = Path(__file__).with_name("guard.json")
LOSS = 0.15
ROUNDS, ATTEMPTS = 12, 3


def calls_of(work: Work) -> int:
    """Return the number of function calls of a workload."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def peak_of(work: Work) -> float:
    """Return the peak memory of a workload, KB."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return (tracemalloc.get_traced_memory()[1] - before) / 1000
    finally:
        tracemalloc.stop()


def counted() -> dict[str, Any]:
    """Return system, versions and commit of this clone, and the calls and the peak memory of each stage."""
    here, works = machine("pydicom"), stages()
    for work in 3 * list(works.values()):
        work()
    minor = {name: ".".join(version.split(".")[:2]) for name, version in sorted(here["versions"].items())}
    return {
        "made_on": {
            "system": here["system"],
            "versions": {"python": ".".join(platform.python_version_tuple()[:2]), **minor},
        },
        "commit": here["commit"],
        "stages": {name: {"calls": calls_of(work), "peak_kb": round(peak_of(work), 1)} for name, work in works.items()},
    }


def package_of(commit: str, folder: Path) -> bool:
    """Unpack the runtime of a commit into a folder; return False if this is no clone or lacks the commit."""
    try:
        packed = subprocess.run(
            ["git", "archive", "--format=zip", commit, "edge_spine"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    with zipfile.ZipFile(io.BytesIO(packed.stdout)) as package:
        package.extractall(folder)
    return True


def is_committed() -> bool:
    """Return whether git knows this folder and edge_spine/ has no uncommitted changes."""
    try:
        command = ["git", "status", "--porcelain", "edge_spine"]
        return not subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False


def times_over(commit: str, slower: str = "") -> dict[str, Any]:
    """Return `against.compare` with a commit, repeated while a stage exceeds the limit; empty without the commit.

    With `slower`, that stage is slowed, and is the only one that is compared.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if not package_of(commit, Path(folder)):
            return found
        waiting: tuple[str, ...] = (slower,) if slower else NAMES
        for _ in range(ATTEMPTS):
            found |= against.compare(Path(folder), ROUNDS, waiting, slower)
            waiting = tuple(name for name in waiting if found[name]["here_over_other"]["ratio"] > 1 + LOSS)
            if not waiting:
                break
    return found


def losses(found: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the name and the growth of each figure that exceeds the baseline by more than `LOSS`."""
    grown = {f"{stage}, time": times["here_over_other"]["ratio"] for stage, times in found["times"].items()}
    if found["made_on"] == baseline["made_on"]:
        for stage in NAMES:
            for figure, before in baseline["stages"][stage].items():
                grown[f"{stage}, {figure}"] = found["stages"][stage][figure] / before
    return [(name, growth - 1) for name, growth in grown.items() if growth > 1 + LOSS]


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return 1 on a regression."""
    parser = options_of(__doc__)
    parser.add_argument("--update", action="store_true", help="make the current commit the baseline")
    parser.add_argument("--slower", choices=NAMES, default="", help="slow a stage by 30 %%, to test the check")
    options = parser.parse_args(arguments)
    found = counted()
    if options.update:
        if not is_committed():
            parser.error("--update needs a clone whose edge_spine/ is committed: its commit becomes the baseline")
        write_json(BASELINE, found)
        print(f"{BASELINE.name} now holds the figures of commit {found['commit']}")
        return 0
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))
    found["times"] = times_over(baseline["commit"], options.slower)
    lost = losses(found, baseline)
    write_json(options.json, {**found, "lost": [name for name, _ in lost]})
    rows = [(name, *(found["stages"][name][figure] for figure in ("calls", "peak_kb"))) for name in NAMES]
    print(laid_out(("stage", "calls", "peak, KB"), rows) + "\n\n" + against.table(found["times"]))
    if found["made_on"] != baseline["made_on"]:
        print("\nthe baseline is of another system or other versions, so calls and peak are not compared")
    if not found["times"]:
        print("\nthis clone lacks the baseline's commit, so times are not compared")
    for name, growth in lost:
        print(f"\n{name}: LOST {growth:.0%}, at most {LOSS:.0%}")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
