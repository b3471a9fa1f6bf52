"""Look for scans that are lost, doubled or answered wrongly while threads share a model and files and shares fail.

`python benchmarks/faults.py [--minutes 10] [--model lite] [--seed 1] [--part PART] [--calls N] [--json FILE]` goes on
for a time with each part in turn, and prints three counts that must all be 0:

threads   2, 4 and 8 threads share one estimator, of each engine that runs here
run       folders with links, zips, names in other encodings and files that are no scans; stdout that is full or gone;
          hang-ups
batch     manifests of many makes, a share that is away at first, workers and whole runs that are killed
watch     files that arrive slowly and while the process is killed
node      associations that are aborted or cut, a node that is killed, an archive that is away (`node_faults.py`)

A loss is a scan without a result, an error where there was none to be expected, or a process that ended otherwise than
it should. A duplicate is a second result of a scan. An answer is wrong where it differs from that of one thread alone.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import SCAN, described, laid_out, machine, options_of, write_json
from trials import Found, Study, answers_of, ended, opened, start

from edge_spine import SpineEstimator, read_scan
from edge_spine.engines import engine_problems

_THREADS = (2, 4, 8)


def threads(seconds: float, model: str, chance: random.Random, found: Found, calls: int = 0) -> None:
    """Share an estimator of each engine among each number of threads, for a time and for a number of calls at least."""
    engines = [name for name, problem in engine_problems().items() if problem is None]
    each = seconds / (len(engines) * len(_THREADS))
    for engine in engines:
        with opened(engine, model) as estimator:
            for count in _THREADS:
                before = found.tried
                _share(estimator, engine, count, each, calls, chance, found)
                shown = estimator.model
                print(f"{shown['name']}, {engine} {shown['precision']}, {count} threads: {found.tried - before} calls")


def _share(
    estimator: SpineEstimator, engine: str, count: int, seconds: float, calls: int, chance: random.Random, found: Found
) -> None:
    scan = read_scan(SCAN)
    places = [(3 * number, 2 * number) for number in range(5)]
    scans = [replace(scan, pixels=np.ascontiguousarray(np.roll(scan.pixels, place, (0, 1)))) for place in places]

    def answer(number: int) -> bytes:
        curves = estimator(scans[number]).curves
        return curves.z.tobytes() + curves.coronal.tobytes() + curves.sagittal.tobytes()

    expected = [answer(number) for number in range(5)]
    deadline = time.monotonic() + seconds
    lock, begun = threading.Lock(), itertools.count()

    def work(numbers: random.Random) -> None:
        while next(begun) < calls or time.monotonic() < deadline:
            number = numbers.randrange(5)
            try:
                right = answer(number) == expected[number]
            except Exception as error:
                with lock:
                    found.losses.append(f"{engine}: {type(error).__name__}: {error}")
                return
            with lock:
                found.tried += 1
                if not right:
                    found.wrong.append(f"{engine}: scan {number}")

    workers = [threading.Thread(target=work, args=(random.Random(chance.random()),)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if [answer(number) for number in range(5)] != expected:
        found.wrong.append(f"{engine}: wrong afterwards")


def run(study: Study, chance: random.Random, found: Found) -> None:
    """Run once over a folder, with stdout and terminal as they can be."""
    study.fill_folder(chance)
    out = study.folder / "out"
    process = start(study, "run", study.inputs, "--out", out, "--write", "json")
    assert process.stdout is not None
    ending = chance.choice(("read", "gone", "hang-up"))
    if ending != "read":
        process.stdout.readline()
    if ending == "gone":
        process.stdout.close()
    if ending == "hang-up" and os.name != "nt":
        process.send_signal(signal.SIGHUP)
    # the damaged scans are refused
    ended(process, {1}, f"run, stdout {ending}", found)
    study.judge(answers_of(out), found)


def full(study: Study, chance: random.Random, found: Found) -> None:
    """Run once with a full disk behind stdout."""
    study.fill_folder(chance)
    out = study.folder / "out"
    with Path("/dev/full").open("wb") as nowhere:
        process = start(study, "run", study.inputs, "--out", out, "--write", "json", stdout=nowhere)
        ended(process, {1}, "run, stdout full", found)
    study.judge(answers_of(out), found)


def batch(study: Study, chance: random.Random, found: Found) -> None:
    """Run a manifest: first with the share away, then killed at any moment, then to the end."""
    manifest, out = study.write_manifest(chance), study.folder / "out"
    arguments = ("batch", manifest, "--out", out, "--workers", 2, "--retry-failed")
    away = study.inputs.with_name("away")
    study.inputs.rename(away)
    ended(start(study, *arguments), {1}, "batch, share away", found)
    away.rename(study.inputs)
    process = start(study, *arguments)
    time.sleep(chance.uniform(0, 6))
    process.kill()
    process.communicate()
    ended(start(study, *arguments), {0}, "batch", found)
    ended(start(study, *arguments), {0}, "batch, finished", found)
    study.judge(answers_of(out), found)


def watch(study: Study, chance: random.Random, found: Found) -> None:
    """Watch a folder into which files are copied slowly, with a process that is killed."""
    incoming, out = study.folder / "incoming", study.folder / "out"
    incoming.mkdir()
    arguments = ("watch", incoming, out, "--write", "json", "--poll", 0.1)
    process = start(study, *arguments)
    for path in study.write_files(chance):
        content = path.read_bytes()
        cut = chance.randrange(len(content))
        with (incoming / path.name).open("wb") as stream:
            stream.write(content[:cut])
            stream.flush()
            time.sleep(chance.uniform(0, 0.5))
            stream.write(content[cut:])
        if chance.random() < 0.2:
            process.kill()
            process.communicate()
            process = start(study, *arguments)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*/result.json"))) < len(study.expected) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.terminate()
    ended(process, {0, 143}, "watch", found)
    study.judge(answers_of(out), found)


ROUNDS: dict[str, tuple[Callable[[Study, random.Random, Found], None], ...]] = {
    "run": (run, full) if Path("/dev/full").exists() else (run,),
    "batch": (batch,),
    "watch": (watch,),
}


def search(part: str, seconds: float, model: str, seed: int, calls: int = 0) -> Found:
    """Go on with a part for a time, one round at least."""
    chance, found = random.Random(f"{seed}/{part}"), Found()
    if part == "threads":
        threads(seconds, model, chance, found, calls)
        return found
    if part == "node":
        from node_faults import node

        node(seconds, model, chance, found)
        return found
    deadline = time.monotonic() + seconds
    rounds = 0
    while not rounds or time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as folder:
            ROUNDS[part][rounds % len(ROUNDS[part])](Study(Path(folder), model), chance, found)
        rounds += 1
    return found


def main() -> int:
    """Print the table."""
    parts = ("threads", *ROUNDS, "node")
    parser = options_of(__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all parts together (default 10)")
    parser.add_argument("--model", default="lite", help="spine, lite, or a bundle's folder (default lite)")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--part", choices=parts, action="append", help="only this one; may be repeated")
    parser.add_argument("--calls", type=int, default=0, help="least for each engine and number of threads (default 0)")
    options = parser.parse_args()
    chosen = options.part or list(parts)
    each = 60 * options.minutes / len(chosen)
    found = {part: search(part, each, options.model, options.seed, options.calls) for part in chosen}
    here = machine("onnxruntime", "openvino", "pynetdicom")
    rows = [
        (part, one.tried, one.kept, len(one.losses), len(one.duplicates), len(one.wrong)) for part, one in found.items()
    ]
    print(f"{described(here)}\n{laid_out(('', 'scans', 'kept', 'losses', 'duplicates', 'wrong answers'), rows)}")
    for name, shown in (("losses", "losses"), ("duplicates", "duplicates"), ("wrong", "wrong answers")):
        lines = [f"{part}: {line}" for part, one in found.items() for line in getattr(one, name)]
        print("\n".join([f"{shown}: {len(lines)}", *lines[:20]]))
    write_json(options.json, {"machine": here, **{part: vars(one) for part, one in found.items()}})
    return 1 if any(sum(row[2:]) for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
