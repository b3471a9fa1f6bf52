"""Align DXA scans with MRIs and write the pairs as training shards (Bourigault et al., MICCAI 2024).

`python -m export.training.alignment.align --list pairs.csv --out pairs` takes a CSV with the columns id, dxa,
dxa_mask, mri, mri_mask: a bone image that edge-spine reads, the mask of its spine (a PNG of the scan's size), an MRI
and the mask of its spine from T1 to L5 (NIfTI). It writes pairs/train, pairs/validation and pairs/test (80, 10 and 10
of 100, fixed by a hash of the id), pairs/pictures with a picture of each alignment, and pairs/report.json. A pair
that cannot be used is skipped with a message. Pairs that are already in a shard are kept. Then `python -m
export.training.train --pairs pairs --out run` trains on them; training never reads pairs/test.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.files import beside
from edge_spine.processors import usable_cores
from export.exit_status import refused
from export.training.alignment.nifti import as_orientation
from export.training.alignment.pairs import SPLITS, PairFiles, align_pair, read_list, split_of
from export.training.alignment.volume import PairSkipped
from export.training.dataset import PIXEL, Sample, load_shards, shard_path, write_shard
from export.training.processes import ordered_map

# An interrupted run loses samples that are not yet in a shard.
_SHARD = 50

_Spacing = tuple[float, float] | None


class PairShards:
    """Shards of the three splits, written incrementally."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: dict[str, list[tuple[str, Sample, float]]] = {split: [] for split in SPLITS}
        self.written: dict[str, list[str]] = {}
        for split in SPLITS:
            try:
                (folder / split).mkdir(parents=True, exist_ok=True)
                shards = load_shards(folder / split, fields=("id", PIXEL)).values()
            except (FileExistsError, NotADirectoryError):
                raise UsageError(f"{folder.name} is a file or holds one named {split}; a folder is expected") from None
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                reason = f"{type(error).__name__}; remove the damaged shard, and its pairs are aligned again"
                raise UsageError(f"the shards in {folder.name}/{split} cannot be read: {reason}") from None
            self.written[split] = [str(name) for shard in shards for name in shard["id"]]

    def __contains__(self, name: str) -> bool:
        return name in self.written[split_of(name)]

    def add(self, name: str, sample: Sample, model_pixel_mm: float) -> None:
        """Add a sample to the split of its id."""
        split = split_of(name)
        self.waiting[split].append((name, sample, model_pixel_mm))
        if len(self.waiting[split]) >= _SHARD:
            self._write(split)

    def close(self) -> None:
        """Write the waiting samples."""
        for split, waiting in self.waiting.items():
            if waiting:
                self._write(split)

    def _write(self, split: str) -> None:
        names, samples, sizes = zip(*self.waiting[split], strict=True)
        path = shard_path(self.folder / split, len(self.written[split]))
        write_shard(path, list(samples), **{"id": np.array(names), PIXEL: np.array(sizes)})
        self.written[split] += names
        self.waiting[split].clear()


def align_all(
    pairs: list[PairFiles],
    out: Path,
    spacing: _Spacing = None,
    workers: int = 1,
    orientation: str | None = None,
) -> list[dict[str, Any]]:
    """Align pairs; write shards, pictures and a report; return the report: one record per pair."""
    shards, report = PairShards(out), out / "report.json"
    (out / "pictures").mkdir(exist_ok=True)
    records = _known(report)
    for pair in pairs:
        if pair.id in shards and records.get(pair.id, {}).get("status") != "aligned":
            records[pair.id] = {**_unknown(pair.id), "status": "aligned", "code": None, "message": "of an earlier run"}
    jobs = [
        (pair, out / "pictures" / f"{pair.id}.png", spacing, orientation) for pair in pairs if pair.id not in shards
    ]
    try:
        with ordered_map(workers, lost=_lost) as mapped:
            for record, sample in mapped(_align_job, jobs):
                if sample is not None:
                    shards.add(record["id"], sample, record[PIXEL])
                records[record["id"]] = record
                print(_line(record), flush=True)
    finally:
        # also of an interrupted run, which goes on from here
        shards.close()
        counts = Counter(record["code"] or record["split"] for record in records.values())
        with beside(report) as partial:
            text = json.dumps({"counts": counts, "pairs": list(records.values())}, indent=1)
            partial.write_text(text, encoding="utf-8")
    return [records[pair.id] for pair in pairs]


def _known(report: Path) -> dict[str, dict[str, Any]]:
    """Return the records of an earlier run by id."""
    if not report.exists():
        return {}
    try:
        return {record["id"]: {**record} for record in json.loads(report.read_text(encoding="utf-8"))["pairs"]}
    except (OSError, ValueError, TypeError, KeyError):
        print("report.json cannot be read and is written anew", file=sys.stderr)
        return {}


def _unknown(name: str) -> dict[str, Any]:
    return {"id": name, "split": split_of(name), "status": "skipped"}


_Job = tuple[PairFiles, Path, _Spacing, str | None]


def _align_job(job: _Job) -> tuple[dict[str, Any], Sample | None]:
    pair, picture, spacing, orientation = job
    cv2.setNumThreads(1)
    try:
        aligned = align_pair(pair, spacing, orientation)
        picture.write_bytes(cv2.imencode(".png", aligned.picture)[1].tobytes())
    except PairSkipped as skipped:
        return {**_unknown(pair.id), "code": skipped.code, "message": skipped.message}, None
    except Exception as error:  # any: one pair never ends the run, and its files' contents stay out of the message
        message = f"not foreseen: {type(error).__name__}"
        return {**_unknown(pair.id), "code": "failed", "message": message}, None
    record = {**_unknown(pair.id), "status": "aligned", "code": None, "message": "", **aligned.record}
    return record, aligned.sample


def _lost(job: _Job) -> tuple[dict[str, Any], Sample | None]:
    message = "its process ended by itself, perhaps for lack of memory"
    return {**_unknown(job[0].id), "code": "failed", "message": message}, None


def _line(record: dict[str, Any]) -> str:
    if record["status"] == "skipped":
        return f"{record['id']}: skipped [{record['code']}]: {record['message']}"
    return (
        f"{record['id']}: aligned ({record['split']}), {record['placement_spine']['angle_deg']:+.2f} degrees, "
        f"images {record['image_correlation']:.3f}, spines {record['spine_correlation']:.3f}"
    )


def _given(options: argparse.Namespace) -> list[PairFiles]:
    if options.list is not None:
        return read_list(options.list)
    single = (options.dxa, options.dxa_mask, options.mri, options.mri_mask)
    if any(path is None for path in single):
        raise UsageError("give --list, or all of --dxa, --dxa-mask, --mri and --mri-mask")
    return [PairFiles(options.id, *single)]


def _spacing(text: str) -> tuple[float, float]:
    row, column = (float(part) for part in text.split(","))
    return row, column


def main(argv: Iterable[str] | None = None) -> int:
    """Align from the command line; return 0 if all are done, 1 if some were skipped, 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m export.training.alignment.align",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", type=Path, help="CSV of pairs; its paths are relative to its folder")
    parser.add_argument("--id", default="pair", help="id of a single pair (default: pair)")
    parser.add_argument("--dxa", type=Path, help="bone image of a single pair")
    parser.add_argument("--dxa-mask", type=Path, help="PNG of the scan's size, spine above 0")
    parser.add_argument("--mri", type=Path, help="NIfTI, neck to thigh")
    parser.add_argument("--mri-mask", type=Path, help="NIfTI, T1 to L5 above 0")
    parser.add_argument("--pixel-spacing", type=_spacing, metavar="ROW,COL", help="mm, for scans that state none")
    parser.add_argument(
        "--orientation",
        type=as_orientation,
        metavar="LPS",
        help="where the three axes of the voxels run to (left or right, posterior or anterior, superior or inferior) "
        "in NIfTI files that state no orientation; without it such a pair is skipped",
    )
    parser.add_argument("--out", type=Path, help="folder for shards, pictures and report.json")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: all cores)")
    options = parser.parse_args(None if argv is None else list(argv))
    try:
        if options.out is None:
            raise UsageError("give --out, the folder to write to")
        records = align_all(
            _given(options), options.out, options.pixel_spacing, max(1, options.workers), options.orientation
        )
    except (EdgeSpineError, OSError) as error:
        return refused("error", error)
    done = sum(record["status"] == "aligned" for record in records)
    print(f"{done} of {len(records)} pairs are in {options.out}, {len(records) - done} skipped")
    return 0 if done == len(records) else 1


if __name__ == "__main__":
    raise SystemExit(main())
