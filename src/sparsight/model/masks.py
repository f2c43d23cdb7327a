"""Masks are data beside the model: which weights can be pruned, which are kept, and whether a model obeys them.

Holding them through training is the work of `hold`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sparsight.model.left_out import LeftOut, counted, lines, unsettled, warn
from sparsight.model.names import named, names_of
from sparsight.numerics.kernels.clear import BITS
from sparsight.types import Masks

_PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd)

PLAIN = (Tensor, nn.Parameter)  # types whose memory is what it seems


# -- making and checking ---------------------------------------------------------------------------------------


def dense(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, Tensor]:
    """All-True masks for the prunable set: the weights of Linear and convolution layers.

    `include` adds parameters by shell-style name pattern ("*.in_proj_weight"), `exclude` takes some away, and
    wins. Norms, biases and embeddings are never prunable unless included by pattern; a weight tied to an
    embedding counts as an embedding. The order is that of `named_parameters()`. A `LeftOutWarning` names the
    matrix-shaped parameters that are not prunable and that `exclude` does not name (`left_out`).

    Errors: a pattern that matches nothing; an included parameter that is not floating point; a lazy layer that
    has not seen its first batch; a model in which nothing is prunable.
    """
    masks = all_kept(model, include=include, exclude=exclude)
    warn(left_out(model, include=include, exclude=exclude), stacklevel=2)
    return masks


def all_kept(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, Tensor]:
    """The masks of `dense`, without its warning."""
    chosen = prunable(model, include=include, exclude=exclude)
    return {name: torch.ones(p.shape, dtype=torch.bool, device=p.device) for name, p in chosen.items()}


def prunable(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> dict[str, nn.Parameter]:
    """The parameters that `dense` makes masks for, by name; with the same errors."""
    chosen, _ = _sorted(model, include, exclude)
    if not sum(parameter.numel() for parameter in chosen.values()):
        left = left_out(model, include=include, exclude=exclude)
        others = f"left out are {counted(left)}: {', '.join(lines(left))}; " if left else ""
        raise ValueError(
            f"{type(model).__name__} has no prunable weights: prunable are the weights of Linear and convolution "
            f"layers and what `include` names; {others}its parameters are {_some(named(model))}"
        )
    return chosen


def left_out(
    model: nn.Module, *, include: str | Iterable[str] = (), exclude: str | Iterable[str] = ()
) -> tuple[LeftOut, ...]:
    """The matrix-shaped parameters that are not prunable and that `exclude` does not name.

    Each with its share of all parameters' elements and the pattern that would include it. Matrix-shaped are those
    with more than one element along at least two dimensions: embeddings, attention's `in_proj_weight`, recurrent
    layers, experts as bare parameters, parametrised weights. Errors: those of `dense` that patterns make.
    """
    chosen, excluded = _sorted(model, include, exclude)
    return unsettled(named(model), names_of(model), {*chosen, *excluded})


def _sorted(
    model: nn.Module, include: str | Iterable[str], exclude: str | Iterable[str]
) -> tuple[dict[str, nn.Parameter], list[str]]:
    """The prunable parameters by name, and the names that `exclude` takes away."""
    included, excluded = _patterns(include), _patterns(exclude)
    parameters, owners = named(model), names_of(model)
    used: set[str] = set()
    chosen: dict[str, nn.Parameter] = {}
    taken: list[str] = []
    for name, parameter in parameters.items():
        names = owners[id(parameter)]
        wanted = [p for p in included if any(fnmatch.fnmatchcase(n, p) for n, _ in names)]
        unwanted = [p for p in excluded if any(fnmatch.fnmatchcase(n, p) for n, _ in names)]
        used.update(wanted, unwanted)
        taken += [name] if unwanted else []
        weight = all(isinstance(m, _PRUNABLE) and n.rpartition(".")[2] == "weight" for n, m in names)
        if unwanted or not (wanted or weight):
            continue
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name!r} has no shape yet: pass one batch through the model before pruning it")
        if not parameter.is_floating_point():
            raise ValueError(f"cannot prune {name!r} of dtype {parameter.dtype}: allowed are floating-point dtypes")
        chosen[name] = parameter
    idle = [p for p in (*included, *excluded) if p not in used]
    if idle:
        raise ValueError(f"pattern {idle[0]!r} matches no parameter: the names are {_some(parameters)}")
    return chosen, taken


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _some(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    tail = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(repr(name) for name in listed[:most]) + tail if listed else "none"


def check(model: nn.Module, masks: Masks) -> None:
    """Refuse masks that do not fit the model: an unknown or aliased name, another shape, not bool, none at all."""
    parameters = named(model)
    if not masks:
        raise ValueError("got no masks: allowed is one bool tensor per prunable parameter, as `dense` makes them")
    for name, mask in masks.items():
        if name not in parameters:
            _refuse_name(model, parameters, name)
        shape = tuple(parameters[name].shape)
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"mask of {name!r} is {got}: allowed is torch.bool (True = kept)")
        if tuple(mask.shape) != shape:
            raise ValueError(f"mask of {name!r} has shape {tuple(mask.shape)}: allowed is {shape}")


def _refuse_name(model: nn.Module, parameters: Mapping[str, nn.Parameter], name: str) -> None:
    for names in names_of(model).values():
        if name in [n for n, _ in names]:
            raise ValueError(f"{name!r} is tied to {names[0][0]!r}: masks use the first name")
    raise ValueError(f"the model has no parameter {name!r}: its parameters are {_some(parameters)}")


def counts(masks: Masks) -> tuple[int, int]:
    """(kept, prunable) weights."""
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
