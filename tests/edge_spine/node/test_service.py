"""The node as a whole: real processes, real clients, and an archive whose answers the test chooses."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")
pytest.importorskip("highdicom", reason="pip install '.[node]'")

from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import AE

from tests.edge_spine.node.killed_node import STAGES
from tests.edge_spine.node.running import RunningNode, acknowledged, archive, free_port, scan_file, wait_for

pytestmark = pytest.mark.slow

MakeDicom = Callable[..., bytes]
KILLED_NODE = str(Path(__file__).with_name("killed_node.py"))
posix = pytest.mark.skipif(os.name == "nt", reason="SIGKILL")


def test_a_scan_comes_in_and_its_results_go_out_in_one_association(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        sent = node.store(scan_file(tmp_path, make_dicom))
        assert sent.returncode == 0, sent.stdout + sent.stderr
        wait_for(lambda: len(pacs.received) == 3, "three results")
        wait_for(node.idle, "an empty spool")
        assert [len(uids) for uids in pacs.associations] == [3]
        assert node.files() == set()
        events = ["started", "received", "done", "delivered"]
        wait_for(lambda: [entry["event"] for entry in node.audit()] == events, "the last line of the audit")
        assert node.stop() == 0
        assert node.audit()[-1]["event"] == "stopped"
        (stderr,) = [line for line in node.log.read_text().splitlines() if line.startswith("edge-spine: ")]
        assert "listens on" in stderr, "a start and a scan without problems log no warning"


def test_a_scan_that_is_sent_again_gives_the_same_objects(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    path = scan_file(tmp_path, make_dicom)
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        for times in (1, 2):
            node.store(path)
            wait_for(lambda times=times: len(pacs.received) == 3 * times and node.idle(), "results")
        assert len(pacs.uids()) == 3
        assert pacs.received[:3] == pacs.received[3:]


def test_an_odd_uid_among_good_ones_ends_no_association(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    """DCMTK sends five scans in one association; the second and the fourth break the rules of UIDs."""
    odd = {2: "1.2.840.113619.2.110.20240105.090501.3", 4: "1.2..840.ABC"}
    paths = []
    for number in range(1, 6):
        paths.append(scan_file(tmp_path, make_dicom, number, StudyInstanceUID="1.2.840.20240105.090501.1"))
        if number in odd:
            dataset = dcmread(paths[-1])
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = odd[number]
            dataset.save_as(paths[-1])
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model, results=["stl-dcm"]) as node:
        sent = node.store(*paths)
        assert sent.returncode == 0 and (sent.stdout + sent.stderr).count("0x0000: Success") == 5
        # the UID with letters cannot be referred to: that scan is kept with its reason, the others are delivered
        wait_for(lambda: len(pacs.uids()) == 4 and node.idle(), "the results of four scans")
        reason = next((node.spool / "failed").glob("*.reason.json")).read_text()
        assert "valid SOPInstanceUID" in reason and "ABC" not in reason
        assert b"1.2.840.20240105.090501.1" in pacs.received[0][1]
        ended = [*node.noted("delivered", 4), *node.noted("failed")]
        keys = {event["scan"] for event in node.noted("received", 5)}
        assert len(keys) == 5 and {event["scan"] for event in ended} == keys, "one key from received to the end"
        assert "aborted" not in {event["event"] for event in node.audit()}
        assert "ABC" not in node.log.read_text() and "090501" not in node.log.read_text()


@pytest.mark.hazard("patient-lost")
def test_what_would_lose_its_patient_is_kept_and_reported(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        lost = scan_file(tmp_path, make_dicom, 1, SpecificCharacterSet="ISO_IR 192", PatientID="SECRET-\x07")
        kept = scan_file(tmp_path, make_dicom, 2, PatientID=["HOSP", "12345"], AccessionNumber="20240105-0905-000017")
        assert node.store(lost, kept).returncode == 0
        wait_for(lambda: len(pacs.received) == 3 and node.health()["dead_letters"] == 1, "one scan's results, one kept")
        wait_for(node.idle, "an empty queue")
        assert all(b"HOSP\\12345" in data and b"20240105-0905-000017" in data for _, data in pacs.received)
        (folder,) = (node.spool / "dead").iterdir()
        assert len(list(folder.glob("*.dcm"))) == 3
        (note,) = node.noted("dead-letter")
        assert note["scan"] == folder.name and note["problem"] == "cannot carry PatientID"
        log = node.log.read_text()
        assert "dropped-PatientID" in log and "irregular-PatientID" in log and "SECRET" not in log
        assert 'deliveries_total{outcome="dead-letter"} 1.0' in node.get("/metrics")[1]


def test_every_abort_is_counted_and_recorded(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    with RunningNode(tmp_path, free_port(), fake_model) as node:
        # DCMTK: abort instead of release
        assert node.store(scan_file(tmp_path, make_dicom), options=("--abort",)).returncode == 0
        entity = AE("SCANNER")
        entity.add_requested_context(ComputedRadiographyImageStorage)
        for end in (lambda association: association.abort(), lambda association: association.dul.socket.socket.close()):
            association = entity.associate("127.0.0.1", node.port, ae_title="EDGE_SPINE")
            assert association.is_established
            end(association)
            association.kill()

        def aborts() -> list[dict[str, Any]]:
            return [event for event in node.audit() if event["event"] == "aborted"]

        wait_for(lambda: len(aborts()) == 3, f"three aborts: {node.audit()}")
        assert {event["sender"] for event in aborts()} == {"SCANNER"}
        assert "edge_spine_aborts_total 3.0" in node.get("/metrics")[1]


@pytest.mark.hazard("killed")
@posix
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("reject", "reason")])
def test_nothing_is_lost_or_doubled_by_a_kill(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom, stage: str, when: str
) -> None:
    mark = tmp_path / "killed"
    with archive() as pacs:
        node = RunningNode(tmp_path, pacs.port, fake_model, program=(KILLED_NODE, stage, when, str(mark)))
        with node:
            path = scan_file(tmp_path, make_dicom)
            answered = acknowledged(node.store(path))
            wait_for(mark.exists, "the kill")
            assert node.process is not None
            node.process.wait(timeout=30)
            assert node.process.returncode == -signal.SIGKILL
            node.start()
            if not answered:
                # A scanner that got no answer sends again.
                assert node.store(path).returncode == 0
            # a delivered parcel is deleted after the spool looks empty
            wait_for(lambda: len(pacs.uids()) == 3 and node.idle() and not node.files(), "three results, nothing left")
            assert len(set(pacs.received)) == 3, "one UID with two contents"


@pytest.mark.hazard("killed")
@posix
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stage", ["reject", "reason"])
def test_a_refusal_survives_a_kill(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom, stage: str, when: str
) -> None:
    import numpy as np

    mark, blank = tmp_path / "killed", np.zeros((791, 272), np.uint8)
    with RunningNode(tmp_path, free_port(), fake_model, program=(KILLED_NODE, stage, when, str(mark))) as node:
        path = tmp_path / "blank.dcm"
        path.write_bytes(make_dicom(blank, ExposedArea=[658, 1920]))
        assert acknowledged(node.store(path))
        wait_for(mark.exists, "the kill")
        assert node.process is not None
        node.process.wait(timeout=30)
        node.start()
        wait_for(node.idle, "an empty spool")
        left = sorted(node.files())
        assert len(left) == 2 and left[0].startswith("failed/") and left[1] == left[0] + ".reason.json"


@pytest.mark.hazard("killed")
@posix
def test_a_scan_that_kills_the_process_three_times_is_left_alone(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    path = scan_file(tmp_path, make_dicom)
    with archive() as pacs:
        for attempt in range(3):
            mark = tmp_path / f"killed-{attempt}"
            node = RunningNode(
                tmp_path, pacs.port, fake_model, program=(KILLED_NODE, "outbox", "before", str(mark))
            ).start(wait=attempt == 0)
            if attempt == 0:
                assert acknowledged(node.store(path))
            wait_for(mark.exists, "the kill")
            assert node.process is not None
            node.process.wait(timeout=30)
        with RunningNode(tmp_path, pacs.port, fake_model) as node:
            wait_for(node.idle, "an empty queue")
            assert node.health()["quarantine"] == 1
            # and the next scan is served
            assert node.store(scan_file(tmp_path, make_dicom, 2)).returncode == 0
            wait_for(lambda: len(pacs.uids()) == 3, "the next scan's results")


@pytest.mark.hazard("disk-full")
def test_a_full_disk_is_a_status(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    with RunningNode(tmp_path, free_port(), fake_model, least_free_mb=10**9) as node:
        sent = node.store(scan_file(tmp_path, make_dicom))
        assert (
            "A700" in (sent.stdout + sent.stderr).upper() or "OUT OF RESOURCES" in (sent.stdout + sent.stderr).upper()
        )
        assert node.files() == set()
        assert node.get("/health")[0] == 503


@pytest.mark.hazard("disk-full")
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_disk_that_fills_up_leaves_no_partial_file(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    import subprocess

    (tmp_path / "spool").mkdir()
    small = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path / "spool")], capture_output=True, check=False
    )
    if small.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with RunningNode(tmp_path, free_port(), fake_model, least_free_mb=0) as node:
            answers = [node.store(scan_file(tmp_path, make_dicom, number)) for number in range(3)]
            words = [(answer.stdout + answer.stderr).upper() for answer in answers]
            assert any("A700" in text or "OUT OF RESOURCES" in text for text in words), words
            assert not [name for name in node.files() if ".part" in name]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "spool")], check=False)


def test_results_that_come_back_are_turned_away(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model, results=["sc"]) as node:
        node.store(scan_file(tmp_path, make_dicom))
        wait_for(lambda: pacs.received, "the secondary capture")
        back = tmp_path / "back.dcm"
        back.write_bytes(pacs.received[0][1])
        answer = node.store(back)
        assert "not-dxa" in answer.stdout + answer.stderr
        wait_for(node.idle, "an empty spool")
        assert len(pacs.received) == 1


def test_two_nodes_do_not_share_a_spool(tmp_path: Path, fake_model: Path) -> None:
    import subprocess

    with RunningNode(tmp_path, free_port(), fake_model) as node:
        second = subprocess.run(
            [sys.executable, "-m", "edge_spine", "node", "--config", str(node.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert "another process works on this folder" in second.stderr
        assert "Traceback" not in second.stderr
