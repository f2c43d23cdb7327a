"""Tensors that are in memory already: a model, or a mapping by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry
from sparsight.model.names import named


def from_memory(thing: nn.Module | Mapping[str, Tensor]) -> Checkpoint:
    """The parameters and buffers of a model, or the tensors of a mapping; tied ones once, under their first name.

    TypeError for anything else, or a value that is no tensor.
    """
    if isinstance(thing, nn.Module):
        kind, items = "module", {**named(thing), **dict(thing.named_buffers())}
        every = [*thing.named_parameters(remove_duplicate=False)]
        return Checkpoint(type(thing).__name__, kind, tuple(_entries([*items.items(), *every], dict(items))))
    if not isinstance(thing, Mapping):
        raise TypeError(f"cannot analyse a {type(thing).__name__}: allowed is a path, a module or a mapping of tensors")
    for name, tensor in thing.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"cannot analyse {name!r}, a {type(tensor).__name__}: allowed are tensors by name")
    return Checkpoint("tensors", "tensors", tuple(_entries(thing.items(), thing)))


def _entries(items: Iterable[tuple[str, Tensor]], first: Mapping[str, Tensor]) -> list[Entry]:
    names: dict[tuple, list[str]] = {}
    tensors: dict[tuple, Tensor] = {}
    for name, tensor in items:
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
        shape = () if obstacle and not hasattr(tensor, "shape") else tuple(tensor.shape)
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
    if tensor.layout != _strided():
        return f"its layout is {tensor.layout}"
    if tensor.device.type == "meta":
        return "it is on the meta device and has no values"
    return None


def _strided() -> object:
    import torch

    return torch.strided
