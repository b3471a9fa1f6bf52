"""Make folders and manifests of scans whose results are known, for `faults.py`."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from measuring import ROOT, SCAN

from edge_spine import SpineEstimator
from edge_spine.errors import EngineUnavailable
from edge_spine.reading.read import scan_from_bytes

# One process at a time works on a study, and shares the machine.
PATIENCE_S = 300.0
_KINDS = 3
_SCANS = 8
# SOP instance UID and largest Cobb angle of a result
Answer = tuple[str, float]


@dataclass
class Found:
    """Number of scans, of those kept with a reason in place of results, and what went wrong with the others."""

    tried: int = 0
    kept: int = 0
    losses: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@cache
def _pixels(kind: int) -> bytes:
    dataset = pydicom.dcmread(SCAN)
    return np.ascontiguousarray(np.roll(dataset.pixel_array, (4 * kind, 3 * kind), (0, 1))).tobytes()


def scan_bytes(uid: str, kind: int, **attributes: Any) -> bytes:
    """Return the bundled scan as DICOM bytes, shifted by `kind` steps and with the given SOP Instance UID."""
    dataset = pydicom.dcmread(SCAN)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.PixelData = _pixels(kind)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@cache
def angles(model: str) -> tuple[float, ...]:
    """Return the largest Cobb angle of each kind of scan, from one thread of ONNX Runtime."""
    with SpineEstimator("onnx-cpu", model, threads=1) as estimator:
        results = [estimator(scan_from_bytes(scan_bytes("2.25.1", kind), "scan.dcm")) for kind in range(_KINDS)]
    return tuple(result.measurements.max_cobb_deg for result in results)


def opened(engine: str, model: str) -> SpineEstimator:
    """Open an engine with one thread, in float32 where its INT8 is not accepted on this processor."""
    try:
        return SpineEstimator(engine, model, threads=1)
    except EngineUnavailable:
        return SpineEstimator(engine, model, threads=1, precision="fp32")


class Study:
    """Scans with known answers below a folder.

    Attributes
    ----------
    folder, inputs : Path
        Everything, and the scans in it.
    expected : dict
        SOP instance UID to largest Cobb angle.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.inputs, self.model = folder, folder / "in", model
        self.inputs.mkdir()
        self.expected: dict[str, float] = {}

    def _scan(self, chance: random.Random) -> tuple[str, bytes]:
        uid, kind = f"2.25.{1000 + len(self.expected)}", chance.randrange(_KINDS)
        self.expected[uid] = angles(self.model)[kind]
        return uid, scan_bytes(uid, kind)

    def write_files(self, chance: random.Random) -> list[Path]:
        """Write scans as plain files."""
        paths = []
        for number in range(_SCANS):
            uid, content = self._scan(chance)
            path = self.inputs / f"scan, {number}.dcm" if chance.random() < 0.3 else self.inputs / f"{uid}"
            path.write_bytes(content)
            paths.append(path)
        return paths

    def fill_folder(self, chance: random.Random) -> None:
        """Write scans into folders, zips and behind links, among other files and damaged scans."""
        outside, archive = self.folder / "outside", {}
        outside.mkdir()
        places = ["plain", "bare", "zip", *(("link", "bytes") if os.name != "nt" else ())]
        for number in range(_SCANS):
            uid, content = self._scan(chance)
            folder = self.inputs / f"sub-{number % 3}" / f"visit-{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            place = chance.choice(places)
            if place == "zip":
                archive[f"DICOM/CR.{uid}"] = content
            elif place == "link":
                (outside / uid).write_bytes(content)
                (folder / "11.dcm").unlink(missing_ok=True)
                (folder / f"{number}.dcm").symlink_to(outside / uid)
                (folder / f"again-{number}.dcm").symlink_to(outside / uid)
            else:
                name = f"{os.fsdecode(b'M' + bytes([252])) if place == 'bytes' else 'IM'}_{number}"
                (folder / f"{name}{'.dcm' if place == 'plain' else ''}").write_bytes(content)
        with zipfile.ZipFile(self.inputs / "study.zip", "w") as stream:
            for name, content in {**archive, "notes.txt": b"text"}.items():
                stream.writestr(name, content)
        (self.inputs / "cut.dcm").write_bytes(scan_bytes("2.25.1", 0)[: chance.randrange(200, 200_000)])
        (self.inputs / "result.json").write_text('{"bmd": 1.1}', encoding="utf-8")
        if os.name != "nt":
            (self.inputs / "round").symlink_to(self.inputs)
            (self.inputs / "gone.dcm").symlink_to(self.folder / "nowhere")
            os.mkfifo(self.inputs / "pipe.dcm")

    def write_manifest(self, chance: random.Random) -> Path:
        """Write scans and a manifest of them, of any make; its ids are the UIDs."""
        paths = self.write_files(chance)
        delimiter, quoting = chance.choice(",;\t|"), chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        manifest = self.folder / "list.csv"
        with manifest.open("w", encoding=chance.choice(("utf-8", "utf-8-sig", "utf-16")), newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=chance.choice("\r\n"))
            writer.writerow(("id", "note", "path"))
            for uid, path in zip(self.expected, paths, strict=True):
                writer.writerow((uid, f"a{delimiter} b", f"in/{path.name}"))
        return manifest

    def judge(self, answers: Iterable[Answer], found: Found) -> None:
        """Compare results with the known answers."""
        angle = dict[str, float]()
        counts = Counter[str]()
        for uid, cobb in answers:
            angle[uid] = cobb
            counts[uid] += 1
        found.tried += len(self.expected)
        found.losses += [f"{uid} has no result" for uid in self.expected if uid not in counts]
        found.duplicates += [f"{uid} has {count} results" for uid, count in counts.items() if count > 1]
        for uid, cobb in angle.items():
            # result.json holds three decimals
            if uid not in self.expected or abs(cobb - self.expected[uid]) > 0.001:
                found.wrong.append(f"{uid}: {cobb}, {self.expected.get(uid)} expected")


def start(study: Study, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [*(sys.executable, "-m", "edge_spine"), *map(str, arguments), "--model", study.model, "--engine", "onnx-cpu"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **{"stdout": subprocess.PIPE, **options},
    )


def ended(process: subprocess.Popen[bytes], statuses: set[int], what: str, found: Found) -> None:
    """Wait for a process, and note an end that is none of those expected."""
    if process.stdout is not None and process.stdout.closed:
        process.stdout = None
    try:
        _, complaint = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, complaint = process.communicate()
    if process.returncode not in statuses or b"Traceback" in complaint:
        last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
        found.losses.append(f"{what}: status {process.returncode}, {sorted(statuses)} expected: {last[0]}")


def answers_of(out: Path) -> list[Answer]:
    """Return the answers in a folder of results, of a cohort too."""
    if (out / "shards").is_dir():
        from edge_spine.cohort import read_cohort

        rows = read_cohort(out).select(["sop_instance_uid", "max_cobb_deg", "status"]).to_pylist()
        return [(row["sop_instance_uid"], row["max_cobb_deg"]) for row in rows if row["status"] == "done"]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.rglob("result.json"))]
    return [(found["scan"]["sop_instance_uid"], found["measurements"]["max_cobb_deg"]) for found in results]
