"""Weights files: what is read, and what is refused in one line."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from export.checkpoint import CheckpointError, load_regressor, load_trunk
from export.lite import SpineLite
from export.regressor import SpineRegressor, resnet50_trunk


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_regressor(path)
    message = str(caught.value)
    assert message.startswith(path.name) and "\n" not in message
    return message


@pytest.fixture(scope="module")
def small() -> SpineLite:
    """The smaller of the two networks, where the kind of network does not matter."""
    torch.manual_seed(0)
    return SpineLite().init_().eval()


@pytest.fixture(scope="module")
def small_file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "spine.safetensors"
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in small.state_dict().items()}, path
    )
    return path


@pytest.mark.slow
def test_float16_safetensors_become_float32(regressor, weights_file):
    loaded, source = load_regressor(weights_file)
    assert not loaded.training
    assert source.file == "spine.safetensors" and source.epoch is None and len(source.sha256) == 64
    for name, value in regressor.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == value.dtype
        assert torch.allclose(found, value.half().to(value.dtype))


@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict", "model"])
def test_pytorch_files_bare_or_wrapped(small, tmp_path, wrapper):
    state = small.state_dict()
    path = tmp_path / "epoch.pt"
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 12, "loss": 0.5}, path)
    loaded, source = load_regressor(path)
    assert source.epoch == (None if wrapper is None else 12)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in state.items())


@pytest.mark.slow
def test_what_was_found_is_said(small, small_file, tmp_path):
    count = sum(parameter.numel() for parameter in small.parameters())
    state = small.state_dict()
    end = f"{len(state)} tensors, {count:,} parameters"
    assert load_regressor(small_file)[1].found == f"own layout (safetensors), no epoch stated, {end}, float16"
    path = tmp_path / "epoch:1999-loss_valid-points:0.0168.pt"
    torch.save({name: value.bfloat16() if "linear" in name else value for name, value in state.items()}, path)
    _, source = load_regressor(path, "released")
    assert source.epoch == 1999
    assert source.found == f"released layout (PyTorch, a bare state dict), epoch 1999, {end}, bfloat16 and float32"
    for epoch in (True, "7", None):
        torch.save({"state_dict": state, "epoch": epoch}, tmp_path / "odd.pt")
        assert "no epoch stated" in load_regressor(tmp_path / "odd.pt")[1].found


def test_a_layout_that_was_not_asked_for_is_refused(small, small_file, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(small.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"^mine\.pt: a PyTorch file; --layout own expects safetensors$"):
        load_regressor(path, "own")
    with pytest.raises(CheckpointError, match=r"^spine\.safetensors: a safetensors file; --layout released expects"):
        load_regressor(small_file, "released")
    assert load_regressor(small_file, "own")[1].found == load_regressor(small_file)[1].found


@pytest.mark.parametrize(
    "odd",
    [
        lambda value: value.to(torch.int32),
        lambda value: value.to(torch.complex64),
        lambda value: value.to_sparse(),
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        lambda value: value.to("meta"),
    ],
    ids=["whole numbers", "complex", "sparse", "quantised", "meta"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_refused(small, tmp_path, odd):
    path = tmp_path / "odd.pt"
    torch.save({**small.state_dict(), "linear.bias": odd(small.linear.bias.detach())}, path)
    refusal(path)


def test_names_of_parallel_training_and_missing_step_counts(small, tmp_path):
    state = {
        f"module.{name}": value
        for name, value in small.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path = tmp_path / "parallel.pt"
    torch.save(state, path)
    loaded, _ = load_regressor(path)
    assert torch.equal(loaded.linear.bias, small.linear.bias)


def test_what_differs_is_named(small, tmp_path):
    state = dict(small.state_dict())
    path = tmp_path / "other.safetensors"

    def saved(changed):
        save_file({name: value.contiguous() for name, value in changed.items()}, path)
        return refusal(path)

    without = {name: value for name, value in state.items() if not name.startswith("linear.")}
    assert "2 weights are missing, such as linear." in saved(without)
    assert "1 are unknown, such as fc.weight" in saved({**state, "fc.weight": torch.zeros(2)})
    message = saved({**state, "linear.bias": torch.zeros(1000)})
    assert "linear.bias with (1000,) where (1254,) is expected" in message
    broken = state["linear.bias"].clone()
    broken[3] = float("nan")
    assert "not finite, such as linear.bias" in saved({**state, "linear.bias": broken})


class Harmful:
    """Would create a file if it were ever unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("style", ["zip", "old", "pickle"])
def test_pickled_code_is_never_run(tmp_path, style):
    harm = tmp_path / "harm"
    path = tmp_path / "model.pt"
    if style == "pickle":
        path.write_bytes(pickle.dumps(Harmful(harm)))
    else:
        torch.save(Harmful(harm), path, _use_new_zipfile_serialization=style == "zip")
    assert "never loaded" in refusal(path)
    assert not harm.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00", bytes(64)])
def test_files_that_are_none(tmp_path, content):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    refusal(path)


def test_no_file_and_no_weights(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.pt")
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(2)], path)
    assert "a list without weights" in refusal(path)


def _as_torchvision(trunk: torch.nn.Sequential) -> dict[str, torch.Tensor]:
    names = {"0": "conv1", "1": "bn1", **{str(k + 3): f"layer{k}" for k in range(1, 5)}}
    state = {}
    for name, value in trunk.state_dict().items():
        first, _, rest = name.partition(".")
        state[f"{names[first]}.{rest}"] = value
    return {**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


@pytest.mark.slow
def test_a_trunk_of_torchvision_is_loaded(tmp_path):
    given, network = resnet50_trunk(), SpineRegressor()
    for norm in (part for part in given.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_()
    kept = network.linear.weight.clone()
    torch.save(_as_torchvision(given), tmp_path / "resnet50.pth")
    load_trunk(tmp_path / "resnet50.pth", network)
    for name, value in given.state_dict().items():
        assert torch.equal(network.model.state_dict()[name], value), name
    assert torch.equal(network.linear.weight, kept)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer3.2.conv1.weight"), "1 weights are missing"),
        (lambda state: state.update({"layer1.0.conv1.weight": torch.zeros(2)}), "another shape"),
        (lambda state: state.clear() or state.update(x=torch.zeros(1)), "missing"),
    ],
)
def test_other_trunks_are_refused(tmp_path, change, said):
    state = _as_torchvision(resnet50_trunk())
    change(state)
    torch.save(state, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=f"ResNet50: .*{said}"):
        load_trunk(tmp_path / "resnet.pth", SpineRegressor())
