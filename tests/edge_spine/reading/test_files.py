from __future__ import annotations

import io
import os
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_spine.errors import Refusal, UsageError
from edge_spine.reading import archive, read_scan
from edge_spine.reading.files import ScanFile, find_scans

MakeDicom = Callable[..., bytes]


def make_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as stream:
        for name, content in entries.items():
            stream.writestr(name, content)
    return path


def refusal(file: ScanFile) -> Refusal:
    with pytest.raises(Refusal) as caught:
        file.read()
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{file.source}: ") or file.entry is None
    return caught.value


# --- files and folders


def test_one_file(real_bone: Path) -> None:
    (found,) = find_scans([str(real_bone)])
    assert (found.path, found.entry, found.name) == (real_bone, None, "whole_body_bone")
    assert found.source == "whole_body_bone.dcm"
    scan = found.read()
    np.testing.assert_array_equal(scan.pixels, read_scan(real_bone).pixels)


def test_pixel_spacing_is_passed_on(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((480, 160)))
    (found,) = find_scans([tmp_path])
    assert found.read((4, 4)).pixel_spacing_mm == (4.0, 4.0)
    assert found.read(pixel_spacing=(4, 4.5)).pixel_spacing_mm == (4.0, 4.5)
    assert refusal(found).code == "no-spacing"


def test_a_folder_is_searched_below_and_sorted(make_dicom: MakeDicom, tmp_path: Path) -> None:
    dicom = make_dicom()
    for name in ("b/z.dcm", "b/a.DCM", "a.dcm", "1.2.840.99", "c/broken.dcm"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"broken" if "broken" in name else dicom)
    np.save(tmp_path / "c" / "x.npy", np.zeros((480, 160)))
    for name in ("notes.txt", "data.json", ".hidden.dcm", "DICOMDIR"):
        (tmp_path / name).write_bytes(dicom if name in (".hidden.dcm", "DICOMDIR") else b"{}")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.dcm").write_bytes(dicom)
    found = find_scans([tmp_path])
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == [
        "1.2.840.99",
        "a.dcm",
        "b/a.DCM",
        "b/z.dcm",
        "c/broken.dcm",
        "c/x.npy",
    ]
    assert [file.name for file in found] == ["1.2.840.99", "a", "a-2", "z", "broken", "x"]
    assert refusal(found[4]).code == "unreadable"


def test_our_own_results_are_no_input(make_dicom: MakeDicom, tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(make_dicom())
    (tmp_path / "out" / "scan").mkdir(parents=True)
    (tmp_path / "out" / "scan" / "result.json").write_text("{}")
    (tmp_path / "out" / "scan" / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert [file.path.name for file in find_scans([tmp_path])] == ["scan.dcm"]


def test_a_named_file_is_kept_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    found = find_scans([tmp_path / "notes.txt", tmp_path / "missing.dcm"])
    assert [refusal(file).code for file in found] == ["unreadable", "unreadable"]


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="no scan found"):
        find_scans([tmp_path])
    with pytest.raises(UsageError, match="no scan found"):
        find_scans([])


def test_a_folder_that_cannot_be_listed(make_dicom: MakeDicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_bytes(make_dicom())
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def deny(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "denied", str(path))
        return scandir(path)

    # Tests may run as a user whom no folder is closed to.
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UsageError, match="locked: the folder cannot be listed"):
        find_scans([tmp_path])


def test_the_same_file_counts_once(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(make_dicom())
    assert [file.name for file in find_scans([path, tmp_path, str(path)])] == ["a"]


# --- names


def test_repeated_names_are_numbered_the_same_way_every_time(make_dicom: MakeDicom, tmp_path: Path) -> None:
    names = ("1/a.dcm", "2/A.dcm", "3/a-2.dcm", "4/a.dcm")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(make_dicom())
    expected = ["a", "A-3", "a-2", "a-4"]
    for _ in range(2):
        assert [file.name for file in find_scans([tmp_path])] == expected
    assert len({name.lower() for name in expected}) == 4


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("../../evil.dcm", "z-evil"),
        ("..\\..\\evil.dcm", "z-evil"),
        ("/etc/passwd.dcm", "z-passwd"),
        ("sp ace & ü.dcm", "z-sp_ace_"),
        ("a" * 200 + ".dcm", "z-" + "a" * 78),
        ("C:evil.dcm", "z-C_evil"),
    ],
)
def test_names_are_safe_folder_names(make_dicom: MakeDicom, tmp_path: Path, entry: str, name: str) -> None:
    make_zip(tmp_path / "z.zip", {entry: make_dicom()})
    (found,) = find_scans([tmp_path / "z.zip"])
    assert found.name.rstrip("_") == name.rstrip("_")
    assert "/" not in found.source
    assert "\\" not in found.source
    assert found.read().source == found.source
    assert sorted(path.name for path in tmp_path.iterdir()) == ["z.zip"]


def test_windows_device_names(tmp_path: Path) -> None:
    assert [file.name for file in find_scans([tmp_path / "NUL.dcm", tmp_path / "com1.x.dcm"])] == [
        "scan-NUL",
        "scan-com1.x",
    ]
    assert find_scans([tmp_path / "...dcm"])[0].name == "scan"
    assert find_scans([tmp_path / "ü.dcm"])[0].name == "scan"


# --- zips


def test_ukb_zip(make_dicom: MakeDicom, real_bone: Path, real_tissue: Path, tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "1000001_20158_2_0.zip",
        {
            "12.dcm": real_bone.read_bytes(),
            "11.dcm": real_tissue.read_bytes(),
            "2.dcm": make_dicom(ProtocolName="Left Femur"),
            "manifest.csv": b"filename,\n",
            "__MACOSX/._12.dcm": b"junk",
        },
    )
    found = find_scans([tmp_path])
    assert [file.entry for file in found] == ["11.dcm", "12.dcm", "2.dcm"]
    assert [file.name for file in found] == [f"1000001_20158_2_0-{number}" for number in (11, 12, 2)]
    scan = found[1].read()
    assert scan.source == "1000001_20158_2_0.zip!12.dcm"
    np.testing.assert_array_equal(scan.pixels, read_scan(real_bone).pixels)
    assert refusal(found[2]).code == "not-whole-body"
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_of_files_without_a_suffix(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "disc.zip",
        {
            "DICOMDIR": make_dicom(),
            "DICOM/PA000001/ST000001/IM_0001": make_dicom(),
            "DICOM/PA000001/ST000001/1.2.840.99": make_dicom(),
            "DICOM/PA000001/ST000001/VERSION": b"1.0",
            "AUTORUN.INF": b"[autorun]",
        },
    )
    found = find_scans([path])
    assert [file.source for file in found] == ["disc.zip!1.2.840.99", "disc.zip!IM_0001"]
    assert all(file.read().pixels.shape == (480, 160) for file in found)


def test_a_folder_tree_without_suffixes_and_without_a_dicomdir(make_dicom: MakeDicom, tmp_path: Path) -> None:
    for name in (
        "DICOM/PA000001/ST000001/SE000001/IM_0001",
        "DICOM/PA000001/ST000002/SE000001/IM_0001",
        "DICOM/README",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text" if "README" in name else make_dicom())
    found = find_scans([tmp_path])
    assert [file.name for file in found] == ["IM_0001", "IM_0001-2"]
    assert all(file.read().pixels.shape == (480, 160) for file in found)


def test_a_link_in_a_zip_is_not_followed(make_dicom: MakeDicom, tmp_path: Path) -> None:
    target = tmp_path / "target.dcm"
    target.write_bytes(make_dicom())
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as stream:
        stream.writestr(link, str(target))
    (found,) = find_scans([tmp_path / "z.zip"])
    assert "not a DICOM" in refusal(found).message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target.dcm", "z.zip"]


def test_a_zip_within_a_zip_is_not_opened(make_dicom: MakeDicom, tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"a.dcm": make_dicom()}).read_bytes()
    (found,) = find_scans([make_zip(tmp_path / "z.zip", {"inner.zip": inner, "inner": inner, "inner.dcm": inner})])
    assert found.entry == "inner.dcm"
    assert "a zip archive" in refusal(found).message


def test_a_zip_bomb_is_refused_by_its_header_and_costs_nothing(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "z.zip", {"a.dcm": bytes(archive.MAX_ENTRY_BYTES + 1), "b": bytes(archive.MAX_ENTRY_BYTES)}
    )
    tracemalloc.start()
    (found,) = find_scans([path])
    assert refusal(found).code == "too-large"
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "other.zip", {"readme.txt": b"hello"})
    (found,) = find_scans([path])
    assert "no .dcm" in refusal(found).message
    with pytest.raises(UsageError):
        find_scans([tmp_path])


def test_a_damaged_zip_is_refused_also_within_a_folder(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "cut.zip", {"a.dcm": make_dicom()})
    path.write_bytes(path.read_bytes()[:-40])
    for source in (path, tmp_path):
        (found,) = find_scans([source])
        assert refusal(found).code == "unreadable"


def test_a_damaged_entry(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": make_dicom()}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    (found,) = find_scans([path])
    assert "BadZipFile" in refusal(found).message


def test_a_zip_that_vanishes(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": make_dicom()})
    (found,) = find_scans([path])
    path.unlink()
    assert refusal(found).code == "unreadable"


def test_an_encrypted_entry(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": make_dicom()})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    (found,) = find_scans([path])
    assert refusal(found).code == "unreadable"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(make_dicom: MakeDicom, tmp_path: Path, method: int) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": make_dicom()}, method)
    assert "stored or deflated" in refusal(find_scans([path])[0]).message


def test_too_many_entries(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {f"{number}.dcm": b"" for number in range(archive.MAX_ENTRIES + 1)})
    assert refusal(find_scans([path])[0]).code == "too-large"
    path = make_zip(tmp_path / "z.zip", {f"{number}.dcm": b"" for number in range(archive.MAX_ENTRIES)})
    assert len(find_scans([path])) == archive.MAX_ENTRIES


def test_a_huge_directory_is_not_even_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {f"{number}{'x' * 900}.dcm": b"" for number in range(2_300)})
    found = find_scans([path])
    assert len(found) == 1
    assert "BadZipFile" in refusal(found[0]).message


def test_a_large_entry_is_refused_by_its_header(
    make_dicom: MakeDicom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": make_dicom()})
    monkeypatch.setattr(archive, "MAX_ENTRY_BYTES", 1000)
    assert refusal(find_scans([path])[0]).code == "too-large"


def test_an_entry_that_lies_about_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "z.zip", {"a.dcm": bytes(2**20)})
    content = bytearray(path.read_bytes())
    size = (2**20).to_bytes(4, "little")
    for position in (content.index(size), content.rindex(size)):
        content[position : position + 4] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    monkeypatch.setattr(archive, "MAX_ENTRY_BYTES", 1000)
    # zipfile itself stops at the size that the header claims; either way nothing large comes out.
    assert refusal(find_scans([path])[0]).code in ("unreadable", "too-large")


def test_find_scans_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_zip(tmp_path / "z.zip", {"a.dcm": b"x"})

    def fail(*_: object) -> bytes:
        raise AssertionError("read too early")

    monkeypatch.setattr("edge_spine.reading.files.read_entry", fail)
    monkeypatch.setattr("edge_spine.reading.files.read_scan", fail)
    assert len(find_scans([tmp_path])) == 1


def test_mutated_zips_give_scans_or_refusals(make_dicom: MakeDicom, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.dcm", make_dicom())
        made.writestr("b.dcm", make_dicom())
    original = stream.getvalue()
    rng = np.random.default_rng(0)
    path = tmp_path / "z.zip"
    for _ in range(60):
        content = bytearray(original)
        # The tail holds the central directory.
        for position in rng.integers(len(content) - 200, len(content), 3):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        for file in find_scans([path]):
            try:
                file.read()
            except Refusal as caught:
                assert "\n" not in caught.message
