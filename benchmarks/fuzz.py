"""Fuzz the reader with damaged files; it must not crash, hang, or exhaust memory.

`python benchmarks/fuzz.py [--cases 20000] [--seed 1] [--json FILE]` mutates real files and reads them: the bundled
scan in every transfer syntax that can be written here, pydicom's own test files, a zip and plain images. Each case must
give a scan or a refusal within 5 s of processor time, beside that of the decoder, which has a limit of its own. A busy
machine fails no case: one may wait as long as the decoder's limits allow, and is repeated where it does not start in
time. The table counts the outcomes; the slowest case and the peak memory follow. `--case N` repeats one case of a
seed. Exit status 1 if a case fails.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from measuring import SCAN, options_of, status_mb, write_json
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from edge_spine.errors import InputUnavailable, Refusal
from edge_spine.reading.decoder_process import STALLED_SECONDS, START_SECONDS, decoder
from edge_spine.reading.files import find_scans
from edge_spine.reading.read import scan_from_bytes
from edge_spine.scan import Scan

LIMIT_S, LIMIT_MB, _ATTEMPTS = 5.0, 300.0, 3
# a decoder that does not start until the last attempt, and then stalls
LIMIT_WAITING_S = _ATTEMPTS * START_SECONDS + 2 * STALLED_SECONDS
# pydicom's own files and those of pydicom-data: colour, palette, 16 bits, and other encoders' frames
TEST_FILES = (
    *("SC_rgb_jpeg_gdcm.dcm", "OBXXXX1A_rle.dcm", "JPEG2000.dcm", "SC_rgb_jls_lossy_line.dcm"),
    *("US1_J2KR.dcm", "693_J2KI.dcm", "SC_ybr_full_uncompressed.dcm"),
)
# Markers before lengths, counts and tables.
_TELLING = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"),
    *("NumberOfFrames", "PhotometricInterpretation", "PixelSpacing", "ExposedArea", "PlanarConfiguration"),
    *("RescaleSlope", "WindowCenter", "WindowWidth", "PatientOrientation", "SpecificCharacterSet"),
)
_VALUES: tuple[Any, ...] = (0, 1, 7, 255, 4096, 65535, "", "1e400", "nan", -1, [0, 0], ["-0", "1e-320"], "MONOCHROME1")

_ENCODINGS = {
    ExplicitVRLittleEndian: {"implicit_vr": False, "little_endian": True},
    ImplicitVRLittleEndian: {"implicit_vr": True, "little_endian": True},
    ExplicitVRBigEndian: {"implicit_vr": False, "little_endian": False},
}


@cache
def seeds() -> tuple[bytes, ...]:
    """Return the valid files that are mutated."""
    scan = pydicom.dcmread(SCAN)
    scan.PixelData = np.ascontiguousarray(scan.pixel_array[::3, ::3]).tobytes()
    scan.Rows, scan.Columns = -(-scan.Rows // 3), -(-scan.Columns // 3)
    found = []
    for syntax in _ENCODINGS:
        scan.file_meta.TransferSyntaxUID = syntax
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, scan, force_encoding=True, **_ENCODINGS[syntax])
        found.append(stream.getvalue())
    scan = pydicom.dcmread(io.BytesIO(found[0]))
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        packed = pydicom.dcmread(io.BytesIO(_saved(scan)))
        packed.compress(syntax, generate_instance_uid=False)
        # Compressed files count double, because they reach the decoders.
        found += [_saved(packed)] * 2
    for name in TEST_FILES:
        if path := get_testdata_file(name, download=False):
            foreign = pydicom.dcmread(str(path))
            foreign.Modality, foreign.PixelSpacing = "OT", [1000 / foreign.Rows] * 2
            for keyword in ("ProtocolName", "SeriesDescription", "BodyPartExamined", "PatientOrientation"):
                if keyword in foreign:
                    delattr(foreign, keyword)
            found.append(_saved(foreign))
    packed_zip = io.BytesIO()
    with zipfile.ZipFile(packed_zip, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", found[0])
    array = io.BytesIO()
    np.save(array, scan.pixel_array)
    return (*found, packed_zip.getvalue(), array.getvalue())


def _saved(dataset: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def case(seed: int, number: int) -> bytes:
    """Return a mutated file, reproducible from seed and number."""
    chance = random.Random(f"{seed}/{number}")
    data = chance.choice(seeds())
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_MUTATIONS)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    # Half of the mutations are near the start, in the header.
    reach = len(damaged) if chance.random() < 0.5 else min(2000, len(damaged))
    for _ in range(chance.choice((1, 2, 8, 64))):
        if reach:
            damaged[chance.randrange(reach)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
    return bytes(damaged)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _lengthen(data: bytes, chance: random.Random) -> bytes:
    """Overwrite a possible length field."""
    if len(data) < 200:
        return data
    place = chance.randrange(132, len(data) - 4)
    number = chance.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, chance.randrange(2**32)))
    form = chance.choice(("<H", ">H", "<I", ">I"))
    packed = struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    return data[:place] + packed + data[place + len(packed) :]


def _splice(data: bytes, chance: random.Random) -> bytes:
    other = chance.choice(seeds())
    start, length = chance.randrange(len(other)), chance.choice((16, 256, 4096))
    place = chance.randrange(len(data) + 1)
    return data[:place] + other[start : start + length] + data[place + chance.choice((0, length)) :]


def _contradict(data: bytes, chance: random.Random) -> bytes:
    """Change attributes that describe the pixels in an otherwise valid file."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        for keyword in chance.sample(_TELLING, chance.randint(1, 3)):
            setattr(dataset, keyword, chance.choice(_VALUES))
        return _saved(dataset)
    except Exception:  # A damaged file may not be writable again.
        return data


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _flip, _cut, _lengthen, _splice, _contradict)


def outcome(data: bytes, folder: Path) -> str:
    """Read a file as the command line does; return "scan" or the refusal code.

    Raises
    ------
    Exception
        A defect of the reader.
    """
    try:
        if data[:2] == b"PK":
            path = folder / "case.zip"
            path.write_bytes(data)
            for scan_file in find_scans([path]):
                assert isinstance(scan_file.read((4.0, 4.0)), Scan)
            return "scan"
        scan = scan_from_bytes(data, "case", pixel_spacing=(4.0, 4.0))
        assert scan.pixels.dtype == np.float32 and scan.pixels.ndim == 2 and np.isfinite(scan.pixels).all()
        return "scan"
    except Refusal as refusal:
        assert "\n" not in refusal.message
        return refusal.code


@dataclass
class Found:
    """Outcomes of a run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest_case: int = -1
    baseline_mb: float | None = None
    peak_mb: float | None = None


def fuzz(seed: int, numbers: range, progress: Callable[[int], None] = lambda _number: None) -> Found:
    """Run cases and record time and memory, including the decoder process."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The mutator writes invalid values intentionally.
        warnings.simplefilter("ignore")
        for data in seeds():
            outcome(data, Path(folder))
        found.baseline_mb = found.peak_mb = _memory_mb()
        for number in numbers:
            data = case(seed, number)
            used, started = time.process_time(), time.perf_counter()
            try:
                found.outcomes[_patiently(data, Path(folder))] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                place = traceback.extract_tb(error.__traceback__)[-1]
                found.failures.append(f"case {number}: {type(error).__name__} in {place.filename}:{place.lineno}")
            seconds, waited = time.process_time() - used, time.perf_counter() - started
            if seconds > LIMIT_S or waited > LIMIT_WAITING_S:
                found.failures.append(f"case {number}: {seconds:.1f} s of processor time in {waited:.1f} s")
            if seconds > found.slowest_s:
                found.slowest_s, found.slowest_case = seconds, number
            memory = _memory_mb()
            if memory is not None and found.peak_mb is not None:
                found.peak_mb = max(found.peak_mb, memory)
            progress(number)
    if found.baseline_mb and found.peak_mb and found.peak_mb - found.baseline_mb > LIMIT_MB:
        found.failures.append(f"memory: {found.peak_mb - found.baseline_mb:.0f} MB over the baseline")
    return found


def _patiently(data: bytes, folder: Path) -> str:
    for _ in range(_ATTEMPTS - 1):
        with suppress(InputUnavailable):
            return outcome(data, folder)
    return outcome(data, folder)


def _memory_mb() -> float | None:
    """Return peak memory (MB) of this process and of the decoder, on systems with /proc."""
    own = status_mb("VmHWM")
    if own is None or decoder.pid is None:
        return own
    return own + (status_mb("VmHWM", decoder.pid) or 0.0)


def main() -> int:
    """Print the table."""
    parser = options_of(__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="default 20000")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--case", type=int, help="run this one again")
    options = parser.parse_args()
    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(outcome(case(options.seed, options.case), Path(folder)))
        return 0

    def progress(number: int) -> None:
        if number % 1000 == 999:
            print(f"{number + 1} cases", file=sys.stderr)

    found = fuzz(options.seed, range(options.cases), progress)
    for name, count in found.outcomes.most_common():
        print(f"{name:22}{count:8}")
    print(f"slowest: {found.slowest_s:.2f} s of processor time, case {found.slowest_case}")
    if found.peak_mb is not None and found.baseline_mb is not None:
        print(f"memory: {found.baseline_mb:.0f} MB before, at most {found.peak_mb:.0f} MB, decoder included")
    print("\n".join(found.failures) or "no failure")
    write_json(options.json, vars(found))
    return 1 if found.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
