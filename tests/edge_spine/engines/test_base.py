"""What every engine on the processor must do: answer, refuse wrong input and models, and close."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.engines import open_engine
from edge_spine.engines.verification import read_references
from edge_spine.errors import BundleError, UsageError
from tests.edge_spine.engines.processors import ENGINE_OF, IMAGE


def test_infer_gives_the_networks_answer_for_each_image(bundle, processor) -> None:
    _, outputs = read_references(bundle)
    with open_engine(bundle, processor, threads=1) as engine:
        assert (engine.name, engine.precision) == (processor, "float32")
        found = engine.infer(np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32))
    assert found.shape == (3, 1254) and found.dtype == np.float32
    assert np.abs(found - outputs[0]).max() < 1e-6


def test_images_that_are_not_contiguous_are_read_in_order(bundle, processor) -> None:
    with open_engine(bundle, processor) as engine:
        view = np.broadcast_to(np.float32(0.5), (2, 3, 224, 224))[::-1]
        assert engine.infer(view).shape == (2, 1254)


@pytest.mark.parametrize(
    "tensor",
    [
        IMAGE.astype(np.float64),
        IMAGE[0],
        IMAGE[:, :1],
        np.zeros((1, 3, 112, 112), np.float32),
        IMAGE[:0],
        IMAGE.tolist(),
    ],
    ids=["float64", "no batch", "one channel", "small", "empty", "list"],
)
def test_wrong_input_is_refused_before_inference(bundle, processor, tensor) -> None:
    with open_engine(bundle, processor) as engine, pytest.raises(UsageError, match=rf"^{processor}: input 'image'"):
        engine.infer(tensor)


def test_a_closed_engine_says_so(bundle, processor) -> None:
    engine = open_engine(bundle, processor)
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.infer(IMAGE)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_make_sense(bundle, processor, threads) -> None:
    with pytest.raises(UsageError, match="whole number"):
        open_engine(bundle, processor, threads=threads)


def test_a_damaged_model_is_one_line(processor, capfd) -> None:
    for content in (b"", b"not a model", bytes(1000)):
        with pytest.raises(BundleError) as caught:
            ENGINE_OF[processor](content)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_with_other_ends_is_refused(bundle, processor) -> None:
    with pytest.raises(BundleError, match="inputs and outputs are"):
        ENGINE_OF[processor](bundle.read("localiser.onnx"))
