"""Whatever a codec does in the child process, the next frame is decoded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_spine.reading import decoder_child, decoder_process
from edge_spine.reading.decoder_process import DecoderProcess, UndecodableFrame
from tests.edge_spine.reading.samples import rle


def child_program(tmp_path: Path, instead: str) -> str:
    """Return a decoder whose codec does something else."""
    program = Path(decoder_child.__file__).read_text(encoding="utf-8")
    changed = program.replace(
        "    from pydicom.encaps import encapsulate\n",
        f"    if len(frame) == 3:\n        {instead}\n    from pydicom.encaps import encapsulate\n",
    )
    assert changed != program
    path = tmp_path / "child.py"
    path.write_text(changed, encoding="utf-8")
    return str(path)


_LIMITED = pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no processor time of a frame")


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        pytest.param("os.abort()", "crash", marks=pytest.mark.slow),
        pytest.param("import time; time.sleep(90)", "takes more than 2 s$", marks=pytest.mark.slow),
        pytest.param("while True: pass", "takes more than 1 s of processor time", marks=[pytest.mark.slow, _LIMITED]),
        pytest.param("return bytes(2**31)", "memory", marks=pytest.mark.slow),
        pytest.param("raise BaseException('panic')", "damaged", marks=pytest.mark.slow),
        ("print('noise'); sys.stderr.write('SECRET'); raise ValueError", "damaged"),
        pytest.param("os._exit(0)", "crash", marks=pytest.mark.slow),
    ],
)
def test_whatever_a_codec_does_the_next_frame_is_decoded(
    fresh: DecoderProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    instead: str,
    words: str,
) -> None:
    if "2**31" in instead and sys.platform != "linux":
        pytest.skip("this system limits no address space")
    monkeypatch.setattr(decoder_child, "__file__", child_program(tmp_path, instead))
    monkeypatch.setattr(decoder_process, "FRAME_SECONDS", 1.0)
    if "sleep" in instead:
        monkeypatch.setattr(decoder_process, "STALLED_SECONDS", 2.0)
    frame, options, pixels = rle()
    assert fresh.decode(frame, 256, **options) == pixels
    with pytest.raises(UndecodableFrame, match=words):
        fresh.decode(b"bad", 256, **options)
    assert fresh.decode(frame, 256, **options) == pixels
    assert capfd.readouterr() == ("", "")
