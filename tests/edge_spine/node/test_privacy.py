"""No patient in anything that a full run leaves behind or says, but in the DICOM objects that belong to the patient."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")
pytest.importorskip("highdicom", reason="pip install '.[node]'")

from tests.edge_spine.node.running import RunningNode, archive, scan_file, wait_for

MakeDicom = Callable[..., bytes]
PLANTED = {
    "PatientName": "Zyzzyva^Quondam",
    "PatientID": "QX-7741-PLANTED",
    "PatientBirthDate": "19190203",
    "AccessionNumber": "ACC88217PLANT",
    "ReferringPhysicianName": "Wrzesnie^Doktor",
    "OtherPatientIDs": "OTHER5521PLANT",
    "StudyDescription": "Zyzzyva study",
}
# family and given name count alone, too
WORDS = [word.encode() for value in PLANTED.values() for word in value.replace("^", " ").split() if len(word) > 5]


def hits(content: bytes) -> list[str]:
    lower = content.lower()
    return [word.decode() for word in WORDS if word.lower() in lower]


def traces(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Look through names and contents, but for DICOM objects, which are the patient's own."""
    for path in folder.rglob("*"):
        found = hits(path.relative_to(folder).as_posix().encode())
        if path.is_file() and path.read_bytes()[128:132] != b"DICM":
            found += hits(path.read_bytes())
        if found:
            yield path.relative_to(folder).as_posix(), found


def planted(folder: Path, make_dicom: MakeDicom, number: int, **attributes: object) -> Path:
    return scan_file(folder, make_dicom, number, **{**PLANTED, **attributes})


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("scan of ZYZZYVA")
    (tmp_path / "QX-7741-PLANTED").mkdir()
    assert dict(traces(tmp_path)) == {"log.txt": ["Zyzzyva", "Zyzzyva"], "QX-7741-PLANTED": ["QX-7741-PLANTED"]}


@pytest.mark.slow
def test_the_node_says_nothing_of_the_patient(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    scans, left = tmp_path / "scans", tmp_path / "left"
    scans.mkdir()
    left.mkdir()
    with archive() as pacs, RunningNode(left, pacs.port, fake_model) as node:
        good = planted(scans, make_dicom, 1)
        blank = planted(scans, make_dicom, 2)
        blank.write_bytes(make_dicom(np.zeros((791, 272), np.uint8), **{**PLANTED, "ExposedArea": [658, 1920]}))
        region = planted(scans, make_dicom, 3)
        region.write_bytes(make_dicom(**{**PLANTED, "ProtocolName": "Left Femur of Zyzzyva"}))
        damaged = planted(scans, make_dicom, 4, Rows=4000)
        answers = [node.store(path) for path in (good, blank, region, damaged)]
        wait_for(lambda: len(pacs.received) == 3 and node.idle(), "results")
        pacs.answer = lambda _received: 0xA900
        node.store(planted(scans, make_dicom, 5))
        wait_for(lambda: node.health()["dead_letters"] == 1, "a dead letter")
        shown = node.get("/metrics")[1] + node.get("/health")[1]
        assert node.stop() == 0
    # it is in the results, and so the search is no search for nothing
    assert any(b"Zyzzyva" in content for _, content in pacs.received)
    assert list(traces(left)) == []
    assert hits(shown.encode()) == []
    comments = [line for answer in answers for line in answer.stderr.splitlines() if "ErrorComment" in line]
    assert comments and not [line for line in comments if hits(line.encode())]
    log = node.log.read_text()
    assert "listens on" in log and "2.25.1001" not in log, "UIDs lead to patients"


@pytest.mark.slow
def test_the_watch_folder_says_nothing_of_the_patient(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    planted(folder, make_dicom, 1)
    planted(folder, make_dicom, 2).write_bytes(make_dicom(**{**PLANTED, "ProtocolName": "Left Femur of Zyzzyva"}))
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "edge_spine", "watch", str(folder), str(out), "--model", str(fake_model)),
            *("--engine", "onnx-cpu", "--once", "--poll", "0.1", "-v", "--write", "json,ply,png,stl,sr,sc"),
        ],
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "always"},
    )
    assert ended.stdout.count(b"\n") == 2
    assert hits(ended.stdout + ended.stderr) == []
    assert len(list(out.rglob("spine.sr.dcm"))) == 1
    assert list(traces(tmp_path)) == []
