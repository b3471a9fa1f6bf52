"""Files are told apart by their first bytes."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

from edge_spine.reading.kinds import HEAD_BYTES, ImageKind, kind_of
from tests.edge_spine.reading.samples import BODY, UNCOMPRESSED, MakeDicom, bare, make_zip


def test_each_kind_by_its_own_writer(make_dicom: MakeDicom, tmp_path) -> None:
    stream = io.BytesIO()
    np.save(stream, BODY)
    written = {
        ImageKind.DICOM: make_dicom(),
        ImageKind.PNG: cv2.imencode(".png", BODY)[1].tobytes(),
        ImageKind.NPY: stream.getvalue(),
        ImageKind.ZIP: make_zip(tmp_path / "a.zip", {"a.dcm": b"x"}).read_bytes(),
    }
    assert set(written) == set(ImageKind)
    for kind, content in written.items():
        assert kind_of(content) is kind_of(content[:HEAD_BYTES]) is kind
    assert kind_of(make_zip(tmp_path / "empty.zip", {}).read_bytes()) is ImageKind.ZIP


@pytest.mark.parametrize("head", [b"", b"DICM", bytes(HEAD_BYTES), bytes(127) + b"DICM0", b"\x7fELF" + bytes(300)])
def test_anything_else_is_none(head: bytes) -> None:
    assert kind_of(head) is None


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize("meta", [True, False])
def test_dicom_without_a_preamble_is_known(make_dicom: MakeDicom, syntax: str, meta: bool) -> None:
    data = bare(make_dicom(syntax=syntax, SpecificCharacterSet="ISO_IR 100", ImageType=["ORIGINAL", "PRIMARY"]), meta)
    assert kind_of(data) is kind_of(data[:HEAD_BYTES]) is ImageKind.DICOM


@pytest.mark.hazard("bad-file")
@pytest.mark.parametrize("meta", [True, False])
def test_what_only_begins_like_dicom_is_none(make_dicom: MakeDicom, meta: bool) -> None:
    data = bare(make_dicom(SpecificCharacterSet="ISO_IR 100", StudyDate="20200101"), meta)
    assert kind_of(data[: data.index(b"1.2.840")]) is kind_of(data.replace(b"1.2.840", b"a text.")) is None
    assert kind_of(data[1:]) is kind_of(b"\0" + data) is None
    rng = np.random.default_rng(0)
    for _ in range(2000):
        start = data[: int(rng.integers(0, 16))]
        assert kind_of(start + rng.bytes(HEAD_BYTES - len(start))) is None
