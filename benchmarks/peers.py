"""Compare the engines with other runtimes on the same images, and with the time of the matrix products alone.

`python benchmarks/peers.py [--runs 200] [--threads 2] [--model spine] [--json FILE]`: each peer runs in a process of
its own, so that threads of different libraries do not interfere, and they alternate, a few inferences at a time, so
that drift of the machine affects all equally. The output of each is compared with PyTorch float32 on the model's
references. The lower bound is the network's matrix products alone, in oneDNN. Peers that cannot run are listed with the
reason.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from contestants import EAGER, FLOOR, LITE, OURS, PEERS, WEIGHTS, Work, peer
from measuring import described, laid_out, machine, options_of, quantiles, ratio, verdicts, with_interval, write_json
from numpy.typing import NDArray

from edge_spine.processors import usable_cores

IN_A_ROW = 5
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "torch", "tensorrt", "pycuda")


def serve(name: str, work: Work, crops: NDArray[np.uint8], connection: Connection) -> None:
    """Run one peer: send its output for the references, then time inferences on request."""
    # Output of libraries must not mix with the table.
    warnings.simplefilter("ignore")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    from edge_spine.engines.verification import crop_tensor

    try:
        started = time.perf_counter()
        infer = peer(name, work)
        # those of a floor mean nothing, and are not compared
        answers = [infer(crop_tensor(crop)) for crop in (crops[:1] if name.startswith("floor") else crops)]
        connection.send((np.concatenate(answers), time.perf_counter() - started))
    except Exception as error:  # A peer that cannot run is a line of the table.
        connection.send(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:160])
        return
    image = crop_tensor(crops[0])
    while count := connection.recv():
        times = []
        # The first inference after another process has cold caches.
        infer(image)
        for _ in range(count):
            start = time.perf_counter()
            infer(image)
            times.append(1000 * (time.perf_counter() - start))
        connection.send(times)


def measure(work: Work, names: list[str], runs: int) -> list[dict[str, Any]]:
    """Start the peers, compare their outputs, time them alternately; return a row for each."""
    from edge_spine.bundle import load_bundle
    from edge_spine.engines.verification import compare, read_references

    bundle = load_bundle(work.model)
    crops, expected = read_references(bundle)
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, Any]] = []
    peers: dict[str, tuple[Any, Connection]] = {}
    for name in names:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(name, work, crops, there), daemon=True)
        process.start()
        there.close()
        row: dict[str, Any] = {"name": name}
        rows.append(row)
        try:
            said = here.recv()
        except EOFError:
            said = "its process ended"
        if isinstance(said, str):
            row["problem"] = said
            continue
        peers[name] = (process, here)
        row["ready_s"] = said[1]
        if name not in LITE and not name.startswith("floor"):
            precision = "int8" if "int8" in name.lower() else "fp32"
            found = compare(
                said[0], expected, engine=name, precision=precision, model_pixel_mm=bundle.nominal_model_pixel_mm
            )
            row |= {"accuracy": found.to_dict(), "passed": found.passed}
    times: dict[str, list[list[float]]] = {name: [] for name in peers}
    for turn in range(-(-runs // IN_A_ROW) + 1):
        for name in peers if turn % 2 else reversed(peers):
            peers[name][1].send(IN_A_ROW)
            times[name].append(peers[name][1].recv())
    for process, connection in peers.values():
        connection.send(0)
        process.join(10)
    # The first round is a warm-up.
    measured = {name: np.array(turns[1:]) for name, turns in times.items()}
    for row in rows:
        if row["name"] in measured:
            mine = measured[row["name"]]
            row["ms"] = quantiles(mine)
            row["ratios"] = {
                reference: ratio(mine, measured[reference]) for reference in (EAGER, FLOOR) if reference in measured
            }
            if EAGER in measured:
                row["times_eager"] = ratio(measured[EAGER], mine)
    best = fastest_of_ours(rows)
    for row in rows:
        if best is not None and "ms" in row:
            row["ratios"][best] = ratio(measured[row["name"]], measured[best])
        large = row["name"].replace("lite", "ours")
        if row["name"] in LITE and {row["name"], large} <= set(measured):
            row["times_large"] = ratio(measured[large], measured[row["name"]])
    return rows


def fastest_of_ours(rows: list[dict[str, Any]]) -> str | None:
    """Return the fastest engine of edge_spine within its tolerance."""
    able = [row for row in rows if row["name"] in OURS and row.get("passed") and "ms" in row]
    return min(able, key=lambda row: row["ms"]["p50"])["name"] if able else None


def judged(rows: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    """Return targets, measured values, and whether each is met."""
    by_name = {row["name"]: row for row in rows}
    best = fastest_of_ours(rows)
    if best is None:
        return []
    mine, found = by_name[best], []
    if "times_eager" in mine:
        eager = mine["times_eager"]
        found.append((f"{best} at least 5 times as fast as {EAGER}", with_interval(eager), eager["ratio"] >= 5))
    rivals = [row for row in rows if "ms" in row and row["name"] not in OURS and row.get("passed")]
    if rivals:
        rival = min(rivals, key=lambda row: row["ms"]["p50"])
        other = rival["ratios"][best]
        # Missed only if the whole interval is above 1.
        found.append((f"no slower than the fastest other, {rival['name']}", with_interval(other), other["high"] >= 1))
    if FLOOR in mine["ratios"]:
        floor = mine["ratios"][FLOOR]
        found.append(("at most 1.35 times the INT8 floor", with_interval(floor), floor["ratio"] <= 1.35))
    for row in rows:
        if "times_large" in row:
            large = row["times_large"]
            found.append((f"{row['name']} at least 4 times as fast as ours", with_interval(large), large["ratio"] >= 4))
    return found


def table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    head = (
        "",
        "ready s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "times eager",
        "times the INT8 floor",
        "mean mm",
        "p99 mm",
        "Cobb deg",
        "",
    )
    lines, missing = [], []
    for row in report["peers"]:
        if "ms" not in row:
            missing.append(f"{row['name']}: not run: {row['problem']}")
            continue
        cells = [row["name"], f"{row['ready_s']:.1f}", *(f"{row['ms'][key]:.2f}" for key in ("p50", "p90", "p99"))]
        cells.append(with_interval(row["times_eager"]) if "times_eager" in row else "")
        cells.append(with_interval(row["ratios"][FLOOR]) if FLOOR in row["ratios"] else "")
        if "accuracy" in row:
            whole, shape = row["accuracy"]["deviations"][-1], row["accuracy"]["shape"]
            cells += [f"{whole['mean_mm']:.3f}", f"{whole['p99_mm']:.3f}", f"{shape['cobb_deg']:.3f}" if shape else ""]
            cells.append("" if row["passed"] else "WRONG")
        else:
            cells += ["", "", "", ""]
        lines.append(cells)
    text = f"{report['model']}, {report['threads']} threads, {report['runs']} inferences of each, in turns\n"
    text += f"{described(report['machine'])}\n{laid_out(head, lines)}"
    return "\n".join([text, *missing]) + verdicts(report["targets"])


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; return 1 if an engine of edge_spine misses its tolerance."""
    parser = options_of(__doc__)
    parser.add_argument("--runs", type=int, default=200, help="inferences of each (default 200)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each peer (default: all cores)")
    parser.add_argument("--model", default="spine", help="spine, lite, or the folder of a bundle")
    parser.add_argument("--weights", type=Path, help="weights of the bundle (default: by its name)")
    parser.add_argument("--only", metavar="TEXT", action="append", help="only peers with this in their name; repeat")
    options = parser.parse_args(arguments)
    weights = options.weights or WEIGHTS.get(options.model)
    if weights is None:
        parser.error("--model FOLDER needs --weights, the file that the bundle was made from")
    names = [name for name in PEERS if not options.only or any(text in name for text in options.only)]
    if options.model != "spine":
        names = [name for name in names if name not in LITE]
    with tempfile.TemporaryDirectory() as folder:
        work = Work(options.model, weights, Path(folder), options.threads)
        work.prepare()
        rows = measure(work, names, options.runs)
    report = {
        "machine": machine(*PACKAGES),
        "model": options.model,
        "threads": options.threads,
        "runs": options.runs,
        "peers": rows,
        "targets": judged(rows),
    }
    print(table(report))
    write_json(options.json, report)
    return int(any(row["name"] in OURS and row.get("passed") is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
