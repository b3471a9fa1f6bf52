"""Folders as people have them: links, closed doors, names in any encoding, and results of earlier runs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from edge_spine.errors import EdgeSpineError
from edge_spine.node.watch import Arrivals
from edge_spine.reading import read_scan
from edge_spine.reading.files import find_scans
from edge_spine.reading.folders import kind_of_file, walk
from edge_spine.reading.left_out import BROKEN_LINK, DIRECTORY, HIDDEN, LINK, NO_FILE, NO_IMAGE, OWN, LeftOut
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.reading.samples import MakeDicom, bare, make_zip

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def found(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    left_out = LeftOut()
    return [path.relative_to(folder).as_posix() for path in walk(folder, left_out)], left_out.names


def put(folder: Path, content: bytes, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_everything_that_is_no_scan_is_named(make_dicom: MakeDicom, tmp_path: Path) -> None:
    put(tmp_path, make_dicom(), "a.img", ".b.dcm", "DICOMDIR", "x/c", ".git/d.dcm")
    put(tmp_path, b"text", "notes.txt", "x/Thumbs.db")
    assert found(tmp_path) == (
        ["a.img", "x/c"],
        {HIDDEN: [".b.dcm", ".git"], DIRECTORY: ["DICOMDIR"], NO_IMAGE: ["notes.txt", "Thumbs.db"]},
    )


def test_dicom_without_a_preamble_is_found_by_content(make_dicom: MakeDicom, tmp_path: Path) -> None:
    files = {"IM1": bare(make_dicom(), meta=True), "IM2": bare(make_dicom(), meta=False), "notes": b"\x08\0\x05\0CS"}
    for name, content in files.items():
        put(tmp_path, content, name)
    assert found(tmp_path) == (["IM1", "IM2"], {NO_IMAGE: ["notes"]})
    arrivals = Arrivals(tmp_path)
    assert [[path.name for path in arrivals.poll()] for _ in range(3)] == [[], [], ["IM1", "IM2"]]
    assert [file.entry for file in find_scans([make_zip(tmp_path / "z.zip", files)])] == ["IM1", "IM2"]
    assert all(file.read().pixels.shape == (480, 160) for file in find_scans([tmp_path]))


@needs_links
def test_links_are_followed_once(make_dicom: MakeDicom, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    put(folder, make_dicom(), "real/a.dcm")
    put(elsewhere, make_dicom(), "b.dcm", "deep/c.dcm")
    (folder / "0-outside").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere / "deep")
    (folder / "real/round").symlink_to(folder)
    (folder / "alias.dcm").symlink_to(folder / "real/a.dcm")
    (folder / "single.dcm").symlink_to(elsewhere / "b.dcm")
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (elsewhere / "back").symlink_to(folder / "real")
    paths, names = found(folder)
    assert sorted(os.path.realpath(folder / path) for path in paths) == sorted(
        str(path.resolve()) for path in (folder / "real/a.dcm", elsewhere / "b.dcm", elsewhere / "deep/c.dcm")
    )
    assert paths[0] == "real/a.dcm"
    assert names[BROKEN_LINK] == ["gone.dcm"]
    assert {"alias.dcm", "back", "round"} <= set(names[LINK])


@needs_links
def test_files_that_are_all_links_keep_their_names(make_dicom: MakeDicom, tmp_path: Path) -> None:
    """As in a dataset of git-annex, whose contents lie in a hidden folder."""
    for number in (1, 2):
        put(tmp_path, make_dicom(SOPInstanceUID=f"2.25.{number}"), f".git/annex/objects/{number}")
        (tmp_path / f"sub-0{number}.dcm").symlink_to(tmp_path / f".git/annex/objects/{number}")
    assert found(tmp_path) == (["sub-01.dcm", "sub-02.dcm"], {HIDDEN: [".git"]})


def test_a_closed_folder_or_file_is_no_reason_to_lose_the_others(
    make_dicom: MakeDicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, make_dicom(), "a.dcm", "closed/b.dcm", "unreadable", "z/c.dcm")
    scandir, opened = os.scandir, Path.open

    def list_folder(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "denied", str(path))
        return scandir(path)

    def open_file(path: Path, *arguments: str) -> object:
        if path.name == "unreadable":
            raise PermissionError(13, "denied", str(path))
        return opened(path, *arguments)

    # tests may run as a user whom nothing is closed to
    monkeypatch.setattr(os, "scandir", list_folder)
    monkeypatch.setattr(Path, "open", open_file)
    assert found(tmp_path) == (["a.dcm", "unreadable", "closed", "z/c.dcm"], {})
    closed = next(file for file in find_scans([tmp_path]) if file.path.name == "closed")
    with pytest.raises(EdgeSpineError, match="closed: the folder cannot be listed"):
        closed.read()
    (itself,) = find_scans([tmp_path / "closed"])
    assert itself.path.name == "closed"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux only")
def test_a_name_in_another_encoding(make_dicom: MakeDicom, tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller.dcm")
    put(tmp_path, make_dicom(), name, "a.dcm")
    scans = find_scans([tmp_path])
    assert [scan.source for scan in scans] == ["M?ller.dcm", "a.dcm"]
    assert all(scan.read().pixels.shape == (480, 160) for scan in scans)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no sockets in folders here")
def test_what_could_block_is_not_opened(make_dicom: MakeDicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, make_dicom(), "a.dcm")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert found(tmp_path) == (["a.dcm"], {NO_FILE: ["pipe.dcm"]})
    assert kind_of_file(tmp_path / "pipe.dcm") is kind_of_file(tmp_path / "gone") is None


@pytest.mark.slow
def test_own_results_are_known_by_content_wherever_they_lie(make_dicom: MakeDicom, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="pip install '.[dicom]'")
    from edge_spine.outputs import preview_png, secondary_capture, structured_report
    from tests.edge_spine.outputs.dicom_checks import DEMO_SCAN

    result = fake_result(header=read_scan(DEMO_SCAN).header)
    put(tmp_path, preview_png.render(fake_result()), "renamed.png")
    put(tmp_path, secondary_capture.render(result), "copied/sc.dcm")
    put(tmp_path, structured_report.render(result), "copied/sr")
    put(tmp_path, make_dicom(), "copied/scan.dcm")
    assert found(tmp_path) == (["copied/scan.dcm"], {OWN: ["renamed.png", "sc.dcm", "sr"]})


def test_a_foreign_result_json_hides_nothing(make_dicom: MakeDicom, tmp_path: Path) -> None:
    put(tmp_path, b'{"bmd": 1.1}', "sub-01/result.json")
    put(tmp_path, make_dicom(), "sub-01/dxa/scan.dcm", "sub-01/other.dcm")
    # a picture of an older version has no mark, but such a neighbour
    put(tmp_path, b"\x89PNG\r\n\x1a\n", "sub-01/preview.png", "sub-02/preview.png")
    assert found(tmp_path) == (
        ["sub-01/other.dcm", "sub-01/dxa/scan.dcm", "sub-02/preview.png"],
        {OWN: ["preview.png"], NO_IMAGE: ["result.json"]},
    )
