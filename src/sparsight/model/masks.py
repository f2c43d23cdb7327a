"""Masks are data beside the model: which weights can be pruned, which are kept, and whether a model obeys them.

Holding them through training is the work of `hold`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.model.left_out import LeftOut, counted, lines, unsettled, warn
from sparsight.model.names import named
from sparsight.model.weights import DTYPES, Weight, weights
from sparsight.numerics.kernels.clear import BITS
from sparsight.types import Masks

PLAIN = (Tensor, nn.Parameter)  # types whose memory is what it seems


# -- making and checking ---------------------------------------------------------------------------------------


def dense(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, Tensor]:
    """All-True masks for the prunable set: the weights of linear, convolution and attention layers and of experts.

    These are `Linear`, convolutions (transposed ones too), transformers' `Conv1D`, the projections of
    `nn.MultiheadAttention`, and experts' weights of three dimensions. Of layers with `weight_norm` or `spectral_norm`
    of `torch.nn.utils.parametrizations` it is the matrix that is scaled ("parametrizations.weight.original"). A layer
    that `torch.nn.utils.prune` has pruned has its mask taken over, False where a weight is pruned already.

    `include` adds parameters by shell-style name pattern ("*.weight_ih_l*"), `exclude` takes some away, and wins.
    Norms, biases, embeddings and recurrent layers are prunable if included by pattern only; so are output embeddings:
    a weight tied to an embedding, and what `get_output_embeddings()` gives. The order is that of `named_parameters()`.
    A `LeftOutWarning` names the matrix-shaped parameters that are not prunable and that `exclude` does not name
    (`left_out`).

    Errors: a pattern that matches nothing; an included parameter that is not of float16, bfloat16, float32 or float64;
    a lazy layer that has not seen its first batch; weights on device "meta"; a model in which nothing is prunable.
    """
    masks = all_kept(model, include=include, exclude=exclude)
    warn(left_out(model, include=include, exclude=exclude), stacklevel=2)
    return masks


def all_kept(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, Tensor]:
    """The masks of `dense`, without its warning."""
    chosen = _prunable(model, include, exclude)
    empty = next((name for name, weight in chosen.items() if weight.parameter.is_meta), None)
    if empty is not None:
        raise ValueError(f"{empty!r} is on device 'meta' and has no values: load the model's weights before pruning it")
    return {
        name: torch.ones(w.parameter.shape, dtype=torch.bool, device=w.parameter.device)
        if w.given is None
        else w.given.detach().to(w.parameter.device) != 0
        for name, w in chosen.items()
    }


def prunable(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, nn.Parameter]:
    """The parameters that `dense` makes masks for, by name; with the same errors."""
    return {name: weight.parameter for name, weight in _prunable(model, include, exclude).items()}


def left_out(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> tuple[LeftOut, ...]:
    """The matrix-shaped parameters that are not prunable and that `exclude` does not name.

    Each with its share of all parameters' elements, the pattern that would include it and, where there is one, the
    reason. Matrix-shaped are those with more than one element along at least two dimensions: embeddings and output
    embeddings, recurrent layers, weights that a parametrisation computes, integers. Errors: those of `dense` that
    patterns make.
    """
    known = weights(model)
    chosen, excluded = _sorted(known, include, exclude)
    return unsettled(known, {*chosen, *excluded})


def _prunable(model: nn.Module, include: str | Iterable[str], exclude: str | Iterable[str]) -> dict[str, Weight]:
    known = weights(model)
    chosen, excluded = _sorted(known, include, exclude)
    if not sum(weight.parameter.numel() for weight in chosen.values()):
        left = unsettled(known, {*chosen, *excluded})
        others = f"left out are {counted(left)}: {', '.join(lines(left))}; " if left else ""
        raise ValueError(
            f"{type(model).__name__} has no prunable weights: prunable are the weights of linear, convolution and "
            f"attention layers and what `include` names; {others}its parameters are {_some(known)}"
        )
    return chosen


def _sorted(
    known: Mapping[str, Weight], include: str | Iterable[str], exclude: str | Iterable[str]
) -> tuple[dict[str, Weight], list[str]]:
    """The prunable of a model's parameters by name, and the names that `exclude` takes away."""
    included, excluded = _patterns(include), _patterns(exclude)
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
        _refuse(name, weight.parameter)
        chosen[name] = weight
    idle = [p for p in (*included, *excluded) if p not in used]
    if idle:
        raise ValueError(f"pattern {idle[0]!r} matches no parameter: the names are {_some(known)}")
    return chosen, taken


def _refuse(name: str, parameter: nn.Parameter) -> None:
    """ValueError for a parameter that no mask can be made for."""
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(f"{name!r} has no shape yet: pass one batch through the model before pruning it")
    if parameter.dtype not in DTYPES:
        accepted = ", ".join(map(str, DTYPES))
        raise ValueError(f"cannot prune {name!r} of dtype {parameter.dtype}: expected one of {accepted}")


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _some(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    tail = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(repr(name) for name in listed[:most]) + tail if listed else "none"


def check(model: nn.Module, masks: Masks) -> None:
    """Refuse masks that do not fit the model: an unknown or aliased name, another shape, not bool, none at all.

    Refused too is what the model would not compute with: weights kept that `torch.nn.utils.prune` holds at zero, and a
    unit of weight norm without any weight, which its norm of 0 would make NaN.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, an nn.Module, before its masks, got a {type(model).__name__}")
    check_mapping(masks)
    parameters = named(model)
    if not masks:
        raise ValueError("got no masks: expected one bool tensor per prunable parameter, as `dense` makes them")
    for name, mask in masks.items():
        if name not in parameters:
            _refuse_name(model, parameters, name)
        shape = tuple(parameters[name].shape)
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"mask of {name!r} is {got}: expected torch.bool (True = kept)")
        if tuple(mask.shape) != shape:
            raise ValueError(f"mask of {name!r} has shape {tuple(mask.shape)}: expected {shape}")
    if any(name.endswith(("_orig", ".original1")) for name in masks):
        for name, weight in weights(model).items():
            if name in masks:
                _refuse_computed(weight, masks[name])


def check_mapping(masks: Any) -> None:
    """TypeError for what is no mapping of masks, such as a model."""
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"expected masks, bool tensors by parameter name, got a {type(masks).__name__}: dense(model) makes them"
        )


def _refuse_computed(weight: Weight, mask: Tensor) -> None:
    """ValueError for a mask under which the weight that a layer computes would not be what the mask says, or NaN."""
    if weight.given is not None and (back := int((mask & (weight.given == 0).to(mask.device)).sum())):
        stem = weight.name.rpartition(".")[2].removesuffix("_orig")
        raise ValueError(
            f"mask of {weight.name!r} keeps {back} weights that torch.nn.utils.prune holds at 0: to let them return, "
            f"first make it a plain weight by prune.remove(module, {stem!r})"
        )
    if weight.norm is not None and mask.numel():
        kept = mask.flatten() if weight.norm < 0 else mask.transpose(0, weight.norm).flatten(1)
        if empty := int((~kept.any(-1)).sum()):
            raise ValueError(
                f"mask of {weight.name!r} leaves {empty} of the norms of weight_norm without any weight, so that it "
                "divides by 0: keep one of each (scope='neuron', min_keep=1), or first remove the parametrisation"
            )


def _refuse_name(model: nn.Module, parameters: Mapping[str, nn.Parameter], name: str) -> None:
    for first, weight in weights(model).items():
        if name in weight.names:
            raise ValueError(f"{name!r} is tied to {first!r}: masks use the first name")
    raise ValueError(f"the model has no parameter {name!r}: its parameters are {_some(parameters)}")


def counts_by_tensor(masks: Masks) -> dict[str, tuple[int, int]]:
    """(kept, total) of each tensor, by name. TypeError for what are no masks."""
    counts(masks)
    return {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}


def counts(masks: Masks) -> tuple[int, int]:
    """(kept, prunable) weights. TypeError for a model: it takes masks."""
    check_mapping(masks)
    return sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())


def density(masks: Masks) -> float:
    """Kept / prunable weights, in [0, 1]. ValueError if there is no weight at all."""
    kept, total = counts(masks)
    if total == 0:
        raise ValueError("density of no weights is undefined: got masks with 0 entries")
    return kept / total


def verify(model: nn.Module, masks: Masks) -> None:
    """Refuse a model in which a pruned weight is anything but +0.0, to the bit (-0.0 and NaN count as well).

    Of weights that are shared out over processes (FSDP2), each process looks at its own.
    """
    check(model, masks)
    parameters = named(model)
    for name, mask in masks.items():
        weight = parameters[name]
        verify_weight(name, local(weight), share(mask, weight))


def verify_weight(name: str, weight: Tensor, mask: Tensor) -> None:
    """The same of one weight. In tensor code: it does not matter how weight and mask lie in memory."""
    weight = weight.detach()
    wrong = (weight.view(BITS[weight.element_size()]) != 0) & ~mask
    count = int(wrong.sum())
    if count:
        at = int(wrong.reshape(-1).nonzero()[0])
        raise ValueError(
            f"{count} of {int((~mask).sum())} pruned weights of {name!r} are not +0.0: "
            f"flat index {at} holds {float(weight.reshape(-1)[at])!r}"
        )


# -- parts of tensors ------------------------------------------------------------------------------------------


def local(x: Tensor) -> Tensor:
    """The part of `x` in this process: of a DTensor (FSDP2) its local tensor, otherwise `x` itself."""
    return x if type(x) in PLAIN else getattr(x, "_local_tensor", x)


def share(mask: Tensor, x: Tensor) -> Tensor:
    """The part of a mask that belongs to `local(x)`, on its device. `mask` is whole, and the same in all processes."""
    mask = mask.to(local(x).device)
    if local(x) is x:
        return mask
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(x, DTensor):
        return mask
    return distribute_tensor(mask, x.device_mesh, x.placements, src_data_rank=None).to_local()
