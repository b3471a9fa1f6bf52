"""Access the private members of edge_spine that benchmarks need; no other benchmark uses any."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_spine import SpineEstimator
    from edge_spine.engines import Engine
    from edge_spine.preprocessing.locator import Localiser


def engine_of(estimator: SpineEstimator) -> Engine:
    """Return the engine of an estimator."""
    return estimator._engine


def localiser_of(estimator: SpineEstimator) -> Localiser:
    """Return the localiser of an estimator."""
    return estimator._localiser


def answer_with_the_last(localiser: Localiser) -> None:
    """Replace the localiser's network by one that always returns its last output."""
    networks = localiser._networks
    with networks.lent() as network:
        answer = _Answer(network.forward().copy())
    networks._idle[:] = [answer]


def cuda_session(engine: Any) -> tuple[Any, Callable[[], object]]:
    """Return the CUDA session of a TensorRT engine, and a function that enqueues one inference without waiting."""
    session = engine._sessions[0]

    def enqueue() -> None:
        if session._graph is None:
            session._enqueue(engine.enqueuing(0))
        else:
            session._graph.launch(session.stream.handle)

    return session, enqueue


class _Answer:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def setInput(self, _blob: Any) -> None:
        """Ignore the input."""

    def forward(self) -> Any:
        """Return the fixed output."""
        return self._answer
