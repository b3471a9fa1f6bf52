"""The watch folder as a whole: real processes, files that appear as scanners and networks make them appear."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("filelock", reason="pip install '.[node]'")

from edge_spine.estimator import SpineEstimator
from edge_spine.node.watch import Arrivals, WatchFolder
from edge_spine.reading.files import ScanFile, find_scans
from edge_spine.runner import Report
from edge_spine.scan import Scan
from tests.edge_spine.cli.running import Ended, called
from tests.edge_spine.fake_result import phantom_pixels
from tests.edge_spine.node.running import scan_file, wait_for

MakeDicom = Callable[..., bytes]


def arguments(folder: Path, out: Path, model: Path, *options: str) -> list[str]:
    return [
        *("watch", str(folder), str(out), "--model", str(model), "--engine", "onnx-cpu"),
        *("--poll", "0.1", "--write", "json", *options),
    ]


def watched_once(folder: Path, out: Path, model: Path, *options: str) -> Ended:
    """Watch until no scan is left, in this process."""
    return called(*arguments(folder, out, model, "--once", *options))


@contextmanager
def watching(folder: Path, out: Path, model: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "edge_spine", *arguments(folder, out, model, *options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: (folder / "work").exists() or process.poll() is not None, "it does not start")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture()
def folders(tmp_path: Path) -> tuple[Path, Path]:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    return folder, out


def results(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("*/result.json"))


def names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


RECORDS = {"records/audit.jsonl", "records/ledger.txt"}


@pytest.mark.slow
def test_a_scan_that_appears_is_processed(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom, tmp_path: Path
) -> None:
    folder, out = folders
    with watching(folder, out, fake_model) as process:
        scan_file(tmp_path, make_dicom).rename(folder / "a b.dcm")
        wait_for(lambda: results(out), "a result")
        wait_for(lambda: (folder / "done" / "a b.dcm").exists(), "the scan in done/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        assert process.stdout.read().startswith("done: a b.dcm: ")
    (name,) = results(out)
    assert name.startswith("a_b-") and len(name) == len("a_b-") + 16
    assert names(folder) == {"done/a b.dcm", *RECORDS}
    assert json.loads((out / name / "result.json").read_text())["scan"]["source"] == "a b.dcm"


def test_the_same_content_is_processed_once(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom
) -> None:
    folder, out = folders
    scan_file(folder, make_dicom)
    assert watched_once(folder, out, fake_model).returncode == 0
    (first,) = (path.stat().st_mtime_ns for path in out.glob("*/result.json"))
    # a share that is mounted again shows the same files as new
    shutil.copy(folder / "done" / "scan-1.dcm", folder / "scan-1.dcm")
    again = watched_once(folder, out, fake_model)
    assert again.returncode == 0 and "already processed" in again.stdout
    assert [path.stat().st_mtime_ns for path in out.glob("*/result.json")] == [first]
    assert names(folder) == {"done/scan-1.dcm", "done/scan-1-2.dcm", *RECORDS}


@pytest.mark.slow
@pytest.mark.hazard("earlier-results")
def test_what_decides_about_a_result_decides_again(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom
) -> None:
    folder, out = folders
    scan_file(folder, make_dicom)

    def drop_again(*options: str) -> str:
        shutil.move(next((folder / "done").iterdir()), folder / "scan-1.dcm")
        ended = watched_once(folder, out, fake_model, *options)
        assert ended.returncode == 0
        return ended.stdout

    assert watched_once(folder, out, fake_model).returncode == 0
    assert "already processed" in drop_again()
    assert "already processed" not in drop_again("--write", "json,ply")
    assert "already processed" not in drop_again("--pixel-spacing", "2.4,2.4")
    next(out.glob("*/result.json")).unlink()
    assert "already processed" not in drop_again() and len(results(out)) == 1


def test_the_same_content_under_another_name_has_its_own_files(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom
) -> None:
    folder, out = folders
    path = scan_file(folder, make_dicom)
    shutil.copy(path, folder / "copy.dcm")
    assert watched_once(folder, out, fake_model).returncode == 0
    assert [name.rsplit("-", 1)[0] for name in results(out)] == ["copy", "scan-1"]


def test_a_file_that_cannot_be_opened_stays_and_is_read_later(
    tmp_path: Path, make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without rights, held by another program, or on a share that went away after it was listed."""
    path = scan_file(tmp_path, make_dicom)
    told: list[str] = []
    arrivals = Arrivals(tmp_path, on_unavailable=lambda found, why: told.append(f"{found.name}: {why}"))
    with monkeypatch.context() as away:
        real = Path.open

        def denied(self: Path, *arguments: Any, **options: Any) -> Any:
            if self == path:
                raise PermissionError(13, "Permission denied")
            return real(self, *arguments, **options)

        away.setattr(Path, "open", denied)
        away.setattr("edge_spine.node.watch._STALLED_S", 0.0)
        assert [list(arrivals.poll()) for _ in range(6)] == [[]] * 6
        assert told == ["scan-1.dcm: Permission denied"] and not arrivals.pending
    monkeypatch.setattr("edge_spine.node.watch._STALLED_S", 0.0)
    assert list(arrivals.poll()) == [path]


@pytest.mark.hazard("names-collide")
def test_two_scans_of_one_name_give_two_results(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom, tmp_path: Path
) -> None:
    folder, out = folders
    for number in (1, 2):
        scan_file(tmp_path, make_dicom, number).rename(folder / "scan.dcm")
        assert watched_once(folder, out, fake_model).returncode == 0
    assert len(results(out)) == 2


def test_a_refused_scan_lies_beside_its_reason(folders: tuple[Path, Path], fake_model: Path) -> None:
    folder, out = folders
    np.save(folder / "blank.npy", np.zeros((791, 272)))
    ended = watched_once(folder, out, fake_model, "--pixel-spacing", "2.4,2.4")
    assert ended.returncode == 1 and ended.stdout.startswith("refused (")
    reason = json.loads((folder / "failed" / "blank.npy.reason.json").read_text())
    assert reason["status"] == "refused" and reason["code"] in ended.stdout
    assert names(folder) == {"failed/blank.npy", "failed/blank.npy.reason.json", "records/audit.jsonl"}
    assert results(out) == [] and list(out.iterdir()) == []


@pytest.mark.slow
def test_a_zip_gives_a_result_for_each_scan(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom, tmp_path: Path
) -> None:
    folder, out = folders
    with zipfile.ZipFile(folder / "1_20158_2_0.zip", "w") as archive:
        for number in (1, 2):
            archive.write(scan_file(tmp_path, make_dicom, number), f"{number}.dcm")
        archive.writestr("3.dcm", make_dicom(ProtocolName="Left Femur"))
    ended = watched_once(folder, out, fake_model)
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == ["done", "done", "refused (not-whole-body)"]
    assert len(results(out)) == 2
    assert "done/1_20158_2_0.zip" in names(folder)


@pytest.mark.slow
def test_a_slow_copy_is_waited_for(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom, tmp_path: Path
) -> None:
    folder, out = folders
    content = scan_file(tmp_path, make_dicom).read_bytes()
    with watching(folder, out, fake_model), (folder / "slow.dcm").open("wb") as stream:
        for start in range(0, len(content), len(content) // 4 + 1):
            stream.write(content[start : start + len(content) // 4 + 1])
            stream.flush()
            # longer than two polls: the size alone says nothing
            time.sleep(0.6)
            if start + len(content) // 4 + 1 < len(content):
                assert (folder / "slow.dcm").exists() and results(out) == []
        wait_for(lambda: results(out), "a result")


def test_a_copy_that_stalls_is_refused_in_the_end(
    tmp_path: Path, make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scan_file(tmp_path, make_dicom)
    path.write_bytes(path.read_bytes()[:5000])
    arrivals = Arrivals(tmp_path)
    assert [list(arrivals.poll()) for _ in range(6)] == [[]] * 6
    monkeypatch.setattr("edge_spine.node.watch._STALLED_S", 0.0)
    assert list(arrivals.poll()) == [path]


def test_a_file_is_ready_after_two_unchanged_polls(tmp_path: Path, make_dicom: MakeDicom) -> None:
    path = scan_file(tmp_path, make_dicom)
    arrivals = Arrivals(tmp_path)
    assert (list(arrivals.poll()), list(arrivals.poll())) == ([], [])
    os.utime(path, (1, 1))
    assert (list(arrivals.poll()), list(arrivals.poll())) == ([], [])
    assert list(arrivals.poll()) == [path]


def test_a_scan_is_decoded_once(tmp_path: Path, fake_model: Path, make_dicom: MakeDicom) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = scan_file(folder, make_dicom)
    decoded: list[str] = []

    def read(scan_file: ScanFile) -> Scan:
        decoded.append(scan_file.path.name)
        return scan_file.read()

    reports: list[Report] = []
    with (
        SpineEstimator("onnx-cpu", fake_model) as estimator,
        closing(WatchFolder(folder, tmp_path / "out", estimator, ("json",), read, reports.append)) as watch,
    ):
        watch.run(poll_s=0.01, once=True)
    assert [report.status for report in reports] == ["done"] and decoded == [path.name]
    # the time of the one decoding is in the result
    (written,) = (tmp_path / "out").glob("*/result.json")
    assert json.loads(written.read_text())["timing_ms"]["read"] == reports[0].timing_ms["read"] > 0.5


@pytest.mark.parametrize("most_kept", [0, 16])
def test_result_and_report_name_the_file_where_it_was_put(
    most_kept: int, folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_spine.node.watch._MOST_KEPT", most_kept)
    folder, out = folders
    path, reports = scan_file(folder, make_dicom), []
    with (
        SpineEstimator("onnx-cpu", fake_model) as estimator,
        closing(WatchFolder(folder, out, estimator, ("json",), ScanFile.read, reports.append)) as watch,
    ):
        watch.run(poll_s=0.01, once=True)
    (written,) = out.glob("*/result.json")
    assert reports[0].path == json.loads(written.read_text())["scan"]["path"] == str(path)


def test_a_scan_that_changes_after_it_was_read_is_read_again(tmp_path: Path, make_dicom: MakeDicom) -> None:
    path = scan_file(tmp_path, make_dicom)
    decoded: list[Path] = []

    def read(scan_file: ScanFile) -> Scan:
        decoded.append(scan_file.path)
        return scan_file.read()

    arrivals = Arrivals(tmp_path, read)
    assert [list(arrivals.poll()) for _ in range(3)][-1] == [path]
    os.utime(path, (1, 1))
    arrivals.read(find_scans([path])[0])
    assert decoded == [path, path]


def test_other_files_are_left_alone(folders: tuple[Path, Path], fake_model: Path) -> None:
    folder, out = folders
    for name in ("notes.txt", ".hidden.dcm", "copy.dcm.part", "Thumbs.db"):
        (folder / name).write_bytes(b"hello")
    assert watched_once(folder, out, fake_model).returncode == 0
    assert names(folder) == {"notes.txt", ".hidden.dcm", "copy.dcm.part", "Thumbs.db"}


def test_what_is_left_alone_is_named_once(
    tmp_path: Path, make_dicom: MakeDicom, caplog: pytest.LogCaptureFixture
) -> None:
    scan_file(tmp_path, make_dicom)
    (tmp_path / "notes.txt").write_bytes(b"hello")
    for folder in ("sub", "done", ".hidden"):
        (tmp_path / folder).mkdir()
    arrivals = Arrivals(tmp_path)
    for _ in range(3):
        list(arrivals.poll())
    (line,) = [record.message for record in caplog.records if "left where they are" in record.message]
    assert line.endswith("1 folder (sub); 1 no image (notes.txt)")
    (tmp_path / "sub").rmdir()
    list(arrivals.poll())
    assert caplog.records[-1].message.endswith(": 1 no image (notes.txt)")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="its signals are needed")
def test_a_reader_that_goes_and_a_hang_up_end_nothing(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom
) -> None:
    folder, out = folders
    with watching(folder, out, fake_model) as process:
        scan_file(folder, make_dicom, 1)
        assert process.stdout is not None and process.stdout.readline().startswith("done")
        process.stdout.close()
        process.stdout = None
        process.send_signal(signal.SIGHUP)
        for number in (2, 3):
            scan_file(folder, make_dicom, number)
        wait_for(lambda: len(results(out)) == 3, "it has ended with its reader")
        process.terminate()
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in complaint
    assert complaint.count("reports are lost there") == 1


@pytest.mark.hazard("killed")
def test_a_kill_between_result_and_ledger_repeats_harmlessly(
    folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom
) -> None:
    folder, out = folders
    scan_file(folder, make_dicom)
    assert watched_once(folder, out, fake_model).returncode == 0
    # the state that a kill leaves: the result is there, the ledger does not know, the scan is still claimed
    (folder / "done" / "scan-1.dcm").rename(folder / "work" / "1" / "scan-1.dcm")
    (folder / "records" / "ledger.txt").unlink()
    assert watched_once(folder, out, fake_model).returncode == 0
    assert len(results(out)) == 1
    assert names(folder) == {"done/scan-1.dcm", *RECORDS}


@pytest.mark.slow
@pytest.mark.hazard("killed")
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_kills_at_any_moment_lose_nothing(folders: tuple[Path, Path], fake_model: Path, make_dicom: MakeDicom) -> None:
    folder, out = folders
    for number in range(12):
        scan_file(folder, make_dicom, number)
    for pause in (0.0, 0.3, 0.6, 0.9):
        with watching(folder, out, fake_model) as process:
            time.sleep(pause)
            process.kill()
    ended = watched_once(folder, out, fake_model)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(results(out)) == 12
    assert names(folder) == {*(f"done/scan-{number}.dcm" for number in range(12)), *RECORDS}
    assert {path.name for path in out.iterdir()} == set(results(out)), "something half written is left"


@pytest.mark.slow
def test_a_second_watcher_is_refused_and_an_interruption_is_130(folders: tuple[Path, Path], fake_model: Path) -> None:
    with watching(*folders, fake_model) as process:
        second = watched_once(*folders, fake_model)
        if os.name != "nt":
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
    assert second.returncode == 1
    assert "another process works on this folder" in second.stderr and "Traceback" not in second.stderr


@pytest.mark.parametrize("same", [True, False])
def test_wrong_folders(tmp_path: Path, fake_model: Path, same: bool) -> None:
    folder = tmp_path if same else tmp_path / "missing"
    ended = watched_once(folder, tmp_path, fake_model)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_plain_images_need_their_spacing(folders: tuple[Path, Path], fake_model: Path) -> None:
    folder, out = folders
    np.save(folder / "plain.npy", phantom_pixels())
    ended = watched_once(folder, out, fake_model)
    assert ended.returncode == 1 and ended.stdout.startswith("refused (no-spacing)")
