"""Arrays of .npz files are read, and every file that is none, or that would fill the memory, is refused."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import npz
from edge_spine.errors import BundleError
from edge_spine.npz import read_arrays

FIRST, SECOND = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.uint8)


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def packed(first: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive with the members first.npy, of any bytes, and second.npy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("first.npy", first)
        archive.writestr("second.npy", npy(SECOND))
    return stream.getvalue()


def patched(local: int, central: int, value: int) -> bytes:
    """Return an archive with one byte changed in the local header and in the central directory of each member."""
    content = bytearray(packed(npy(FIRST)))
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] = value
            at = content.find(signature, at + 4)
    return bytes(content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_by_name(save: Any) -> None:
    stream = io.BytesIO()
    save(stream, first=FIRST, second=SECOND, third=np.array([object()]))
    second, first = read_arrays(stream.getvalue(), "a.npz", "second", "first")
    np.testing.assert_array_equal(first, FIRST)
    np.testing.assert_array_equal(second, SECOND)
    assert first.dtype == np.float32 and second.dtype == np.uint8


CLAIMED = npy(np.zeros(0, np.float32)).replace(b"(0,), }" + 15 * b" ", b"(99999999999999,), }  ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        npy(FIRST),
        packed(npy(FIRST))[:-40],
        packed(b"no array"),
        packed(npy(FIRST)[:-1]),
        packed(npy(np.array([{}], dtype=object))),
        packed(CLAIMED),
        packed(npy(FIRST), zipfile.ZIP_BZIP2),
        packed(npy(FIRST), zipfile.ZIP_LZMA),
        patched(6, 8, 1),
        patched(8, 10, 99),
        packed(npy(FIRST)).replace(b"first.npy", b"other.npy"),
    ],
    ids=[
        "empty",
        "text",
        "npy",
        "cut short",
        "bytes",
        "array cut short",
        "pickle",
        "huge shape",
        "bzip2",
        "lzma",
        "encrypted",
        "unknown method",
        "missing",
    ],
)
def test_a_file_without_the_arrays_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^a\.npz is no \.npz file with first, second: .") as refused:
        read_arrays(content, "a.npz", "first", "second")
    # NumPy's own message advises to unpickle
    assert "pickle.load" not in str(refused.value)


def test_a_small_file_of_large_arrays_is_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(npy(np.zeros(1 << 20, np.float32)), zipfile.ZIP_DEFLATED)
    assert len(content) < 1 << 14
    assert read_arrays(content, "a.npz", "first")[0].nbytes == 4 << 20
    monkeypatch.setattr(npz, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("a member was opened"))
    with pytest.raises(BundleError, match=r"its arrays take 41\d{5} bytes, at most 1048576 are accepted"):
        read_arrays(content, "a.npz", "first", "second")
