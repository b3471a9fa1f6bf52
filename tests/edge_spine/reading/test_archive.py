"""Zips: what is found in them, and what a hostile one costs."""

from __future__ import annotations

import io
import stat
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_spine.errors import InputUnavailable, Refusal, UsageError
from edge_spine.reading import archive, read_scan
from edge_spine.reading.files import find_scans
from edge_spine.reading.left_out import DIRECTORY, EMPTY_ZIP, HIDDEN, NESTED_ZIP, NO_IMAGE, LeftOut
from tests.edge_spine.reading.samples import BODY, MakeDicom, make_zip, refusal


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


@pytest.mark.hazard("bad-file")
def test_images_in_a_zip_are_found_by_content_and_the_rest_is_named(make_dicom: MakeDicom, tmp_path: Path) -> None:
    image = cv2.imencode(".png", BODY)[1].tobytes()
    path = make_zip(
        tmp_path / "study.zip",
        {
            # the names that DCMTK's storescp gives
            "CR.1.2.826.0.1.3680043.8.498.1273": make_dicom(),
            "sub/scan.dcm30": make_dicom(),
            "sub/scan.img": image,
            "sub/damaged.NPY": b"",
            "sub/notes.txt": b"text",
            "__MACOSX/sub/._scan.img": b"junk",
            "inner.zip": make_zip(tmp_path / "inner.zip", {}).read_bytes(),
            "DICOMDIR": make_dicom(),
        },
    )
    left_out = LeftOut()
    assert [file.entry for file in find_scans([path], left_out)] == [
        "CR.1.2.826.0.1.3680043.8.498.1273",
        "sub/damaged.NPY",
        "sub/scan.dcm30",
        "sub/scan.img",
    ]
    assert left_out.names == {
        DIRECTORY: ["DICOMDIR"],
        HIDDEN: ["._scan.img"],
        NESTED_ZIP: ["inner.zip"],
        NO_IMAGE: ["notes.txt"],
    }
    left_out = LeftOut()
    assert len(find_scans([tmp_path], left_out)) == 4
    assert left_out.names[EMPTY_ZIP] == ["inner.zip"]


@pytest.mark.hazard("bad-file")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_images_of_one_name_in_a_zip_are_all_read(make_dicom: MakeDicom, tmp_path: Path) -> None:
    stored = [BODY, BODY[::-1], BODY[:, ::-1], BODY[::-1, ::-1]]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as stream:
        for name, pixels in zip(("s/11.dcm", "s/11.dcm", "s/11 (2).dcm", "s/11.dcm"), stored, strict=True):
            stream.writestr(name, make_dicom(np.ascontiguousarray(pixels)))
        for _ in range(2):
            stream.mkdir("s") if hasattr(stream, "mkdir") else None
            stream.writestr("s/notes.txt", b"text")
    left_out = LeftOut()
    found = find_scans([tmp_path / "z.zip"], left_out)
    assert [file.entry for file in found] == ["s/11 (2).dcm", "s/11 (3).dcm", "s/11 (4).dcm", "s/11.dcm"]
    assert len({file.name for file in found}) == 4
    for file, number in zip(found, (2, 0, 1, 3), strict=True):
        np.testing.assert_array_equal(file.read().pixels, stored[number])
    assert left_out.names == {NO_IMAGE: ["notes (2).txt", "notes.txt"]}


def test_what_cannot_be_unpacked_is_listed_and_refused(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z.zip", {"a": make_dicom()}, zipfile.ZIP_BZIP2)
    (found,) = find_scans([path])
    assert "unusual zip compression" in refusal(found).message


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
    with pytest.raises(InputUnavailable):
        found.read()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, 99])
@pytest.mark.parametrize("name", ["a.dcm", "a"])
def test_an_encrypted_entry_is_called_so(make_dicom: MakeDicom, tmp_path: Path, name: str, method: int) -> None:
    path = make_zip(tmp_path / "z.zip", {name: make_dicom(), "b.dcm": make_dicom()})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + offset
        content[place] |= 1
        # 99 is that of AES, as WinZip and 7-Zip write it
        content[place + 2] = method
    path.write_bytes(content)
    found, other = find_scans([path])
    assert refusal(found).code == "unreadable"
    assert "encrypted" in refusal(found).message and "damaged" not in refusal(found).message
    assert other.read().pixels.shape == (480, 160)


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
