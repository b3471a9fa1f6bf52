"""A network with random weights that survives INT8, and a bundle made from it once."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import export.package
from export.__main__ import main
from export.gate import reference_outputs
from export.onnx_graph import export_graph
from export.regressor import CHANNELS, ResidualBlock, SpineRegressor
from export.training.dataset import render
from tests.edge_spine.fake_bundle import fake_output


def soft_crops(count: int, seed: int) -> np.ndarray:
    """Return uint8 (count, 224, 224) crops of soft blotches, some dark and some bright."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 14, 14), dtype=np.float32) * np.linspace(0.3, 1, count)[:, None, None]
    return np.stack([(cv2.resize(image, (224, 224)) * 255).round().astype(np.uint8) for image in coarse])


@pytest.fixture
def few_shapes(monkeypatch):
    """Training starts from the principal shapes of a few samples, which takes a second instead of seven."""
    monkeypatch.setattr("export.training.run.SHAPE_SAMPLES", 200)


class NarrowBlock(ResidualBlock):
    """A residual block with an eighth of the usual channels; the stem before it keeps all 64."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__(channels_in if channels_in == 64 else channels_in // 8, width // 8, stride)


@pytest.fixture
def narrow(monkeypatch):
    """The published network with an eighth of its channels, where only what is done with a network is under test."""
    monkeypatch.setattr("export.regressor.ResidualBlock", NarrowBlock)
    monkeypatch.setattr("export.regressor.CHANNELS", CHANNELS // 8)


@pytest.fixture(scope="session")
def phantom_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard of two phantoms, rendered once, for tests that only read it."""
    folder = tmp_path_factory.mktemp("phantoms")
    render(folder, 2, 500, workers=1)
    return folder


@pytest.fixture(scope="session")
def crops():
    return SimpleNamespace(calibration=soft_crops(4, 1), references=soft_crops(4, 2))


@pytest.fixture(scope="session")
def regressor():
    """Random weights whose signal is stronger than INT8's noise, as in a trained network.

    Averaging (positive) kernels on the way down, weak residual branches, and batch norms measured once. It answers a
    spine, which each image moves a little, neighbouring rows alike.
    """
    torch.manual_seed(3)
    model = SpineRegressor().init_(torch.from_numpy(fake_output()))
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("downsample.0.weight", "model.0.weight")):
                parameter.abs_()
            elif name.endswith(("bn3.weight", "net.8.weight")):
                parameter.uniform_(0.02, 0.1)
        for norm in norms:
            norm.momentum = 1.0
        images = torch.from_numpy(soft_crops(4, 3)).float().div(255)[:, None].expand(-1, 3, -1, -1)
        rows = model.linear.weight.view(209, 6, -1)
        rows[1:-1] += 0.45 * (rows[2:] + rows[:-2])
        rows *= 0.11
        model.train()(images)
        for norm in norms:
            norm.running_var += norm.running_mean**2
            norm.running_mean.zero_()
    model.eval()
    assert float(reference_outputs(model, soft_crops(3, 4)).std(axis=0).mean()) * 224 > 0.5
    return model


@pytest.fixture(scope="session")
def weights_file(regressor, tmp_path_factory):
    """The network as training leaves it: float16 safetensors."""
    path = tmp_path_factory.mktemp("weights") / "spine.safetensors"
    state = {
        name: value.half() if value.is_floating_point() else value for name, value in regressor.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    assert torch.float16 in {value.dtype for value in state.values()}
    return path


@pytest.fixture(scope="session")
def card_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "card.json"
    card = {
        "name": "test-spine",
        "version": "0.0.1",
        "training": "Random weights; nothing was trained.",
        "licence": "none",
        "evaluation": {"count": 0},
    }
    path.write_text(json.dumps(card), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def released(regressor, tmp_path_factory):
    """A checkpoint as the published training script saves it, and its network composed with the authors' library."""
    from tests.export.test_regressor import PublishedComposition

    network = PublishedComposition()
    network.load_state_dict(regressor.state_dict(), strict=True)
    path = tmp_path_factory.mktemp("released") / "released.pt"
    torch.save({"epoch": 12, "model_state_dict": network.state_dict()}, path)
    return SimpleNamespace(path=path, network=network.eval())


@pytest.fixture(scope="session")
def exported(released, card_file, crops, tmp_path_factory):
    """`python -m export` once, from a released checkpoint to a bundle folder."""
    folder = tmp_path_factory.mktemp("export")
    archive = folder / "crops.npz"
    np.savez(archive, crops=np.concatenate([crops.calibration, crops.references]))
    graphs = []
    arguments = ["--layout", "released", "--out", str(folder / "bundle"), "--card", str(card_file)]
    arguments += ["--calibration-crops", str(archive), "--reference-count", str(len(crops.references))]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr(export.package, "export_graph", lambda network: graphs.append(export_graph(network)) or graphs[0])
        status = main([str(released.path), *arguments])
    return SimpleNamespace(
        status=status, folder=folder / "bundle", archive=archive, said=said.getvalue(), graph=graphs[0]
    )
