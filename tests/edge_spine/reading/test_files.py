from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edge_spine.errors import InputUnavailable, UsageError
from edge_spine.reading import read_scan
from edge_spine.reading.files import find_scans
from tests.edge_spine.reading.samples import MakeDicom, make_zip, refusal

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
    assert [file.name.split("-")[0] for file in found] == ["1.2.840.99", "a", "a", "z", "broken", "x"]
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
    assert refusal(found[0]).code == "unreadable"
    with pytest.raises(InputUnavailable, match="no such file"):
        found[1].read()


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"no scan found \(left out: 1 no image \(notes\.txt\)\)"):
        find_scans([tmp_path])
    with pytest.raises(UsageError, match="no scan found"):
        find_scans([])


def test_the_same_file_counts_once(make_dicom: MakeDicom, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(make_dicom())
    assert [file.name for file in find_scans([path, tmp_path, str(path)])] == ["a"]


# --- names


@pytest.mark.hazard("names-collide")
def test_repeated_names_get_a_hash_of_their_own_in_every_order(make_dicom: MakeDicom, tmp_path: Path) -> None:
    names = ("1/a.dcm", "2/A.dcm", "3/b.dcm", "4/a.dcm")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(make_dicom())
    found = {file.path: file.name for file in find_scans([tmp_path])}
    assert found == {file.path: file.name for file in find_scans([tmp_path / name for name in reversed(names)])}
    assert len({name.lower() for name in found.values()}) == 4
    assert found[tmp_path / "3/b.dcm"] == "b"
    assert all(re.fullmatch(r"[aA]-[0-9a-f]{8}", name) for path, name in found.items() if path.parent.name != "3")


@pytest.mark.hazard("names-collide")
def test_repeated_names_in_a_zip_stay_when_it_is_moved(make_dicom: MakeDicom, tmp_path: Path) -> None:
    content = make_dicom()
    zipped = make_zip(tmp_path / "z.zip", {"s1/11.dcm": content, "s2/11.dcm": content})
    found = find_scans([zipped])
    (tmp_path / "work").mkdir()
    moved = zipped.rename(tmp_path / "work" / "z.zip")
    assert [file.name for file in find_scans([moved])] == [file.name for file in found]
    assert len({file.name for file in found}) == 2
    assert [file.read().path for file in find_scans([moved])] == [f"{moved}!s1/11.dcm", f"{moved}!s2/11.dcm"]


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
    assert len({file.name for file in found}) == 2 and all(file.name.startswith("IM_0001-") for file in found)
    assert all(file.read().pixels.shape == (480, 160) for file in found)


def test_find_scans_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_zip(tmp_path / "z.zip", {"a.dcm": b"x"})

    def fail(*_: object) -> bytes:
        raise AssertionError("read too early")

    monkeypatch.setattr("edge_spine.reading.files.read_entry", fail)
    monkeypatch.setattr("edge_spine.reading.files.read_scan", fail)
    assert len(find_scans([tmp_path])) == 1
