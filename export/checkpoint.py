"""Read the weights of the network: our safetensors files, and PyTorch files as the published code saves them.

A PyTorch file is a pickle, so it is opened with ``weights_only=True``: tensors and plain values
only, never code.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from edge_spine.errors import EdgeSpineError
from export.lite import Network, SpineLite
from export.regressor import SpineRegressor

# Keys of the weights in checkpoints with epoch and optimiser.
_WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
_EPOCH = "epoch"
# The published training script writes the epoch only in the file name: "epoch:12-loss_valid-points:0.017.pt".
_NAMED_EPOCH = re.compile(r"epoch\W?(\d{1,9})")
_KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Layout = Literal["auto", "released", "own"]
# Prefix of every name by DataParallel.
_PARALLEL = "module."
# What the trunk is called in messages.
_KIND = {nn.Sequential: "torchvision's ResNet50"}
# Number of training steps; not used in evaluation and optional.
_UNUSED = "num_batches_tracked"


class CheckpointError(EdgeSpineError):
    """A file does not contain weights of this network."""


@dataclass(frozen=True)
class Source:
    """Origin of weights.

    Attributes
    ----------
    file : str
        File name without folder.
    sha256 : str
        SHA-256 of the file.
    epoch : int or None
        Epoch as stated in the file or its name.
    found : str
        Description: layout, epoch, tensors, parameters and their type.
    """

    file: str
    sha256: str
    epoch: int | None
    found: str


def load_regressor(path: str | os.PathLike[str], layout: Layout = "auto") -> tuple[Network, Source]:
    """Load the published network or spine-lite from a file of weights.

    Parameters
    ----------
    path : path
        A safetensors file or a PyTorch file, told apart by content; weights in floating point,
        bare or under one of the usual keys with an epoch beside them.
    layout : str
        "released" demands a PyTorch file as the published code saves it, "own" a
        safetensors file as `export.training` writes it, "auto" takes either.

    Returns
    -------
    regressor : SpineRegressor or SpineLite
        float32, in evaluation mode.
    source : Source
        For the bundle's manifest.

    Raises
    ------
    CheckpointError
        The file does not contain these weights; the message names the difference.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror or 'cannot be read'}") from None
    tensors, epoch, form = _tensors(path.name, content, layout)
    regressor = SpineLite() if _is_lite(tensors) else SpineRegressor()
    _refuse_differences(path.name, tensors, regressor)
    wanted = regressor.state_dict()
    regressor.load_state_dict(
        {name: tensors.get(name, value).to(value.dtype) for name, value in wanted.items()}, strict=True
    )
    kinds = sorted({str(value.dtype).removeprefix("torch.") for name, value in tensors.items() if _UNUSED not in name})
    count = sum(parameter.numel() for parameter in regressor.parameters())
    stated = "no epoch stated" if epoch is None else f"epoch {epoch}"
    found = f"{form}, {stated}, {len(tensors)} tensors, {count:,} parameters, {' and '.join(kinds)}"
    return regressor.eval(), Source(path.name, hashlib.sha256(content).hexdigest(), epoch, found)


def load_trunk(path: str | os.PathLike[str], regressor: SpineRegressor) -> None:
    """Load the trunk of the published network from torchvision's ResNet50, in place; its last layer is left out.

    Raises
    ------
    CheckpointError
        The file does not contain these weights.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror or 'cannot be read'}") from None
    tensors, _, _ = _tensors(path.name, content, "auto")
    places = {"conv1": "0", "bn1": "1", **{f"layer{k}": str(k + 3) for k in range(1, 5)}}
    found = {}
    for name, value in tensors.items():
        first, _, rest = name.partition(".")
        if first in places:
            found[f"{places[first]}.{rest}"] = value
    _refuse_differences(path.name, found, regressor.model)
    wanted = regressor.model.state_dict()
    regressor.model.load_state_dict({name: found.get(name, value).to(value.dtype) for name, value in wanted.items()})


def _is_lite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether weights are those of spine-lite, whose first layer reads one channel."""
    stem = tensors.get("model.0.weight")
    return stem is not None and stem.shape[1:2] == (1,)


def _tensors(file: str, content: bytes, layout: Layout) -> tuple[dict[str, Tensor], int | None, str]:
    if content[:2] == b"PK" or content[:1] == b"\x80":
        if layout == "own":
            raise CheckpointError(f"{file}: a PyTorch file; --layout own expects safetensors")
        return _from_torch(file, content)
    if layout == "released" and content[8:9] == b"{":
        raise CheckpointError(
            f"{file}: a safetensors file; --layout released expects a PyTorch file, as the published code saves it"
        )
    try:
        return safetensors.torch.load(content), None, "own layout (safetensors)"
    except (safetensors.SafetensorError, ValueError, KeyError):
        raise CheckpointError(
            f"{file}: neither a safetensors nor a PyTorch file; the weights of SpineRegressor are expected"
        ) from None


def _from_torch(file: str, content: bytes) -> tuple[dict[str, Tensor], int | None, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch.load passes on exceptions of zip and pickle.
        raise CheckpointError(
            f"{file}: damaged, or it holds pickled objects other than tensors, which are never loaded; "
            "save model.state_dict() instead"
        ) from None
    epoch, form = None, "a bare state dict"
    if isinstance(found, Mapping):
        stated = found.get(_EPOCH)
        epoch = stated if isinstance(stated, int) and not isinstance(stated, bool) else None
        wrapper = next((key for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if wrapper is not None:
            found, form = found[wrapper], f"a state dict under {wrapper!r}"
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"{file}: a {type(found).__name__} without weights; a state dict is expected, bare or under "
            f"one of {', '.join(_WRAPPERS)}"
        )
    if epoch is None:
        named = _NAMED_EPOCH.search(file)
        epoch = int(named.group(1)) if named else None
    weights = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if any(name.startswith(_PARALLEL) for name in weights):
        form += " of parallel training"
    weights = {name.removeprefix(_PARALLEL): value for name, value in weights.items()}
    return weights, epoch, f"released layout (PyTorch, {form})"


def _refuse_differences(file: str, found: Mapping[str, Tensor], network: nn.Module) -> None:
    kind, wanted = _KIND.get(type(network), type(network).__name__), network.state_dict()
    odd = [name for name, value in found.items() if not _is_plain(name, value)]
    if odd:
        # Other objects could raise any exception when shape or values are read.
        raise CheckpointError(
            f"{file} does not hold the weights of {kind}: {len(odd)} tensors are no dense floating-point "
            f"arrays, such as {odd[0]} ({str(found[odd[0]].dtype).removeprefix('torch.')})"
        )
    missing = [name for name in wanted if name not in found and _UNUSED not in name]
    unknown = [name for name in found if name not in wanted]
    shapes = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    differences = []
    if missing:
        differences.append(f"{len(missing)} weights are missing, such as {missing[0]}")
    if unknown:
        differences.append(f"{len(unknown)} are unknown, such as {unknown[0]}")
    if shapes:
        name = shapes[0]
        differences.append(
            f"{len(shapes)} have another shape, such as {name} with {tuple(found[name].shape)} "
            f"where {tuple(wanted[name].shape)} is expected"
        )
    if not differences:
        broken = [name for name, value in found.items() if not bool(torch.isfinite(value).all())]
        if broken:
            differences.append(f"{len(broken)} have values that are not finite, such as {broken[0]}")
    if differences:
        raise CheckpointError(f"{file} does not hold the weights of {kind}: {'; '.join(differences)}")


def _is_plain(name: str, value: Tensor) -> bool:
    kinds = (torch.int64, *_KINDS) if _UNUSED in name else _KINDS
    return value.dtype in kinds and value.layout == torch.strided and not value.is_nested and value.device.type == "cpu"
