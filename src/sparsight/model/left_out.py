"""Matrix-shaped parameters that are not prunable: their share of the network, and patterns to include them."""

from __future__ import annotations

import fnmatch
import glob
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sparsight.model.weights import DTYPES, Weight
from sparsight.numerics.format import percent

_RECURRENT = re.compile(r"^(weight_[a-z]+_l)\d+(_reverse)?$")


class LeftOutWarning(UserWarning):
    """Matrix-shaped parameters are not prunable, and not excluded explicitly."""


@dataclass(frozen=True)
class LeftOut:
    """A matrix-shaped parameter that is not prunable."""

    name: str
    shape: tuple[int, ...]
    share: float  # of the elements of all parameters, in [0, 1]
    include: str | None  # the pattern that makes it prunable, perhaps with others of its kind; None: impossible
    note: str = ""  # what to do before including it, or why that is impossible


def unsettled(known: Mapping[str, Weight], settled: Collection[str]) -> tuple[LeftOut, ...]:
    """The matrix-shaped parameters of a model that are not in `settled`, in order.

    Matrix-shaped: more than one element along at least two dimensions; for dtypes that cannot be pruned, which may be
    packed, just two dimensions. Skips lazy parameters, which have no shape yet.
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
    """A pattern for each name: a common one for names that differ only in numbers, unless it matches other names.

    Weights of a recurrent layer, such as `weight_ih_l0`, share a pattern over layers and directions.
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
    """ "2 matrix-shaped tensors, 61.1 % of all parameters"."""
    tensors = f"{len(left):,} matrix-shaped tensor{'' if len(left) == 1 else 's'}"
    return f"{tensors}, {percent(sum(x.share for x in left))} of all parameters"


def lines(left: Sequence[LeftOut], most: int = 10) -> list[str]:
    """A line per pattern, largest first, with its share of all parameters; beyond `most`, one line for the rest."""
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
        line = f"{pattern} ({tensors}{size}, {percent(sum(x.share for x in members))}{note})"
        said.append(line if line.isprintable() else repr(line)[1:-1])
    rest = [x for _, members in ordered[most:] for x in members]
    return [*said, f"{len(rest):,} more ({percent(sum(x.share for x in rest))})"] if rest else said


def warn(left: Sequence[LeftOut], stacklevel: int) -> None:
    """Issue a LeftOutWarning if anything is left out, with what to do; `stacklevel` as in `warnings.warn`."""
    if not left:
        return
    verbs = "is not prunable and stays" if len(left) == 1 else "are not prunable and stay"
    said = "\n  ".join([f"{counted(left)}, {verbs} dense:", *lines(left)])
    then = (
        "to prune them, pass these names and patterns to include; to keep them dense without this warning, to exclude"
    )
    warnings.warn(f"{said}\n{then}", LeftOutWarning, stacklevel=stacklevel + 1)
