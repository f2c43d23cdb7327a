"""What a tensor is, told by its name and shape alone: there is no code of the network to ask."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sparsight.checkpoint.entry import ITEMSIZE, Entry
from sparsight.model.left_out import LeftOut

Kind = Literal["weight", "bias", "norm", "embedding", "buffer", "vector", "other"]

_BUFFER = re.compile(
    r"(^|[._])(running_mean|running_var|num_batches_tracked|position_ids|inv_freq|attn_mask)$|rotary_emb"
)
_BIAS = re.compile(r"(^|[._])bias(_|$|[._])|(^|\.)b$|_b$")
_NORM = re.compile(
    r"(^|[._\d])(layer_?norm|batch_?norm|group_?norm|rms_?norm|norm|ln|bn)(\d*)([._]|$)|ln_f|norm\d*\.", re.I
)
_EMBEDDING = re.compile(r"embed|(^|[._])(wte|wpe|tok_?emb|pos_?emb|emb)([._]|$)|relative_attention_bias", re.I)

_WHY = {
    "bias": "a bias",
    "norm": "belongs to a normalisation",
    "embedding": "an embedding: rows are looked up, not multiplied",
    "buffer": "a buffer, not a parameter",
    "vector": "fewer than two dimensions",
}


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    why: str | None  # why it is not analysed; None if it is


def kind_of(name: str, shape: Sequence[int], dtype: str) -> Kind:
    """Kind by name and shape: two dimensions or more and no telling name make a weight."""
    floating = dtype.startswith(("float", "bfloat", "complex"))
    if _BUFFER.search(name) or (not floating and len(shape) < 2):
        return "buffer"
    if not floating:
        return "other"
    if _EMBEDDING.search(name) and len(shape) >= 2:
        return "embedding"
    if len(shape) >= 2:
        return "weight"
    if _BIAS.search(name):
        return "bias"
    if _NORM.search(name) or (len(shape) == 1 and name.rpartition(".")[2] in ("weight", "gamma", "beta", "scale")):
        return "norm"
    return "vector"


def judge(
    entries: Iterable[Entry],
    include: Sequence[str],
    exclude: Sequence[str],
    prunable: frozenset[str] | None = None,
    left: Sequence[LeftOut] = (),
) -> dict[str, Verdict]:
    """What each entry is, and whether it is analysed: weights, and what `include` names but `exclude` does not.

    Patterns are shell-style and match any of a tensor's names; `exclude` wins. A tensor one of whose names is
    that of an embedding is one. `prunable` names the weights where the network itself has said, and `left` what else
    is matrix-shaped, which is told how to include.
    ValueError for a pattern that matches nothing.
    """
    entries = list(entries)
    found, used, ways = {}, set(), {x.name: _way(x) for x in left}
    for entry in entries:
        names = (entry.name, *entry.aliases)
        kinds: list[Kind] = [kind_of(n, entry.shape, entry.dtype) for n in names]
        kind: Kind = "embedding" if "embedding" in kinds else kinds[0]
        why = _WHY.get(kind)
        if prunable is not None:
            chosen = any(n in prunable for n in names)
            kind = "weight" if chosen else kind
            why = (
                None if chosen else (why or "not a weight of a linear or convolution layer") + ways.get(entry.name, "")
            )
        wanted = [p for p in include if any(fnmatch.fnmatchcase(n, p) for n in names)]
        unwanted = [p for p in exclude if any(fnmatch.fnmatchcase(n, p) for n in names)]
        used.update(wanted, unwanted)
        why = "excluded" if unwanted else None if wanted else why
        found[entry.name] = Verdict(kind, _unreadable(entry) or why if why is None else why)
    idle = [p for p in (*include, *exclude) if p not in used]
    if idle:
        some = ", ".join(repr(e.name) for e in entries[:6])
        raise ValueError(
            f"pattern {idle[0]!r} matches no tensor: the names are {some}{' …' if len(entries) > 6 else ''}"
        )
    return found


def _way(left: LeftOut) -> str:
    """How a matrix-shaped parameter is included."""
    pattern = f"; {left.include!r} includes it" if left.include else ""
    return f"{pattern}; {left.note}" if left.note else pattern


def _unreadable(entry: Entry) -> str | None:
    if entry.obstacle is not None:
        return entry.obstacle
    if entry.dtype not in ITEMSIZE:
        return f"{entry.dtype} cannot be analysed, only {', '.join(ITEMSIZE)}"
    return "it has no weight" if entry.count == 0 else None
