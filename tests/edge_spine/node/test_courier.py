"""Results reach an archive that is down, full, wrong or choosy, and hold up no others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")
pytest.importorskip("highdicom", reason="pip install '.[node]'")
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association

from edge_spine.node.config import RESULTS, Destination, NodeConfig
from edge_spine.node.courier import Courier
from edge_spine.node.monitor import Monitor
from edge_spine.node.outbox import Backoff, Outbox
from edge_spine.node.records import Audit
from tests.edge_spine.node.running import Archive, RunningNode, archive, free_port, scan_file, wait_for

MakeDicom = Callable[..., bytes]


@pytest.mark.hazard("archive-away")
@pytest.mark.slow
def test_an_archive_that_is_down_gets_everything_later(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    port = free_port()
    with RunningNode(tmp_path, port, fake_model) as node:
        for number in (1, 2):
            assert node.store(scan_file(tmp_path, make_dicom, number)).returncode == 0
        wait_for(lambda: node.health()["outbox"] == 2 and node.health()["queue"] == 0, "two parcels")
        wait_for(lambda: node.health()["delivery_problem"] == "unreachable", "the problem's name")
        with archive(port) as pacs:
            wait_for(lambda: len(pacs.uids()) == 6 and node.idle(), "six results")
        assert node.health()["delivery_problem"] == ""


@pytest.mark.hazard("archive-away")
@pytest.mark.slow
def test_a_wrong_title_becomes_a_dead_letter(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    delivery = "[delivery]\nfirst_retry_s = 0.1\nlongest_retry_s = 0.2\ngive_up_after_h = 0.0003\n"
    pacs = Archive(title="SOMEBODY")
    try:
        with RunningNode(tmp_path, pacs.port, fake_model, delivery=delivery) as node:
            assert node.store(scan_file(tmp_path, make_dicom)).returncode == 0
            wait_for(lambda: node.health()["dead_letters"] == 1, "a dead letter")
            assert node.health()["delivery_problem"] == "rejected"
            assert len(node.noted("dead-letter")) == 1
            assert len([name for name in node.files() if name.startswith("dead/") and name.endswith(".dcm")]) == 3
    finally:
        pacs.close()


@pytest.mark.hazard("archive-away")
@pytest.mark.slow
def test_an_archive_without_room_is_tried_again_and_holds_up_nobody(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        asked: list[int] = []

        def full_at_first(_received: int) -> int:
            asked.append(1)
            return 0xA700 if len(asked) <= 5 else 0x0000

        pacs.answer = full_at_first
        for number in (1, 2, 3):
            assert node.store(scan_file(tmp_path, make_dicom, number)).returncode == 0
        wait_for(lambda: len(pacs.uids()) == 9 and node.idle(), "nine results")
        assert node.health()["dead_letters"] == 0
        assert len(set(pacs.received)) == 9


@pytest.mark.hazard("archive-away")
@pytest.mark.slow
def test_an_object_that_the_archive_refuses_does_not_block_the_queue(
    tmp_path: Path, fake_model: Path, make_dicom: MakeDicom
) -> None:
    with archive() as pacs, RunningNode(tmp_path, pacs.port, fake_model) as node:
        pacs.answer = lambda _received: 0xA900
        assert node.store(scan_file(tmp_path, make_dicom, 1)).returncode == 0
        wait_for(lambda: node.health()["dead_letters"] == 1, "a dead letter")
        pacs.answer = lambda _received: 0x0000
        assert node.store(scan_file(tmp_path, make_dicom, 2)).returncode == 0
        wait_for(lambda: len(pacs.uids()) == 3, "the second scan's results")


# --- the courier alone


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """Two parcels of one small object each."""
    (tmp_path / "spool").mkdir()
    made = Outbox(tmp_path / "spool", Backoff(first_s=0.05, cap_s=0.1, refusals=2))
    for number in (1, 2):
        made.put(str(number) * 64, {"0-sc": small_object(f"2.25.{number}")})
    return made


def small_object(uid: str) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RESULTS["sc"]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@contextmanager
def delivering(outbox: Outbox, folder: Path, port: int) -> Iterator[Courier]:
    destination = Destination("ARCHIVE", "127.0.0.1", port)
    config = NodeConfig("EDGE_SPINE", "127.0.0.1", 0, folder, (), destination)
    courier = Courier(config, outbox, Audit(folder / "audit.jsonl"), Monitor())
    courier.start()
    try:
        yield courier
    finally:
        courier.close()
        assert not courier.alive


def events(folder: Path) -> list[str]:
    path = folder / "audit.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def test_due_parcels_go_in_one_association(outbox: Outbox, tmp_path: Path) -> None:
    with archive() as pacs, delivering(outbox, tmp_path, pacs.port) as courier:
        wait_for(lambda: outbox.counts() == (0, 0), "an empty outbox")
        assert pacs.associations == [["2.25.1", "2.25.2"]] and courier.problem == ""
    assert events(tmp_path) == ["delivered", "delivered"]


@pytest.mark.hazard("archive-away")
@pytest.mark.parametrize(
    ("status", "problem", "left"),
    [(0xA700, "status-A700", (2, 0)), (0xA900, "status-A900", (0, 2)), (0xB000, "", (0, 0))],
)
def test_a_status_is_temporary_final_or_a_warning(
    outbox: Outbox, tmp_path: Path, status: int, problem: str, left: tuple[int, int]
) -> None:
    asked: list[int] = []

    def answer(received: int) -> int:
        asked.append(received)
        return status

    with archive() as pacs:
        pacs.answer = answer
        with delivering(outbox, tmp_path, pacs.port) as courier:
            # as often as the refusals that are allowed
            wait_for(lambda: outbox.counts() == left and (not problem or len(asked) >= 4), "the end of the attempts")
            assert courier.problem == problem
    assert events(tmp_path) == {(2, 0): [], (0, 2): ["dead-letter"] * 2, (0, 0): ["delivered"] * 2}[left]


@pytest.mark.hazard("bad-file")
@pytest.mark.parametrize("content", [b"", b"no DICOM", small_object("2.25.1")[:150], small_object("2.25.1")[:-40]])
def test_a_damaged_object_becomes_a_dead_letter_and_holds_up_no_other(
    outbox: Outbox, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "spool" / "outbox" / ("1" * 64) / "0-sc.dcm").write_bytes(content)
    with archive() as pacs, delivering(outbox, tmp_path, pacs.port) as courier:
        wait_for(lambda: outbox.counts() == (0, 1), "a dead letter")
        assert courier.alive and pacs.associations[0][-1:] == ["2.25.2"]
    assert sorted(events(tmp_path)) == ["dead-letter", "delivered"]
    assert (tmp_path / "spool" / "dead" / ("1" * 64) / "0-sc.dcm").read_bytes() == content


@pytest.mark.hazard("archive-away")
def test_an_archive_that_does_not_answer_is_named(outbox: Outbox, tmp_path: Path) -> None:
    with delivering(outbox, tmp_path, free_port()) as courier:
        wait_for(lambda: courier.problem, "a problem")
        assert courier.problem == "unreachable" and outbox.counts() == (2, 0)


@pytest.mark.hazard("archive-away")
def test_an_error_of_any_kind_ends_no_delivery(outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system has no thread or no memory for an association at the moment."""
    connect, refused = Courier._connect, [RuntimeError("can't start new thread"), MemoryError()]

    def connecting(courier: Courier) -> Association:
        if refused:
            raise refused.pop()
        return connect(courier)

    monkeypatch.setattr(Courier, "_connect", connecting)
    with archive() as pacs, delivering(outbox, tmp_path, pacs.port) as courier:
        wait_for(lambda: courier.problem == "delivery: MemoryError", "the problem's name")
        wait_for(lambda: outbox.counts() == (0, 0), "an empty outbox")
        assert courier.alive and courier.problem == ""
