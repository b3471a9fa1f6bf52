"""Tables for statistics: measurements.csv of a cohort, and on request the participants of a BIDS data set."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_spine.cohort.manifest import Scan
from edge_spine.cohort.rows import LISTED, NUMBERS, TEXTS, Row
from edge_spine.cohort.shards import read_cohort
from edge_spine.csv_tables import RULE, cell, table
from edge_spine.errors import EdgeSpineError, UsageError, reason_of
from edge_spine.files import write_durably
from edge_spine.quantities import ERRORS, QUANTITIES
from edge_spine.reading.checks import storable
from edge_spine.result import NOTICE
from edge_spine.version import __version__

COLUMNS = {**TEXTS, **LISTED, **NUMBERS}
_UNITS = ("deg", "mm", "ml", "ms")
_MEASURED = [name for name in COLUMNS if name in (*LISTED, *QUANTITIES, *ERRORS) or name.startswith("largest_curve_")]
_PARTICIPANT = "participant_id"
_OF_PARTICIPANTS = {
    _PARTICIPANT: "The column participant_id of the manifest, else its id, in letters and digits",
    "scans": "Number of scans of the participant",
    "scans_done": "Number of these with a result; the measurements are there where it is 1",
}
_FILES = (
    *("measurements.csv", "measurements.json", "bids/participants.tsv", "bids/participants.json"),
    "bids/dataset_description.json",
)
_TAKEN = {*COLUMNS, *_OF_PARTICIPANTS} - {_PARTICIPANT}
Key = tuple[str, str]
_log = logging.getLogger(__name__)


def write_tables(folder: Path, scans: Sequence[Scan], *, bids: bool = False) -> None:
    """Write measurements.csv and its data dictionary, measurements.json, of the scans of a cohort.

    Results of scans that the manifest no longer names, or under another id, are left out and counted in the log.
    The manifest's own columns are copied; as ``manifest_NAME`` where the name is taken. With `bids`, also write bids/
    with participants.tsv, its data dictionary and dataset_description.json. Raise the errors of `participants`, and
    OSError where a file cannot be written.
    """
    labels = participants(scans) if bids else {}
    others = {_key(scan.id, scan.path): dict(scan.others) for scan in scans}
    carried = _carried(list(dict.fromkeys(name for columns in others.values() for name in columns)))
    rows, left_out = [], 0
    for row in read_cohort(folder, [*COLUMNS]).to_pylist():
        own = others.get(_key(row["id"], row["path"]))
        if own is None:
            left_out += 1
            continue
        rows.append({name: row.get(name) for name in COLUMNS} | {carried[name]: own[name] for name in own})
    if left_out:
        _log.warning("measurements.csv: %d rows of scans that the manifest does not name are left out", left_out)
    described = {name: _described(text, name) for name, text in COLUMNS.items()}
    of_manifest = {name: {"Description": "Column of the manifest", "Text": RULE} for name in carried.values()}
    write_durably(folder / "measurements.csv", table([*described, *of_manifest], rows))
    write_durably(folder / "measurements.json", _dictionary(described | of_manifest))
    if not bids:
        return
    (folder / "bids").mkdir(exist_ok=True)
    of_manifest.pop(_PARTICIPANT, None)
    columns = {name: _described(text, name) for name, text in _OF_PARTICIPANTS.items()} | of_manifest
    columns |= {name: described[name] for name in _MEASURED}
    people: dict[str, list[Row]] = {}
    for row in rows:
        if label := labels.get(_key(row["id"], row["path"])):
            people.setdefault(label, []).append(row)
    lines = [_participant(label, own, [*of_manifest]) for label, own in people.items()]
    write_durably(folder / "bids" / "participants.tsv", table([*columns], lines, "\t", "n/a"))
    write_durably(folder / "bids" / "participants.json", _dictionary(columns))
    about = {
        "Name": "Spine shape from DXA scans",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "edge-spine", "Version": __version__, "Description": NOTICE}],
    }
    write_durably(folder / "bids" / "dataset_description.json", _json(about))


def remove_tables(folder: Path) -> None:
    """Delete the tables, which a run that goes on makes stale.

    Raise EdgeSpineError where a file cannot be deleted, such as one that is open in a spreadsheet on Windows.
    """
    for name in _FILES:
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise EdgeSpineError(
                f"{name}: cannot be replaced ({reason_of(error)}); close it where it is open"
            ) from None


def participants(scans: Iterable[Scan]) -> dict[Key, str]:
    """Return the participant's BIDS label of each scan; raise UsageError where one is empty or not unique."""
    labels: dict[Key, str] = {}
    named: dict[str, str] = {}
    for scan in scans:
        name = dict(scan.others).get(_PARTICIPANT) or scan.id
        label = "sub-" + re.sub("[^0-9A-Za-z]", "", name.removeprefix("sub-"))
        if label == "sub-" or named.setdefault(label, name) != name:
            raise UsageError(
                f"--bids: {name!r} gives no unique label ({label}): BIDS labels have letters and digits only; give the "
                f"manifest a column {_PARTICIPANT}"
            )
        labels[_key(scan.id, scan.path)] = label
    return labels


def _carried(names: Sequence[str]) -> dict[str, str]:
    """Return what the manifest's columns are called in the tables, each by a name of its own."""
    carried = {name: name for name in names if name not in _TAKEN}
    for name in names:
        if name in _TAKEN:
            free = f"manifest_{name}"
            while free in carried.values():
                free = f"manifest_{free}"
            carried[name] = free
    return {name: carried[name] for name in names}


def _participant(label: str, rows: Sequence[Row], of_manifest: Sequence[str]) -> Row:
    done = [row for row in rows if row["status"] == "done"]
    line: Row = {_PARTICIPANT: label, "scans": len(rows), "scans_done": len(done)}
    # only values that all scans of the participant share
    line |= {name: rows[0].get(name) for name in of_manifest if len({row.get(name) for row in rows}) == 1}
    return line | ({name: done[0][name] for name in _MEASURED} if len(done) == 1 else {})


def _key(scan_id: str, path: str) -> Key:
    return storable(scan_id), storable(path)


def _described(text: str, name: str) -> dict[str, str]:
    unit = name.rpartition("_")[2]
    return {"Description": text} | ({"Units": unit} if unit in _UNITS else {"Text": RULE} if name in TEXTS else {})


def _dictionary(columns: Mapping[str, Mapping[str, str]]) -> bytes:
    return _json({cell(storable(name)): about for name, about in columns.items()})


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
