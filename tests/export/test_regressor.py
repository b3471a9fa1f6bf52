"""The network against the published composition, built from the library that the authors used."""

from __future__ import annotations

import bottleneck_transformer_pytorch as library
import pytest
import torch
from torch import nn

from export.regressor import SpineRegressor, relative_table, resnet50_trunk


class PublishedComposition(nn.Module):
    """The released model's composition: trunk, the library's BottleStack, pool, flatten, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.model = resnet50_trunk()
        self.layer = library.BottleStack(
            dim=2048,
            fmap_size=7,
            dim_out=2048,
            proj_factor=4,
            downsample=False,
            heads=4,
            dim_head=128,
            rel_pos_emb=True,
            activation=nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.flatten = nn.Flatten(1)
        self.linear = nn.Linear(2048, 1254)

    def forward(self, images):
        return self.linear(self.flatten(self.pool(self.layer(self.model(images)))))


def blotches(count: int, seed: int):
    """Images with structure at the scale of a cell, so that the cells of the last map differ."""
    coarse = torch.rand(count, 3, 14, 14, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")


def randomise(module: nn.Module, seed: int) -> None:
    """Random gammas and betas, since zero gammas would hide every residual branch.

    The running statistics are measured once, so that no layer fades out, and then disturbed.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.5, 1.0))
            norm.bias.copy_(uniform(norm.bias, -0.3, 0.3))
            norm.momentum = 1.0
        for name, parameter in module.named_parameters():
            if name.endswith(("rel_height", "rel_width")):
                parameter.copy_(uniform(parameter, -3.0, 3.0))
        module.train()(blotches(4, seed))
        module.eval()
        for norm in norms:
            norm.running_mean += uniform(norm.running_mean, -0.1, 0.1) * norm.running_var.sqrt()
            norm.running_var *= uniform(norm.running_var, 0.8, 1.25)


@pytest.fixture(scope="module")
def published() -> PublishedComposition:
    torch.manual_seed(20240715)
    model = PublishedComposition().eval()
    randomise(model, 1)
    return model


@pytest.fixture(scope="module")
def ours(published) -> SpineRegressor:
    model = SpineRegressor().eval()
    model.load_state_dict(published.state_dict(), strict=True)
    return model


@pytest.fixture(scope="module")
def images():
    return blotches(2, 7)


@pytest.mark.slow
def test_same_output_as_the_published_composition(published, ours, images):
    with torch.inference_mode():
        expected, found = published(images), ours(images)
    assert found.shape == (2, 1254)
    assert (expected[0] - expected[1]).abs().max() > 1e-3, "the reference does not react to its input"
    assert (found - expected).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def published_answer(published, images):
    with torch.inference_mode():
        return published(images[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "model.0.weight",
        "model.1.running_var",
        "model.5.0.conv2.weight",
        "layer.net.0.net.3.to_qkv.weight",
        "layer.net.1.net.3.pos_emb.rel_height",
        "layer.net.2.net.3.pos_emb.rel_width",
        "layer.net.2.net.8.weight",
        "linear.bias",
    ],
)
def test_every_part_reaches_the_output(published_answer, ours, images, name):
    """Negative check: another value of one weight must break the agreement."""
    weight = ours.state_dict()[name]
    right = weight.clone()
    try:
        weight.copy_(right.flip(0) * 1.5)
        with torch.inference_mode():
            assert (ours(images[:1]) - published_answer).abs().max() > 1e-4
    finally:
        weight.copy_(right)


@pytest.mark.slow
def test_names_are_those_of_the_released_checkpoint(ours):
    """torchvision's ResNet50 children 0 to 7, the library's stack, and the last layer; nothing else."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"model.0.weight", "linear.weight", "linear.bias"} | {f"model.1.{part}" for part in norm}
    for stage, blocks in ((4, 3), (5, 4), (6, 6), (7, 3)):
        for block in range(blocks):
            prefix = f"model.{stage}.{block}"
            names |= {f"{prefix}.conv{index}.weight" for index in (1, 2, 3)}
            names |= {f"{prefix}.bn{index}.{part}" for index in (1, 2, 3) for part in norm}
        names |= {f"model.{stage}.0.downsample.0.weight"}
        names |= {f"model.{stage}.0.downsample.1.{part}" for part in norm}
    for block in range(3):
        prefix = f"layer.net.{block}.net"
        names |= {f"{prefix}.{index}.weight" for index in (0, 7)}
        names |= {f"{prefix}.{index}.{part}" for index in (1, 5, 8) for part in norm}
        names |= {f"{prefix}.3.to_qkv.weight"}
        names |= {f"{prefix}.3.pos_emb.rel_{axis}" for axis in ("height", "width")}
    state = ours.state_dict()
    assert set(state) == names
    # torchvision documents 25 557 032 parameters for ResNet50, of which 2 049 000 are its classifier.
    assert sum(p.numel() for p in ours.model.parameters()) == 25_557_032 - 2_049_000
    assert tuple(state["model.7.0.downsample.0.weight"].shape) == (2048, 1024, 1, 1)
    assert tuple(state["layer.net.0.net.3.to_qkv.weight"].shape) == (1536, 512, 1, 1)
    assert tuple(state["layer.net.0.net.3.pos_emb.rel_height"].shape) == (13, 128)


def test_relative_table_is_exact_at_the_learned_size_and_scales_elsewhere():
    embedding = torch.arange(13, dtype=torch.float32).unsqueeze(1) - 6  # the vector is its own offset
    exact = relative_table(embedding, 7)[..., 0]
    position = torch.arange(7, dtype=torch.float32)
    assert torch.equal(exact, position[None, :] - position[:, None])
    for cells in (1, 4, 5, 10):
        table = relative_table(embedding, cells)[..., 0]
        position = torch.arange(cells, dtype=torch.float32)
        wanted = ((position[None, :] - position[:, None]) * 7 / cells).clamp(-6, 6)
        assert torch.allclose(table, wanted, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(112, 112), (128, 160)])
def test_other_sizes_give_finite_outputs_and_gradients(ours, shape):
    output = ours(torch.rand(1, 3, *shape))
    assert output.shape == (1, 1254) and torch.isfinite(output).all()
    output.sum().backward()
    gradient = ours.layer.net[0].net[3].pos_emb.rel_height.grad
    assert gradient is not None and gradient.abs().sum() > 0
    ours.zero_grad(set_to_none=True)


def test_init_starts_as_shortcuts_around_the_mean():
    mean = torch.linspace(0.2, 0.8, 1254)
    model = SpineRegressor().init_(mean).eval()
    with torch.inference_mode():
        assert (model(torch.rand(1, 3, 96, 96)) - mean).abs().max() < 0.25
    assert torch.count_nonzero(model.layer.net[1].net[-1].weight) == 0
    assert torch.count_nonzero(model.model[5][2].bn3.weight) == 0
    assert bool((model.model[5][2].bn2.weight == 1).all())
