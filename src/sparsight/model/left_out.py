"""Matrix-shaped parameters that are not prunable: which, how much of the network, and what would include them."""

from __future__ import annotations

import fnmatch
import glob
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sparsight.model.weights import DTYPES, Weight

_RECURRENT = re.compile(r"^(weight_[a-z]+_l)\d+(_reverse)?$")


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


def unsettled(known: Mapping[str, Weight], settled: Collection[str]) -> tuple[LeftOut, ...]:
    """The matrix-shaped of a model's parameters whose names are not `settled`, in their order.

    Matrix-shaped: more than one element along at least two dimensions; of types that cannot be pruned, which may be
    packed, two dimensions do. A lazy parameter has no shape yet and is passed over.
    """
    known = {n: w for n, w in known.items() if not isinstance(w.parameter, nn.parameter.UninitializedParameter)}
    total = sum(weight.parameter.numel() for weight in known.values())
    found = {n: w for n, w in known.items() if n not in settled and _matrix_shaped(w.parameter)}
    first = {alias: name for name, weight in known.items() for alias in weight.names}
    patterns = _patterns([n for n, w in found.items() if w.parameter.dtype in DTYPES], first, {*settled})
    return tuple(
        LeftOut(name, tuple(w.parameter.shape), w.parameter.numel() / total, patterns.get(name), w.why)
        for name, w in found.items()
    )


def _matrix_shaped(parameter: nn.Parameter) -> bool:
    if parameter.dtype not in DTYPES:
        return parameter.dim() >= 2 and parameter.numel() > 1
    return sum(size > 1 for size in parameter.shape) >= 2


def _patterns(names: Iterable[str], first: Mapping[str, str], settled: Collection[str]) -> dict[str, str]:
    """A pattern for each name: one for all that differ in whole numbers only, if it reaches no unsettled other.

    Those of a recurrent layer, `weight_ih_l0` and the like, are one for all its layers and directions.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = ("*" if part.isdigit() else _RECURRENT.sub(r"\1*", glob.escape(part)) for part in name.split("."))
        groups.setdefault(".".join(parts), []).append(name)
    found = {}
    for pattern, members in groups.items():
        fine = {*members, *settled}
        together = (len(members) > 1 or pattern.endswith("_l*")) and all(
            name in fine for alias, name in first.items() if fnmatch.fnmatchcase(alias, pattern)
        )
        found |= {name: pattern if together else glob.escape(name) for name in members}
    return found


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
        line = f"{pattern} ({tensors}{size}, {_percent(sum(x.share for x in members))}{note})"
        said.append(line if line.isprintable() else repr(line)[1:-1])
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
