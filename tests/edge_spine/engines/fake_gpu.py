"""A FAKE engine on a GPU for processes that a test starts: it computes on the processor, and notes what it is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edge_spine import estimator
from edge_spine.bundle.load import Bundle
from edge_spine.cohort import pool
from edge_spine.engines import select, sharing
from edge_spine.engines.base import Engine

# set by the test: the folder of the notes, the engine's name, and the image at which the GPU fails once
NOTES, NAME, FAILS_AT = "FAKE_GPU_NOTES", "FAKE_GPU_NAME", "FAKE_GPU_FAILS_AT"
_begin = pool._initialise


class FakeGpuEngine(Engine):
    precision, block, graph = "int8", 4, True

    def __init__(self, bundle: Bundle) -> None:
        self.inner = select.open_engine(bundle, "onnx-cpu", threads=1)
        self.name = os.environ.get(NAME, "tensorrt")
        self.note, self.count = notes() / f"{os.getpid()}", 0
        self.note.touch()

    def _infer_block(self, images: Any) -> Any:
        with self.note.open("a") as file:
            file.write(f"{len(images)}\n")
        self.count += len(images)
        failed = notes().parent / "failed"
        if self.count >= int(os.environ.get(FAILS_AT, 1_000_000)) and not failed.exists():
            failed.touch()
            raise RuntimeError("FAKE: unspecified launch failure")
        return self.inner.infer(images)

    def close(self) -> None:
        self.inner.close()


def notes() -> Path:
    return Path(os.environ[NOTES])


def initialise(*arguments: Any) -> None:
    """Put the FAKE in place of every engine that this process opens for others, and let it open none for itself."""
    _begin(*arguments)

    def opened(bundle: Bundle, *_: Any, **__: Any) -> FakeGpuEngine:
        return FakeGpuEngine(bundle)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a worker opens an engine of its own")

    sharing.open_engine = opened  # type: ignore[assignment]
    if os.environ.get(NAME) is None:
        estimator.open_engine = refused  # type: ignore[assignment]
