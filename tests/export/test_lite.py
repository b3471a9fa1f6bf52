"""spine-lite: what it takes from the large network, its ends, its checkpoint, its graph and its INT8 form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.checkpoint import CheckpointError, load_regressor
from export.gate import reference_outputs
from export.lite import SpineLite
from export.onnx_graph import export_graph
from export.quantize import Recipe, quantise
from export.regressor import SpineRegressor
from export.training.head import write_weights
from export.training.run import LITE, Run
from export.training.samples import Samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large() -> SpineRegressor:
    torch.manual_seed(0)
    return SpineRegressor().init_().eval()


@pytest.fixture(scope="module")
def lite(large: SpineRegressor) -> SpineLite:
    return SpineLite().init_().start_from(large).eval()


def test_its_ends_are_those_of_the_large_network(lite: SpineLite) -> None:
    with torch.no_grad():
        assert lite(torch.rand(2, 3, 224, 224)).shape == (2, 1254)


def test_its_stem_computes_what_the_large_one_does_on_equal_channels(lite: SpineLite, large: SpineRegressor) -> None:
    image = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(
            lite.model[:4](image), large.model[:4](image.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
        )


def test_stages_come_from_the_large_network(lite: SpineLite, large: SpineRegressor) -> None:
    for here, there in ((5, 4), (6, 5), (7, 6)):
        for block, source in zip(lite.model[here], large.model[there], strict=False):
            assert torch.equal(block.conv2.weight, source.conv2.weight)
    assert sum(parameter.numel() for parameter in lite.parameters()) < 0.3 * sum(p.numel() for p in large.parameters())


def test_its_checkpoint_comes_back_as_itself(lite: SpineLite, tmp_path: Path) -> None:
    write_weights(lite, tmp_path / "lite.safetensors")
    loaded, source = load_regressor(tmp_path / "lite.safetensors")
    assert isinstance(loaded, SpineLite) and "own layout" in source.found
    with torch.no_grad():
        image = torch.rand(1, 3, 224, 224)
        assert float((loaded(image) - lite(image)).abs().max()) < 1e-2


def test_a_checkpoint_with_one_channel_and_other_parts_is_refused_by_name(lite: SpineLite, tmp_path: Path) -> None:
    torch.save({"model.0.weight": lite.model[0].weight.detach()}, tmp_path / "part.pt")
    with pytest.raises(CheckpointError, match=r"does not hold the weights of SpineLite: .* missing"):
        load_regressor(tmp_path / "part.pt")


def test_its_graph_quantises_without_a_float_step_inside(lite: SpineLite, crops) -> None:
    """A pooling that stayed in float would turn every value there and back."""
    graph = export_graph(lite)
    quantised = quantise(graph, crops.calibration, Recipe(method="minmax"))
    made_by = {output: node.op_type for node in quantised.graph.node for output in node.output}
    for node in quantised.graph.node:
        if node.op_type in ("Conv", "AveragePool", "MaxPool"):
            assert made_by.get(node.input[0]) == "DequantizeLinear", node.name
    onnx.checker.check_model(quantised)
    assert reference_outputs(lite, crops.references).shape == (len(crops.references), 1254)


def test_the_teachers_answers_make_up_most_of_the_targets(phantom_cache: Path) -> None:
    plain = Samples(phantom_cache, seed=1).batch(4, 224)
    asked = []

    def teacher(images: np.ndarray) -> np.ndarray:
        asked.append(images)
        return np.zeros((len(images), 1254), np.float32)

    taught = Samples(phantom_cache, seed=1, teacher=teacher)
    images, targets = taught.batch(4, 224)
    assert np.array_equal(images, plain[0]) and np.array_equal(asked[0], images)
    np.testing.assert_allclose(targets, 0.3 * plain[1], rtol=1e-5)
    # thumbnails, which only tell the mean shape, are none of a teacher's business
    taught.batch(4, 32)
    assert len(asked) == 1


@pytest.mark.usefixtures("few_shapes")
def test_a_run_starts_from_the_large_network_and_learns(
    large: SpineRegressor, phantom_cache: Path, tmp_path: Path
) -> None:
    write_weights(large, tmp_path / "large.safetensors")
    samples = Samples(phantom_cache, seed=1)
    run = Run(samples, tmp_path, 1.0, "cpu", LITE, tmp_path / "large.safetensors")
    assert isinstance(run.model, SpineLite)
    losses = [run.train_step(*samples.batch(4, 224)) for _ in range(2)]
    assert np.isfinite(losses).all()
    write_weights(run.average, tmp_path / "lite.safetensors")
    again = Run(samples, tmp_path, 1.0, "cpu", LITE, tmp_path / "lite.safetensors")
    assert isinstance(again.model, SpineLite)
