"""Read the weights of the network: our safetensors files, and the released or other PyTorch files.

A PyTorch file is a pickle, so it is opened with ``weights_only=True``: tensors and plain values
only, never code.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from edge_spine.errors import EdgeSpineError
from export.regressor import SpineRegressor

# Where training scripts put the weights beside an epoch and an optimiser.
_WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
_EPOCH = "epoch"
# Set by DataParallel around every name.
_PARALLEL = "module."
# Counts training steps; evaluation does not read it, and slim files leave it out.
_UNUSED = "num_batches_tracked"


class CheckpointError(EdgeSpineError):
    """A file does not hold the weights of this network."""


@dataclass(frozen=True)
class Source:
    """Where weights came from.

    Attributes
    ----------
    file : str
        File name without folders.
    sha256 : str
        Of the whole file.
    epoch : int or None
        As the file states it.
    """

    file: str
    sha256: str
    epoch: int | None


def load_regressor(path: str | os.PathLike[str]) -> tuple[SpineRegressor, Source]:
    """Build the network with the weights of a file.

    Parameters
    ----------
    path : path
        A safetensors file or a PyTorch file, told apart by content; weights in float16, bfloat16
        or float32, bare or under one of the usual keys with an epoch beside them.

    Returns
    -------
    regressor : SpineRegressor
        float32, in evaluation mode.
    source : Source
        For the bundle's manifest.

    Raises
    ------
    CheckpointError
        The file holds something else; one line says what differs.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {error.strerror or 'cannot be read'}") from None
    tensors, epoch = _tensors(path, content)
    regressor = SpineRegressor()
    wanted = regressor.state_dict()
    _refuse_differences(path.name, tensors, wanted)
    regressor.load_state_dict(
        {name: tensors.get(name, value).to(value.dtype) for name, value in wanted.items()}, strict=True
    )
    return regressor.eval(), Source(path.name, hashlib.sha256(content).hexdigest(), epoch)


def _tensors(path: Path, content: bytes) -> tuple[dict[str, Tensor], int | None]:
    if content[:2] == b"PK" or content[:1] == b"\x80":
        return _from_torch(path)
    try:
        return safetensors.torch.load(content), None
    except (safetensors.SafetensorError, ValueError, KeyError):
        raise CheckpointError(
            f"{path.name}: neither a safetensors nor a PyTorch file; the weights of SpineRegressor are expected"
        ) from None


def _from_torch(path: Path) -> tuple[dict[str, Tensor], int | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises whatever its reader, zip or pickle meets
        raise CheckpointError(
            f"{path.name}: damaged, or it holds pickled objects other than tensors, which are never loaded; "
            "save model.state_dict() instead"
        ) from None
    epoch = None
    if isinstance(found, Mapping):
        stated = found.get(_EPOCH)
        epoch = stated if isinstance(stated, int) else None
        inner = [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)]
        found = inner[0] if inner else found
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"{path.name}: a {type(found).__name__} without weights; a state dict is expected, bare or under "
            f"one of {', '.join(_WRAPPERS)}"
        )
    return {
        str(name).removeprefix(_PARALLEL): value for name, value in found.items() if isinstance(value, Tensor)
    }, epoch


def _refuse_differences(file: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
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
        raise CheckpointError(f"{file} does not hold the weights of SpineRegressor: {'; '.join(differences)}")
