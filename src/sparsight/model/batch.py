"""What a batch is to a model: which part of it goes in, which part are labels, and what comes out."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.types import Batch

LABELS = ("labels", "label", "targets", "target", "y")
"""Keys under which a dictionary batch may hold its labels."""


def predict(model: nn.Module, batch: Batch) -> Any:
    """The model's output for a batch.

    Of `(x, y)` the model is given `x`, and of a dictionary what its `forward` takes by name, labels included; `x` may
    be a dictionary too. Anything else is given as it is. TypeError if `forward` takes nothing of a dictionary.
    """
    x = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
    return model(**_accepted(model, x)) if isinstance(x, Mapping) else model(x)


def labels_of(batch: Batch) -> Any:
    """The labels of `(x, y)`, or of a dictionary that calls them labels, label, targets, target or y; else None."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABELS if key in batch), None)
    return batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None


def scores_of(output: Any) -> Tensor | None:
    """The tensor that a model puts out: its output, or the `logits` of one that has them; None if there is neither."""
    if isinstance(output, Tensor):
        return output
    found = _part(output, "logits")
    return found if isinstance(found, Tensor) else None


def own_loss(output: Any) -> Tensor | None:
    """The loss that the model itself computed, `output.loss` or `output["loss"]`; None if it did not."""
    found = None if isinstance(output, Tensor) else _part(output, "loss")
    return found if isinstance(found, Tensor) else None


def _part(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _accepted(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    inner = model
    while (further := _inside(inner)) is not None:
        inner = further
    names, others = _parameters(type(inner).forward)
    given = {str(key): value for key, value in batch.items()}
    if "labels" in names and "labels" not in given and "label" in given:
        given["labels"] = given.pop("label")
    taken = given if others else {key: value for key, value in given.items() if key in names}
    if not taken:
        raise TypeError(
            f"{type(inner).__name__}.forward takes {', '.join(names) or 'nothing'} by name, and the batch holds "
            f"{', '.join(given) or 'nothing'}: {ASK}"
        )
    return taken


def _inside(model: nn.Module) -> nn.Module | None:
    """The module that a compiled or DDP-wrapped one runs."""
    found = getattr(model, "_orig_mod", None)
    return model.module if found is None and isinstance(model, nn.parallel.DistributedDataParallel) else found


@functools.cache
def _parameters(forward: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    """Names by which arguments can be given, and whether any other name is taken too."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return (
        tuple(p.name for p in parameters if p.kind in named),
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
    )


ASK = "give the recipe a loss(model, batch) and a judge(model, batch) of your own (--loss and --metric)"
"""What to do where a batch or an output cannot be read."""


# -- samples ---------------------------------------------------------------------------------------------------


def batch_size(batch: Batch) -> int:
    """Samples of a batch: the length of its first tensor. ValueError if there is none, or it is empty."""
    first = next(tensors_of(batch), None)
    if first is None or first.dim() == 0 or not len(first):
        got = type(batch).__name__ if first is None else f"a first tensor of shape {tuple(first.shape)}"
        raise ValueError(f"cannot tell the samples of a batch: got {got}, expected (x, y) with at least one sample")
    return len(first)


def on_tensors(do: Callable[..., Tensor], batch: Any, *others: Any) -> Any:
    """The batch with `do` of its tensors, in tuples, lists and mappings too; the rest as it is.

    `do` is given, too, the tensors that stand at the same place in `others`.
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
    """The batch with tensors of its own, for models that write to their input."""
    return on_tensors(Tensor.clone, batch)


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from tensors_of(value)


def digest(batch: Any) -> str:
    """SHA-256 of the dense tensors of a batch: dtype, shape, then bytes in logical row-major order. "" without any."""
    found, seen = hashlib.sha256(), False
    for tensor in tensors_of(batch):
        if tensor.layout is torch.strided:
            seen = True
            found.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest() if seen else ""
