"""Matrix-shaped parameters that are not prunable: which, how much of the network, and what would include them."""

from __future__ import annotations

import fnmatch
import glob
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn


class LeftOutWarning(UserWarning):
    """Matrix-shaped parameters are not prunable, and no `exclude` says that this is meant."""


@dataclass(frozen=True)
class LeftOut:
    """A matrix-shaped parameter that is not prunable."""

    name: str
    shape: tuple[int, ...]
    share: float  # of the elements of all parameters, in [0, 1]
    include: str | None  # the pattern that makes it prunable, alone or with others of its kind; None: none does
    note: str = ""  # what to do before including it, or why no pattern does


Owners = Mapping[int, Sequence[tuple[str, nn.Module]]]
"""Every (name, owning module) of each parameter, by identity of the parameter."""


def unsettled(parameters: Mapping[str, nn.Parameter], owners: Owners, settled: Collection[str]) -> tuple[LeftOut, ...]:
    """The matrix-shaped of `parameters` whose names are not `settled`, in their order.

    Matrix-shaped: more than one element along at least two dimensions. A lazy parameter has no shape yet and is
    passed over.
    """
    known = {n: p for n, p in parameters.items() if not isinstance(p, nn.parameter.UninitializedParameter)}
    total = sum(p.numel() for p in known.values())
    found = {n: p for n, p in known.items() if n not in settled and sum(size > 1 for size in p.shape) >= 2}
    first = {alias: name for name, p in parameters.items() for alias, _ in owners[id(p)]}
    patterns = _patterns([n for n, p in found.items() if p.is_floating_point()], first, {*settled})
    return tuple(
        LeftOut(name, tuple(p.shape), p.numel() / total, patterns.get(name), _note(p, *owners[id(p)][0]))
        for name, p in found.items()
    )


def _patterns(names: Iterable[str], first: Mapping[str, str], settled: Collection[str]) -> dict[str, str]:
    """A pattern for each name: one for all that differ in whole numbers only, if it reaches no unsettled other."""
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = ("*" if part.isdigit() else glob.escape(part) for part in name.split("."))
        groups.setdefault(".".join(parts), []).append(name)
    found = {}
    for pattern, members in groups.items():
        fine = {*members, *settled}
        together = len(members) > 1 and all(
            name in fine for alias, name in first.items() if fnmatch.fnmatchcase(alias, pattern)
        )
        found |= {name: pattern if together else glob.escape(name) for name in members}
    return found


def _note(parameter: nn.Parameter, name: str, owner: nn.Module) -> str:
    """What stands between a parameter and its pruning."""
    leaf = name.rpartition(".")[2]
    stem, _, end = leaf.rpartition("_")
    if not parameter.is_floating_point():
        return f"{parameter.dtype} cannot be pruned"
    if end == "orig" and f"{stem}_mask" in owner._buffers:
        return f"torch.nn.utils.prune masks it; first make it a plain weight: prune.remove(module, {stem!r})"
    computed = (end == "orig" and f"{stem}_u" in owner._buffers) or (end == "v" and f"{stem}_g" in owner._parameters)
    if computed or ".parametrizations." in f".{name}":
        return "a weight is computed from it, which may not have its zeros; first remove the parametrisation"
    return ""


# -- words -----------------------------------------------------------------------------------------------------


def counted(left: Sequence[LeftOut]) -> str:
    """ "2 matrix-shaped tensors, 61.1 % of all parameters": how much it is."""
    tensors = f"{len(left):,} matrix-shaped tensor{'' if len(left) == 1 else 's'}"
    return f"{tensors}, {_percent(sum(x.share for x in left))} of all parameters"


def lines(left: Sequence[LeftOut], most: int = 10) -> list[str]:
    """A line for each pattern, the largest first, with its share of all parameters; of more than `most` the rest as
    one line."""
    groups: dict[str, list[LeftOut]] = {}
    for x in left:
        groups.setdefault(x.include or x.name, []).append(x)
    ordered = sorted(groups.items(), key=lambda item: -sum(x.share for x in item[1]))
    said = []
    for pattern, members in ordered[:most]:
        shapes = {"×".join(map(str, x.shape)) for x in members}
        size = shapes.pop() if len(shapes) == 1 else "several shapes"
        tensors = f"{len(members):,} of " if len(members) > 1 else ""
        note = next((f"; {x.note}" for x in members if x.note), "")
        said.append(f"{pattern} ({tensors}{size}, {_percent(sum(x.share for x in members))}{note})")
    rest = [x for _, members in ordered[most:] for x in members]
    return [*said, f"{len(rest):,} more ({_percent(sum(x.share for x in rest))})"] if rest else said


def told(left: Sequence[LeftOut]) -> str:
    """What is left out, and what to do about it, in a few lines."""
    verb = "is" if len(left) == 1 else "are"
    listed = "".join(f"\n  {line}" for line in lines(left))
    return (
        f"{counted(left)}, {verb} not prunable and stay{'s' if len(left) == 1 else ''} dense:{listed}\n"
        "include takes these names and patterns to prune them, exclude to leave them dense without this warning"
    )


def warn(left: Sequence[LeftOut], stacklevel: int) -> None:
    """LeftOutWarning, from where it is called (`stacklevel` 1), or from the caller of that (2); nothing for nothing."""
    if left:
        warnings.warn(told(left), LeftOutWarning, stacklevel=stacklevel + 1)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
