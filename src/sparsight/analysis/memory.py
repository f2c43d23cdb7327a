"""A model or a mapping of tensors by name, as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sparsight.checkpoint.entry import Checkpoint
from sparsight.checkpoint.memory import entries
from sparsight.model.names import named


def from_memory(thing: nn.Module | Mapping[str, Tensor]) -> Checkpoint:
    """The parameters and buffers of a model, or the tensors of a mapping; tied ones once, under their first name.

    Raises: TypeError for anything else, or a value that is not a tensor.
    """
    if isinstance(thing, nn.Module):
        kind, items = "module", {**named(thing), **dict(thing.named_buffers())}
        every = [*thing.named_parameters(remove_duplicate=False)]
        return Checkpoint(type(thing).__name__, kind, tuple(entries([*items.items(), *every], dict(items))))
    if not isinstance(thing, Mapping):
        raise TypeError(f"expected a path, a module or a mapping of tensors, got {type(thing).__name__}")
    for name, tensor in thing.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"{name!r} must be a tensor, got {type(tensor).__name__}")
    return Checkpoint("tensors", "tensors", tuple(entries(thing.items(), thing)))
