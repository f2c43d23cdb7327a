"""Judges what a tensor is without the network's code: by its values, neighbours, shape and name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from sparsight.analysis.partners import Kind, averages, partners, plain_name
from sparsight.analysis.reader import RAW, magnitudes, source_of
from sparsight.checkpoint.entry import ITEMSIZE, Entry, read_bytes, row_major
from sparsight.model.left_out import LeftOut
from sparsight.numerics.collecting import uncollected

_BUFFER = re.compile(
    r"(^|[._])(running_mean|running_var|num_batches_tracked|position_ids|inv_freq|masked_bias|freqs_cis|noise_const"
    r"|relative_position_index|mask|(cos|sin)_cached)$|rotary_emb"
)
_BIAS = re.compile(r"(^|[._])bias(_|$|[._])|(^|\.)b$|_b$")
_BIAS_LEAF = re.compile(r"(^|_)bias(_|$)")
_NORM = re.compile(
    r"(^|[._\d])(layer_?norm|batch_?norm|group_?norm|rms_?norm|norm|ln|bn)(\d*)([._]|$)|ln_f|norm\d*\.", re.I
)
_NORM_LEAF = re.compile(r"weight|gamma|beta|scale|g")
_EMBEDDING = re.compile(
    r"embed|(^|[._])(wte|wpe|tok_?emb|pos_?emb|emb)([._]|$)|relative_attention_bias"
    r"|pos(ition(al)?)?_?enc|(^|[._])(pe|rel_pos)(_|$)|^(model\.)?shared\.weight$",
    re.I,
)
_MULTIPLIED = re.compile(  # with an embedding's name: patch embeddings, and layers that project looked-up vectors
    r"patch_?embed|(^|[._])(proj|project|projection|linear|lin|dense|fc|conv|mlp)[\d_]*\.[^.]+$", re.I
)
_WEIGHT_LEAF = re.compile(r"(^|_)(weight|kernel|proj|matrix)|^w", re.I)
_MOMENT = re.compile(
    r"(^|\.)((max_)?exp_avg|exp_inf|momentum_buffer|square_avg|grad_avg|acc_delta)|^(?=[^.]*\.)[^.]*optimi[sz]er"
)
_SCALE_LEAF = re.compile(r"(^|[_.])(scales?|scale_inv|zero_points?|qzeros|absmax|amax|quant_map)(_\d)?$")

_WHY = {
    "bias": "a bias",
    "norm": "belongs to a normalisation",
    "embedding": "an embedding: looked up or added, not multiplied",
    "buffer": "a buffer, not a parameter",
    "vector": "fewer than two dimensions above 1",
    "scale": "a scale",
    "mask": "a causal mask: ones and zeros in a triangle",
    "optimizer": "the state of an optimiser",
}


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    why: str | None  # why it is not analysed; None if it is


def kind_of(name: str, shape: Sequence[int], dtype: str) -> Kind:
    """The kind by name and shape: a weight has at least two dimensions, and no name of another kind."""
    floating = dtype.startswith(("float", "bfloat", "complex"))
    if _BUFFER.search(name) or (not floating and len(shape) < 2):
        return "buffer"
    if not floating:
        return "other"
    path, _, leaf = name.rpartition(".")
    if len(shape) < 2:
        if _BIAS.search(name):
            return "bias"
        return "norm" if leaf in ("weight", "gamma", "beta", "scale") or _NORM.search(name) else "vector"
    if _BIAS_LEAF.search(leaf):
        return "bias"
    if _SCALE_LEAF.search(leaf):
        return "scale"
    if _NORM.search(f"{path.rpartition('.')[2]}.") and _NORM_LEAF.fullmatch(leaf):
        return "norm"
    return _multiplied(name, leaf, shape)


def _multiplied(name: str, leaf: str, shape: Sequence[int]) -> Kind:
    """A weight, or an embedding: a lookup table, or a parameter that is broadcast along its first dimension."""
    if _WEIGHT_LEAF.search(leaf):
        table = _EMBEDDING.search(name) and len(shape) == 2 and not _MULTIPLIED.search(name)
        return "embedding" if table else "weight"
    if _EMBEDDING.search(name):
        return "embedding"
    if sum(n != 1 for n in shape) < 2:
        return "vector"
    return "embedding" if len(shape) > 2 and shape[0] == 1 else "weight"


@uncollected()
def judge(
    entries: Iterable[Entry],
    include: Sequence[str],
    exclude: Sequence[str],
    prunable: frozenset[str] | None = None,
    left: Sequence[LeftOut] = (),
) -> dict[str, Verdict]:
    """The kind of each entry, and whether it is analysed: weights are, and tensors that `include` adds.

    Patterns are shell-style and match any of a tensor's names; `exclude` wins. A tensor is an embedding if any of its
    names is one's. For a module, `prunable` names its weights and `left` its other matrix-shaped parameters.

    Raises: ValueError for a pattern that matches nothing; CheckpointError if a file cannot be read.
    """
    entries = list(entries)
    told = _by_others(entries)
    found, used, ways = {}, set(), {x.name: _way(x) for x in left}
    for entry in entries:
        kind, why = told.get(entry.name) or _by_itself(entry)
        if prunable is not None:
            chosen = any(n in prunable for n in (entry.name, *entry.aliases))
            kind = "weight" if chosen else kind
            why = (
                None if chosen else (why or "not a weight of a linear or convolution layer") + ways.get(entry.name, "")
            )
        if include or exclude:
            wanted, unwanted = _matching(include, entry), _matching(exclude, entry)
            used.update(wanted, unwanted)
            why = "excluded" if unwanted else None if wanted else why
        found[entry.name] = Verdict(kind, entry.obstacle or why or _unreadable(entry))
    idle = [p for p in (*include, *exclude) if p not in used]
    if idle:
        some = ", ".join(repr(e.name) for e in entries[:6])
        raise ValueError(
            f"pattern {idle[0]!r} matches no tensor: the names are {some}{' …' if len(entries) > 6 else ''}"
        )
    return found


def _matching(patterns: Sequence[str], entry: Entry) -> list[str]:
    """The patterns that match a name of the tensor."""
    return [p for p in patterns if any(fnmatch.fnmatchcase(n, p) for n in (entry.name, *entry.aliases))]


def _by_others(entries: Sequence[Entry]) -> dict[str, tuple[Kind, str | None]]:
    """Kinds that follow from the structure of the file and from neighbouring tensors."""
    optimizers = {e.name for e in entries if e.part == "optimizer" or _MOMENT.search(e.name)}
    networks = [e for e in entries if e.name not in optimizers]
    found: dict[str, tuple[Kind, str | None]] = dict.fromkeys(optimizers, ("optimizer", _WHY["optimizer"]))
    found |= {name: ("average", f"a running average of {of}") for name, of in averages(networks).items()}
    return partners([e for e in networks if e.name not in found]) | found


def _by_itself(entry: Entry) -> tuple[Kind, str | None]:
    if not entry.dtype:
        return "other", None
    if is_causal_mask(entry):
        return "mask", _WHY["mask"]
    kinds: list[Kind] = [kind_of(plain_name(n), entry.shape, entry.dtype) for n in (entry.name, *entry.aliases)]
    kind: Kind = "embedding" if "embedding" in kinds else kinds[0]
    if kind == "weight" and entry.part == "beside" and not _WEIGHT_LEAF.search(entry.name.rpartition(".")[2]):
        return "other", "outside the network, and not named like a weight"
    return kind, _WHY.get(kind)


def _way(left: LeftOut) -> str:
    """How to include a matrix-shaped parameter."""
    pattern = f"; {left.include!r} includes it" if left.include else ""
    return f"{pattern}; {left.note}" if left.note else pattern


def _unreadable(entry: Entry) -> str | None:
    if entry.dtype not in ITEMSIZE:
        return f"{entry.dtype} cannot be analysed, only {', '.join(ITEMSIZE)}"
    return "it has no weight" if entry.count == 0 else None


# -- causal masks, recognised by their values ------------------------------------------------------------------------

_LEAST = 1000.0  # smallest magnitude, besides 0, in a mask that is added
_BLOCK = 1 << 20  # values compared at once


def is_causal_mask(entry: Entry) -> bool:
    """Whether it is [n, n] or [1, …, n, n], with zeros on one side of the diagonal and ones on the other.

    A large number of either sign may replace the ones, and they may form a band, as for a window. The diagonal may be
    either. Reads at most three values of most other tensors.
    """
    shape = entry.shape
    square = len(shape) > 1 and shape[-1] == shape[-2] > 1 and entry.count == shape[-1] ** 2
    if not square or entry.obstacle is not None or entry.mask is not None or entry.dtype not in RAW:
        return False
    if not _is_told(corner := _value(entry, 0, 0)):
        return False
    right, below = _value(entry, 0, 1), _value(entry, 1, 0)
    value = max(right, below)
    return min(right, below) == 0 != value and _is_told(value) and corner in (0, value) and _is_triangle(entry, value)


def _is_told(value: float) -> bool:
    """Whether a mask may hold this value."""
    return value in (0, 1) or value >= _LEAST


def _value(entry: Entry, i: int, j: int) -> float:
    """The magnitude at [0, …, i, j]."""
    if entry.tensor is not None:
        return abs(float(entry.tensor[(0,) * (len(entry.shape) - 2)][i, j]))
    assert entry.path is not None
    raw = RAW[entry.dtype]
    down, along = (entry.strides or row_major(entry.shape))[-2:]
    found = read_bytes(entry.path, entry.offset + (i * down + j * along) * raw.itemsize, raw.itemsize)
    return float(magnitudes(np.frombuffer(found, raw), entry.dtype)[0])


def _is_triangle(entry: Entry, value: float) -> bool:
    """Whether each diagonal is constant, and the nonzero ones form a band that begins at the main one or next to it."""
    n = entry.shape[-1]
    with ExitStack() as stack:
        source = source_of(entry, {}, stack)

        def rows(start: int, stop: int) -> np.ndarray:
            return magnitudes(source.read(start * n, stop * n), entry.dtype).reshape(-1, n)

        diagonals = np.concatenate([rows(n - 1, n)[0], rows(0, 1)[0, 1:]])  # from the lowest to the highest
        below, above = diagonals[: n - 1], diagonals[n:]
        if not np.isin(diagonals, (0, value)).all() or (below.any() and above.any()):
            return False
        every = np.lib.stride_tricks.sliding_window_view(diagonals, n)[::-1]
        step = max(_BLOCK // n, 1)
        return all(np.array_equal(rows(i, min(i + step, n)), every[i : i + step]) for i in range(0, n, step))
