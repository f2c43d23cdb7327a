"""Tensors in memory, as entries of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sparsight.checkpoint.entry import CheckpointError, Entry


def entries(items: Iterable[tuple[str, Tensor]], first: Mapping[str, Tensor]) -> list[Entry]:
    """Each tensor once, under the first of its names; names in `first` come before others."""
    names: dict[tuple, list[str]] = {}
    tensors: dict[tuple, Tensor] = {}
    for name, tensor in items:
        if not isinstance(tensor, Tensor):
            what = f"expected tensors by name, got {type(tensor).__name__} for {name!r:.80}: give the state dict alone"
            raise CheckpointError("the tensors given", what)
        key = _place(name, tensor)
        names.setdefault(key, [])
        if name not in names[key]:
            names[key].append(name)
        tensors.setdefault(key, tensor)
    found = []
    for key, tensor in tensors.items():
        name, *others = names[key]
        dtype = str(tensor.dtype).removeprefix("torch.")
        obstacle = _obstacle(tensor)
        shape = () if tensor.is_nested else tuple(tensor.shape)
        aliases = tuple(n for n in others if n not in first or first[n] is not tensor or n != name)
        found.append(Entry(name, dtype, shape, tensor=tensor.detach(), aliases=aliases, obstacle=obstacle))
    return found


def _place(name: str, tensor: Tensor) -> tuple:
    """Equal for tensors that are the same bytes."""
    if _obstacle(tensor) is not None or tensor.numel() == 0:
        return (name,)
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _obstacle(tensor: Tensor) -> str | None:
    if isinstance(tensor, nn.parameter.UninitializedParameter):
        raise CheckpointError(type(tensor).__name__, "a lazy layer has no shape yet: pass one batch through the model")
    if tensor.is_nested:
        return "it is nested"
    if tensor.layout != torch.strided:
        return f"its layout is {tensor.layout}"
    if tensor.device.type == "meta":
        return "it is on the meta device and has no values"
    return None
