"""Masks: which weights are prunable, which are kept, and whether a model obeys them. `hold` keeps them in training."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.model.left_out import LeftOut, counted, lines, unsettled, warn
from sparsight.model.names import named, some
from sparsight.model.weights import DTYPES, Weight, weights
from sparsight.numerics.kernels.clear import BITS
from sparsight.types import Masks

PLAIN = (Tensor, nn.Parameter)  # types with ordinary memory

Patterns = str | Iterable[str]
"""Shell-style patterns of names."""


# -- making and checking ---------------------------------------------------------------------------------------


def dense(model: nn.Module, *, include: Patterns = (), exclude: Patterns = ()) -> dict[str, Tensor]:
    """All-True masks for the prunable weights: those of linear, convolution and attention layers, and of experts.

    These are `Linear`, convolutions (also transposed), transformers' `Conv1D`, the projections of
    `nn.MultiheadAttention`, and three-dimensional weights of experts. For layers with `weight_norm` or `spectral_norm`
    of `torch.nn.utils.parametrizations` it is the scaled matrix ("parametrizations.weight.original"). Masks of
    `torch.nn.utils.prune` are adopted.

    `include` adds parameters by shell-style name patterns ("*.weight_ih_l*"), `exclude` removes some, and wins. Norms,
    biases, embeddings and recurrent layers are prunable only if included; so are output embeddings: weights tied to an
    embedding, and those of `get_output_embeddings()`. The order is that of `named_parameters()`.

    Warns: `LeftOutWarning` for matrix-shaped parameters that are neither prunable nor excluded (`left_out`).
    Raises: ValueError for a pattern that matches nothing, an included parameter that is not float16, bfloat16, float32
    or float64, an uninitialised lazy layer, weights on device "meta", or a model without prunable weights.
    """
    masks = all_kept(model, include=include, exclude=exclude)
    warn(left_out(model, include=include, exclude=exclude), stacklevel=2)
    return masks


def all_kept(model: nn.Module, *, include: Patterns = (), exclude: Patterns = ()) -> dict[str, Tensor]:
    """The masks of `dense`, without its warning."""
    chosen = _prunable(model, include, exclude)
    empty = next((name for name, weight in chosen.items() if weight.parameter.is_meta), None)
    if empty is not None:
        raise ValueError(f"{empty!r} is on device 'meta' and has no values: load the weights before pruning")
    return {
        name: torch.ones(w.parameter.shape, dtype=torch.bool, device=w.parameter.device)
        if w.given is None
        else w.given.detach().to(w.parameter.device) != 0
        for name, w in chosen.items()
    }


def prunable(model: nn.Module, *, include: Patterns = (), exclude: Patterns = ()) -> dict[str, nn.Parameter]:
    """The parameters that `dense` makes masks for, by name. Raises: as `dense`."""
    return {name: weight.parameter for name, weight in _prunable(model, include, exclude).items()}


def left_out(model: nn.Module, *, include: Patterns = (), exclude: Patterns = ()) -> tuple[LeftOut, ...]:
    """The matrix-shaped parameters that are neither prunable nor excluded.

    Each has its share of all parameters, the pattern that would include it, and a reason if any. Matrix-shaped: more
    than one element along at least two dimensions, such as embeddings, recurrent layers, parametrised weights and
    integers. Raises: ValueError for a pattern that matches nothing.
    """
    known = weights(model)
    chosen, excluded = _sorted(known, include, exclude)
    return unsettled(known, {*chosen, *excluded})


def _prunable(model: nn.Module, include: Patterns, exclude: Patterns) -> dict[str, Weight]:
    known = weights(model)
    chosen, excluded = _sorted(known, include, exclude)
    if not sum(weight.parameter.numel() for weight in chosen.values()):
        left = unsettled(known, {*chosen, *excluded})
        others = f"not prunable are {counted(left)}: {', '.join(lines(left))}; " if left else ""
        raise ValueError(
            f"{type(model).__name__} has no prunable weights, which are those of linear, convolution and attention "
            f"layers: name others with include; {others}its parameters are {some(known)}"
        )
    return chosen


def _sorted(known: Mapping[str, Weight], include: Patterns, exclude: Patterns) -> tuple[dict[str, Weight], list[str]]:
    """The prunable parameters by name, and the names that `exclude` removes."""
    included, excluded = ([each] if isinstance(each, str) else list(each) for each in (include, exclude))
    used: set[str] = set()
    chosen: dict[str, Weight] = {}
    taken: list[str] = []
    for name, weight in known.items():
        wanted = [p for p in included if any(fnmatch.fnmatchcase(n, p) for n in weight.names)]
        unwanted = [p for p in excluded if any(fnmatch.fnmatchcase(n, p) for n in weight.names)]
        used.update(wanted, unwanted)
        taken += [name] if unwanted else []
        if unwanted or not (wanted or weight.kind):
            continue
        if isinstance(weight.parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name!r} has no shape yet: pass a batch through the model before pruning")
        if weight.parameter.dtype not in DTYPES:
            accepted, got = ", ".join(map(str, DTYPES)), weight.parameter.dtype
            raise ValueError(f"cannot prune {name!r}: its dtype must be one of {accepted}, got {got}")
        chosen[name] = weight
    idle = [p for p in (*included, *excluded) if p not in used]
    if idle:
        raise ValueError(f"pattern {idle[0]!r} matches no parameter: the parameters are {some(known)}")
    return chosen, taken


def check(model: nn.Module, masks: Masks) -> None:
    """Raise ValueError or TypeError for masks that do not fit the model: in names, shapes, or dtypes, or without masks.

    Also for masks that keep weights which `torch.nn.utils.prune` holds at zero, or that leave a unit of weight norm
    without weights, which would make it NaN.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    check_mapping(masks)
    parameters = named(model)
    if not masks:
        raise ValueError("masks must hold at least one bool tensor: dense(model) makes them")
    for name, mask in masks.items():
        if name not in parameters:
            first = next((n for n, weight in weights(model).items() if name in weight.names), None)
            if first is not None:
                raise ValueError(f"{name!r} is tied to {first!r}: use the first name in masks")
            raise ValueError(f"the model has no parameter {name!r}: its parameters are {some(parameters)}")
        shape = tuple(parameters[name].shape)
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"the mask of {name!r} must be torch.bool (True = kept), got {got}")
        if tuple(mask.shape) != shape:
            raise ValueError(f"the mask of {name!r} must have shape {shape}, got {tuple(mask.shape)}")
    if any(name.endswith(("_orig", ".original1")) for name in masks):
        for name, weight in weights(model).items():
            if name in masks:
                _refuse_computed(weight, masks[name])


def check_mapping(masks: Any) -> None:
    """Raise TypeError for anything but a mapping, such as a model."""
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"masks must be bool tensors by parameter name, got {type(masks).__name__}: dense(model) makes them"
        )


def _refuse_computed(weight: Weight, mask: Tensor) -> None:
    """Raise ValueError for a mask that a computed weight would not obey, or that would make it NaN."""
    if weight.given is not None and (back := int((mask & (weight.given == 0).to(mask.device)).sum())):
        stem = weight.name.rpartition(".")[2].removesuffix("_orig")
        raise ValueError(
            f"the mask of {weight.name!r} keeps {back:,} weights that torch.nn.utils.prune holds at 0: to let them "
            f"return, first call prune.remove(module, {stem!r})"
        )
    if weight.norm is not None and mask.numel():
        kept = mask.flatten() if weight.norm < 0 else mask.transpose(0, weight.norm).flatten(1)
        if empty := int((~kept.any(-1)).sum()):
            raise ValueError(
                f"the mask of {weight.name!r} leaves {empty:,} norms of weight_norm without weights, which divides by "
                "0: keep one of each (scope='neuron', min_keep=1), or remove the parametrisation first"
            )


def counts_by_tensor(masks: Masks) -> dict[str, tuple[int, int]]:
    """(kept, total) of each tensor, by name. Raises: TypeError for anything but masks."""
    counts(masks)
    return {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}


def counts(masks: Masks) -> tuple[int, int]:
    """(kept, prunable) weights. Raises: TypeError for anything but masks."""
    check_mapping(masks)
    return sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())


def density(masks: Masks) -> float:
    """Kept / prunable weights, in [0, 1]. Raises: ValueError without weights."""
    kept, total = counts(masks)
    if total == 0:
        raise ValueError("density needs masks with at least one weight")
    return kept / total


def verify(model: nn.Module, masks: Masks) -> None:
    """Raise ValueError if a pruned weight is not exactly +0.0 (-0.0 and NaN are errors too).

    For sharded weights (FSDP2), each process checks its own part.
    """
    check(model, masks)
    parameters = named(model)
    for name, mask in masks.items():
        weight = parameters[name]
        verify_weight(name, local(weight), share(mask, weight))


def verify_weight(name: str, weight: Tensor, mask: Tensor) -> None:
    """`verify` for one weight, in tensor code, for any memory layout."""
    weight = weight.detach()
    wrong = (weight.view(BITS[weight.element_size()]) != 0) & ~mask
    count = int(wrong.sum())
    if count:
        at = int(wrong.reshape(-1).nonzero()[0])
        raise ValueError(
            f"{count:,} of {int((~mask).sum()):,} pruned weights of {name!r} are not +0.0: "
            f"flat index {at} holds {float(weight.reshape(-1)[at])!r}"
        )


# -- parts of tensors ------------------------------------------------------------------------------------------


def local(x: Tensor) -> Tensor:
    """The part of `x` in this process: the local tensor of a DTensor (FSDP2), otherwise `x` itself."""
    return x if type(x) in PLAIN else getattr(x, "_local_tensor", x)


def share(mask: Tensor, x: Tensor) -> Tensor:
    """The part of a whole mask that belongs to `local(x)`, on its device."""
    mask = mask.to(local(x).device)
    if local(x) is x:
        return mask
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(x, DTensor):
        return mask
    return distribute_tensor(mask, x.device_mesh, x.placements, src_data_rank=None).to_local()
