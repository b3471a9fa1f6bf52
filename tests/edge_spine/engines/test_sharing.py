"""An engine that one process holds for others; the GPU is a FAKE, the processes and their connections are real."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.engines import open_engine
from edge_spine.engines.base import Engine
from edge_spine.engines.sharing import Gathered, GpuProcess, Opened, SharedEngine
from edge_spine.errors import EngineLost, EngineUnavailable
from tests.edge_spine.engines import fake_gpu
from tests.edge_spine.engines.gpus import no_gpu

SPAWN = multiprocessing.get_context("spawn")


class Counting(Engine):
    """FAKE engine: answers each image with its first value, and waits until it may start."""

    name, precision, block = "tensorrt", "int8", 4

    def __init__(self) -> None:
        self.asked, self.may, self.sizes = threading.Event(), threading.Event(), list[int]()

    def _infer_block(self, images: Any) -> Any:
        self.asked.set()
        self.may.wait(60)
        self.sizes.append(len(images))
        return np.repeat(images[:, 0, 0, :1], 1254, axis=1)

    def close(self) -> None:
        pass


def test_what_waits_is_computed_together_and_each_gets_its_own_answer() -> None:
    engine = Counting()
    gathered = Gathered(engine)
    images = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224), np.float32)
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(gathered.infer, images[:1])]
        assert engine.asked.wait(60)
        asked += [pool.submit(gathered.infer, image[None]) for image in images[1:]]
        deadline = time.monotonic() + 60
        while gathered._waiting.qsize() < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        engine.may.set()
        answers = np.concatenate([each.result() for each in asked])
    assert np.array_equal(answers, np.repeat(np.arange(10, dtype=np.float32)[:, None], 1254, axis=1))
    # the first goes alone, and the rest waits meanwhile
    assert engine.sizes == [1, 4, 4, 1]


def test_images_are_cut_into_blocks_and_the_rest_goes_one_by_one() -> None:
    engine = Counting()
    engine.may.set()
    images = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224), np.float32)
    assert np.array_equal(engine.infer(images)[:, 0], np.arange(10)) and engine.sizes == [4, 4, 1, 1]


def test_whatever_the_other_process_does_is_a_lost_engine() -> None:
    def ask(images: Any) -> Any:
        raise EOFError

    with pytest.raises(EngineLost, match="tensorrt: the GPU failed"):
        SharedEngine(Opened("tensorrt", "int8", True, 4), ask).infer(np.zeros((1, 3, 224, 224), np.float32))


@pytest.mark.slow
def test_another_process_answers_as_the_engine_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(fake_gpu.NOTES, str(tmp_path))
    images = np.random.default_rng(0).random((3, 3, 224, 224), np.float32)
    lifeline, writer = SPAWN.Pipe(duplex=False)
    gpu = GpuProcess(SPAWN, "lite", "tensorrt", "auto", partial(fake_gpu.initialise, lifeline))
    with lifeline, writer, closing(gpu), open_engine(load_bundle("lite"), "onnx-cpu", threads=1) as here:
        assert gpu.shared is not None and gpu.opened == Opened("tensorrt", "int8", True, 4)
        with gpu.shared.connect() as there:
            assert np.array_equal(there.infer(images), here.infer(images))
        object.__setattr__(gpu.shared, "key", b"another")
        with pytest.raises(EngineLost, match="AuthenticationError"):
            gpu.shared.connect()
    assert not gpu.alive()
    with pytest.raises(EngineLost, match="a new process is needed"):
        gpu.shared.connect()


@no_gpu
def test_an_engine_that_cannot_run_there_is_one_line() -> None:
    with pytest.raises(EngineUnavailable, match=r"^tensorrt: no NVIDIA driver was found on this machine$"):
        GpuProcess(SPAWN, "lite", "tensorrt", "auto")
