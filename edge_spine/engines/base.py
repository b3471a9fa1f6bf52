"""Names of the inference engines, the interface that each has, and the checks that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import BundleError, EdgeSpineError, EngineLost, EngineUnavailable, UsageError
from edge_spine.network import INPUT_NAME, INPUT_SHAPE, OUTPUT_NAME, OUTPUT_SHAPE


class EngineName(str, Enum):
    """Engines by their names on the command line and in results; AUTO stands for the best one that runs here."""

    AUTO = "auto"
    ONNX_CPU = "onnx-cpu"
    ONNX_CUDA = "onnx-cuda"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"

    def __str__(self) -> str:
        """Return the name: Python versions differ in what they print for such a member."""
        return self.value


class Engine(AbstractContextManager["Engine"]):
    """Run a network on prepared crops; a context manager. Any number of threads may share it."""

    # value of an `EngineName`, such as "onnx-cpu"
    name: str
    # as the bundle's manifest states it, such as "int8"
    precision: str
    # number of images that are computed together where there are that many; otherwise they are computed one by one
    block: int = 1
    # whether inferences are replayed from a recorded CUDA graph
    graph: bool = False

    def infer(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map images, float32 (N, 3, 224, 224) in [0, 1], to curves, float32 (N, 1254) in crop pixels / 224.

        Raises
        ------
        UsageError
            The tensor has another type or shape, or the engine is closed.
        EngineLost
            A GPU failed; engines in this process do not work any more.
        """
        if not isinstance(tensor, np.ndarray) or tensor.dtype != np.float32:
            found = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
            raise UsageError(f"{self.name}: input {INPUT_NAME!r} is {found}, a float32 array is expected")
        if tensor.ndim != 4 or tensor.shape[1:] != INPUT_SHAPE[1:] or tensor.shape[0] < 1:
            raise UsageError(
                f"{self.name}: input {INPUT_NAME!r} has the shape {tensor.shape}, "
                f"(N, {', '.join(map(str, INPUT_SHAPE[1:]))}) is expected"
            )
        images, answers, done = np.ascontiguousarray(tensor), [], 0
        while done < len(images):
            count = self.block if len(images) - done >= self.block else 1
            answers.append(self._infer_block(images[done : done + count]))
            done += count
        return np.concatenate(answers)

    @abstractmethod
    def _infer_block(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map checked, contiguous images, 1 or `block` of them, to (N, 1254); called by several threads at once."""

    @abstractmethod
    def close(self) -> None:
        """Release memory and handles; a second call does nothing."""

    def __exit__(self, *_: object) -> None:
        self.close()


# by the CUDA that the driver supports
TENSORRT_EXTRAS = ("tensorrt-cu12", "tensorrt-cu13")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def losing(engine: str) -> Iterator[None]:
    """Turn whatever a GPU's library raises into EngineLost: most CUDA errors last until the process ends."""
    try:
        yield
    except EdgeSpineError:
        raise
    except Exception as error:
        raise EngineLost(
            f"{engine}: the GPU failed ({type(error).__name__}: {first_line(error)}); a new process is needed"
        ) from None


@contextmanager
def importing(engine: str, package: str, *extras: str) -> Iterator[None]:
    """Turn a failed import in the block into EngineUnavailable, which names the extras to install."""
    try:
        yield
    except (ImportError, OSError) as error:  # a library that is not found is an OSError on Windows
        install = " or ".join(f"'.[{extra}]'" for extra in extras)
        raise EngineUnavailable(
            f"{engine}: {package} cannot be imported ({first_line(error)}); pip install {install}"
        ) from None


def check_ends(engine: str, found: Sequence[tuple[Any, ...]], *more: str) -> None:
    """Raise BundleError where inputs and outputs, as (name, shape, *more), are not those of the network."""
    wanted = [(INPUT_NAME, INPUT_SHAPE, *more), (OUTPUT_NAME, OUTPUT_SHAPE, *more)]
    if found != wanted:
        raise BundleError(f"{engine}: the model's inputs and outputs are {found}, {wanted} expected")
