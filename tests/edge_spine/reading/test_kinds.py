"""Files are told apart by their first bytes."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest

from edge_spine.reading.kinds import HEAD_BYTES, ImageKind, kind_of
from tests.edge_spine.reading.samples import BODY, MakeDicom, make_zip


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
