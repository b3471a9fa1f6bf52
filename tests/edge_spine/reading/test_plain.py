"""PNG and NPY images."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.reading.read import scan_from_bytes
from tests.edge_spine.reading.samples import BODY
from tests.edge_spine.refusing import refused


def png(image: NDArray[np.generic]) -> bytes:
    done, encoded = cv2.imencode(".png", image)
    assert done
    return encoded.tobytes()


def npy(array: NDArray[np.generic], **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_png(kind: str) -> None:
    image = BODY.astype(kind) * (1 if kind == "uint8" else 257)
    for stored in (image, np.repeat(image[..., None], 3, axis=2)):
        scan = scan_from_bytes(png(stored), "file.png", pixel_spacing=(4, 4.5))
        np.testing.assert_array_equal(scan.pixels, image.astype(np.float32))
        assert scan.pixels.dtype == np.float32
        assert scan.pixel_spacing_mm == (4.0, 4.5)
        assert scan.flags == ("orientation-unknown",)
        assert scan.sop_instance_uid is None


def test_png_colour_and_alpha() -> None:
    colour = np.random.default_rng(5).integers(0, 256, (480, 160, 4), dtype=np.uint8)
    scan = scan_from_bytes(png(colour), "file.png", pixel_spacing=(4, 4))
    blue, green, red, _ = np.moveaxis(colour.astype(np.float64), 2, 0)
    np.testing.assert_allclose(scan.pixels, 0.299 * red + 0.587 * green + 0.114 * blue, rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
def test_png_with_a_palette(bits: int) -> None:
    """As programs write it that reduce the colours: the grey of a pixel is that of its entry."""
    entries = np.random.default_rng(5).permutation(256)[: 2**bits].astype(np.uint8)
    places = np.random.default_rng(6).integers(0, 2**bits, (480, 160), dtype=np.uint8)
    packed = places if bits == 8 else places[:, ::2] << 4 | places[:, 1::2]
    rows = np.pad(packed, ((0, 0), (1, 0)))
    data = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 160, 480, bits, 3, 0, 0, 0)),
            chunk(b"PLTE", np.repeat(entries, 3).tobytes()),
            chunk(b"tRNS", b"\0\0"),
            chunk(b"IDAT", zlib.compress(rows.tobytes())),
            chunk(b"IEND", b""),
        ]
    )
    scan = scan_from_bytes(data, "file.png", pixel_spacing=(4, 4))
    np.testing.assert_array_equal(scan.pixels, entries[places])


@pytest.mark.parametrize("palette", [b"", b"\0" * 4, b"\0" * 771, b"\0" * 3])
def test_a_palette_that_is_damaged_or_short(palette: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    data = b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 160, 480, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", palette),
            chunk(b"IDAT", zlib.compress((b"\0" + b"\x09" * 160) * 480)),
            chunk(b"IEND", b""),
        ]
    )
    if len(palette) == 3:
        # pixels name colours that it does not hold
        assert scan_from_bytes(data, "file.png", pixel_spacing=(4, 4)).pixels.max() == 0
    else:
        refused(data, "unreadable", pixel_spacing=(4, 4))
    assert capfd.readouterr() == ("", "")


def test_png_ancillary_chunks_are_dropped_unread(capfd: pytest.CaptureFixture[str]) -> None:
    data = png(BODY)
    after_header = 8 + 25
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))
    profile = chunk(b"iCCP", b"bad\0\0not zlib")
    data = data[:after_header] + profile + bomb + data[after_header:]
    np.testing.assert_array_equal(scan_from_bytes(data, "a.png", pixel_spacing=(4, 4)).pixels, BODY)
    assert capfd.readouterr().err == ""


def with_exif(data: bytes, orientation: int, order: str = "<", place: int = 33, prefix: bytes = b"") -> bytes:
    """Put an eXIf chunk with the width and an orientation before the byte `place` of a PNG file, after the header."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 2)
    width, turn = (
        struct.pack(f"{order}HHII", 0x0100, 4, 1, 160),
        struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0),
    )
    return data[:place] + chunk(b"eXIf", prefix + head + width + turn + bytes(4)) + data[place:]


@pytest.mark.hazard("image-turned")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_is_turned_as_its_exif_metadata_say(orientation: int, order: str) -> None:
    images, operations = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    stored = BODY if orientation < 5 else np.ascontiguousarray(BODY.T)
    for place, prefix in ((33, b""), (-12, b""), (33, b"Exif\0\0")):
        data = with_exif(png(stored), orientation, order, place, prefix)
        scan = scan_from_bytes(data, "a.png", pixel_spacing=(4, 4.5) if orientation < 5 else (4.5, 4))
        shown = np.asarray(operations.exif_transpose(images.open(io.BytesIO(data))))
        np.testing.assert_array_equal(scan.pixels, shown)
        assert scan.pixels.shape == BODY.shape and scan.pixel_spacing_mm == (4, 4.5)
        turned = {1: (), 3: ("rotated-put-right",), 6: ("rotated-put-right",), 8: ("rotated-put-right",)}
        assert scan.flags == ("orientation-unknown", *turned.get(orientation, ("mirrored-put-right",)))
        assert bool(scan.notes) == (orientation > 1)
        corners = [[0, 0], [159, 0], [40, 200]]
        for (column, row), (before, above) in zip(corners, scan.turn.stored_points(corners, (480, 160)), strict=True):
            assert scan.pixels[row, column] == stored[int(above), int(before)]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    scan = scan_from_bytes(with_exif(png(BODY), orientation), "a.png", pixel_spacing=(4, 4))
    np.testing.assert_array_equal(scan.pixels, BODY)
    assert scan.flags == ("orientation-unknown",)


def test_exif_metadata_that_are_cut_short_turn_nothing_and_damaged_ones_are_refused() -> None:
    data, start = with_exif(png(BODY), 6), 33
    content = data[start + 8 : start + 8 + 38]
    for length in range(len(content) - 8):
        short = data[:start] + chunk(b"eXIf", content[:length]) + png(BODY)[33:]
        assert scan_from_bytes(short, "a.png", pixel_spacing=(4, 4)).flags == ("orientation-unknown",)
    broken = bytearray(data)
    broken[start + 20] ^= 1
    refused(bytes(broken), "unreadable", pixel_spacing=(4, 4))


@pytest.mark.parametrize("data", [npy(BODY), png(BODY)], ids=["npy", "png"])
def test_plain_images_need_a_spacing(data: bytes) -> None:
    assert "--pixel-spacing" in refused(data, "no-spacing")
    refused(data, "not-whole-body", pixel_spacing=(1, 1))
    refused(data, "no-spacing", pixel_spacing=(19, 19))


@pytest.mark.parametrize("data", [npy(BODY), png(BODY)], ids=["npy", "png"])
def test_truncated_and_mutated_plain_images(data: bytes) -> None:
    for length in range(8, len(data) - 1, len(data) // 30):
        refused(data[:length], "unreadable", pixel_spacing=(4, 4))
    rng = random.Random(1)
    for _ in range(60):
        mutated = bytearray(data)
        mutated[rng.randrange(8, 130)] = rng.randrange(256)
        with contextlib.suppress(Refusal):
            scan_from_bytes(bytes(mutated), "file", pixel_spacing=(4, 4))


def png_header(rows: int, columns: int, bits: int = 8, colour_type: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_png_dimensions_are_checked_before_decoding() -> None:
    refused(png_header(2**31 - 1, 2**31 - 1), "too-large", pixel_spacing=(4, 4))
    refused(png_header(0, 160), "unreadable", pixel_spacing=(4, 4))
    refused(png_header(99, 160), "too-small", pixel_spacing=(10, 4))
    refused(png_header(480, 160, bits=4), "unsupported-syntax", pixel_spacing=(4, 4))
    refused(png_header(480, 160, colour_type=3), "unsupported-syntax", pixel_spacing=(4, 4))
    refused(png_header(480, 160), "unreadable", pixel_spacing=(4, 4))


@pytest.mark.parametrize("kind", ["uint8", "int16", "<f4", ">f8", "float16"])
def test_npy(kind: str) -> None:
    array = BODY.astype(kind)
    for stored in (array, np.asfortranarray(array)):
        scan = scan_from_bytes(npy(stored), "file.npy", pixel_spacing=(4, 4))
        assert scan.pixels.dtype == np.float32
        assert scan.pixels.flags.c_contiguous
        np.testing.assert_array_equal(scan.pixels, BODY)


@pytest.mark.parametrize(
    "array",
    [
        BODY.astype(complex),
        BODY[None],
        BODY.astype(bool),
        np.full((480, 160), np.nan, np.float32),
        np.full((480, 160), 1e300),
        BODY.astype(str),
    ],
    ids=["complex", "3-d", "bool", "nan", "overflow", "text"],
)
def test_npy_that_is_no_image(array: NDArray[np.generic]) -> None:
    refused(npy(array), "unreadable", pixel_spacing=(4, 4))


def test_npy_never_unpickles(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    array = np.empty((480, 160), dtype=object)
    array[:] = None
    array[0, 0] = Trap()
    refused(npy(array, allow_pickle=True), "unreadable", pixel_spacing=(4, 4))
    assert not (tmp_path / "sprung").exists()


def test_npy_header_is_checked_before_allocation() -> None:
    def header(shape: tuple[int, int]) -> bytes:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
        return stream.getvalue()

    refused(header((10**6, 10**6)), "too-large", pixel_spacing=(4, 4))
    refused(header((-480, 160)), "unreadable", pixel_spacing=(4, 4))
    tracemalloc.start()
    refused(header((5000, 5000)), "unreadable", pixel_spacing=(0.2, 0.2))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
