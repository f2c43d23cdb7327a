"""Inputs, labels and outputs of a model for a batch."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.types import Batch

LABELS = ("labels", "label", "targets", "target", "y")
"""Possible keys of the labels in a dictionary batch."""


def predict(model: nn.Module, batch: Batch) -> Any:
    """The model's output for a batch.

    The model gets `x` of `(x, y)`; of a dictionary, the entries that its `forward` accepts by name, including labels
    (`x` may be a dictionary too); anything else unchanged. Raises: TypeError if `forward` accepts no entry.
    """
    x = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
    return model(**_accepted(model, x)) if isinstance(x, Mapping) else model(x)


def labels_of(batch: Batch) -> Any:
    """The labels of `(x, y)`, or of a dictionary under a key of `LABELS`; otherwise None."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABELS if key in batch), None)
    return batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None


def scores_of(output: Any) -> Tensor | None:
    """The output itself if it is a tensor, otherwise its `logits`; None without them."""
    if isinstance(output, Tensor):
        return output
    found = _part(output, "logits")
    return found if isinstance(found, Tensor) else None


def own_loss(output: Any) -> Tensor | None:
    """The loss computed by the model, `output.loss` or `output["loss"]`; None without one."""
    found = None if isinstance(output, Tensor) else _part(output, "loss")
    return found if isinstance(found, Tensor) else None


def _part(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _accepted(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    inner: Any = model
    while hasattr(inner, "_orig_mod") or isinstance(inner, nn.parallel.DistributedDataParallel):
        inner = inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module  # compiled or DDP-wrapped
    names, others = _parameters(type(inner).forward)
    given = {str(key): value for key, value in batch.items()}
    if "labels" in names and "labels" not in given and "label" in given:
        given["labels"] = given.pop("label")
    taken = given if others else {key: value for key, value in given.items() if key in names}
    if not taken:
        raise TypeError(
            f"{type(inner).__name__}.forward accepts {', '.join(names) or 'nothing'} by name, but the batch holds "
            f"{', '.join(given) or 'nothing'}: {ASK}"
        )
    return taken


@functools.cache
def _parameters(forward: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """The names of keyword arguments, and whether any other name is accepted."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return (
        tuple(p.name for p in parameters if p.kind in named),
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    )


ASK = "give your own loss(model, batch) and judge(model, batch) (--loss and --metric)"
"""Advice for a batch or an output that cannot be read."""


# -- samples ---------------------------------------------------------------------------------------------------


def batch_size(batch: Batch) -> int:
    """Samples of a batch: the length of its first tensor. Raises: ValueError without one, or if it is empty."""
    first = next(iter(tensors_of(batch)), None)
    if first is None or first.dim() == 0 or not len(first):
        got = type(batch).__name__ if first is None else f"a first tensor of shape {tuple(first.shape)}"
        raise ValueError(f"a batch must be (x, y) with at least one sample, got {got}")
    return len(first)


def on_tensors(do: Callable[..., Tensor], batch: Any, *others: Any) -> Any:
    """The batch with `do` applied to its tensors, also in tuples, lists and mappings.

    `do` also gets the tensors at the same places in `others`.
    """
    if isinstance(batch, Tensor):
        return do(batch, *others)
    if isinstance(batch, Mapping):
        return {key: on_tensors(do, value, *(other[key] for other in others)) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        items = [on_tensors(do, *entries) for entries in zip(batch, *others, strict=True)]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


def copied(batch: Any) -> Any:
    """The batch with cloned tensors, for models that write to their input."""
    return on_tensors(Tensor.clone, batch)


def tensors_of(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    found: list[Tensor] = []

    def take(x: Tensor) -> Tensor:
        found.append(x)
        return x

    on_tensors(take, batch)
    return found


def digest(batch: Any) -> str:
    """SHA-256 of the dense tensors of a batch: dtype, shape, then bytes in logical row-major order. "" without any."""
    found, dense = hashlib.sha256(), [x for x in tensors_of(batch) if x.layout is torch.strided]
    for x in dense:
        found.update(f"{x.dtype} {tuple(x.shape)};".encode())
        found.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest() if dense else ""
