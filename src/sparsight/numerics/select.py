"""Exact selection: the k smallest scores of a dictionary of tensors, without sorting or joining them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.checks import check_gathered, check_known
from sparsight.numerics.kernels import select as kernels
from sparsight.numerics.kernels.jit import each
from sparsight.numerics.kernels.select import BLOCK, DIGITS, Piece, bytes_of, cut, keep_rows
from sparsight.types import Masks, Scope, Scores

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_S = TypeVar("_S")
_T = TypeVar("_T")
_Verb = Literal["prune", "keep"]


def prune_smallest(
    scores: Scores, masks: Masks, counts: int | Mapping[str, Any], *, scope: Scope = "global", min_keep: int = 0
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Remove exactly `counts` of the alive weights: those with the smallest scores.

    scope "global": `counts` is an int, ranked over all tensors together (dtypes compare by true value);
    "layer": an int per name; "neuron": per name, an int64 tensor with one count per row (index of dimension 0; a 1-D
    tensor has rows of one entry).

    Ties: of equal scores the lower index is pruned first (order of `scores`, then row-major in any memory format).
    -0.0 equals +0.0. Infinities are ranked. NaN raises among alive entries and is ignored elsewhere.
    `min_keep`: every tensor (global, layer) or row (neuron) keeps at least this many of its alive weights. In
    global scope the largest `min_keep` of each tensor are protected, and the smallest of the rest are pruned.

    Returns new contiguous masks, and the names of tensors in which the floor changed the selection (global scope only;
    other scopes reject a count that breaks the floor). Scores on other devices are copied to the CPU: the result is
    the same on every device and for any number of threads. Raises: ValueError, TypeError.
    """
    return _select(scores, masks, counts, "prune", scope, min_keep)


def keep_largest(
    scores: Scores, masks: Masks, counts: int | Mapping[str, Any], *, scope: Scope = "global", min_keep: int = 0
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Keep exactly `counts` of the alive weights: those with the largest scores.

    Keeping k of d alive weights prunes d - k of them: see `prune_smallest` for everything else.
    """
    return _select(scores, masks, counts, "keep", scope, min_keep)


def _select(
    scores: Scores, masks: Masks, counts: Any, verb: _Verb, scope: Scope, min_keep: int
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    check_scores(scores, masks)
    check_known(Scope, scope=scope)
    _check_int("min_keep", min_keep)
    if min_keep < 0:
        raise ValueError(f"min_keep must be at least 0, got {min_keep}")
    homes = {name: score.device for name, score in scores.items()}
    scores, masks = {n: s.detach().cpu() for n, s in scores.items()}, {n: masks[n].cpu() for n in scores}
    out = {name: torch.empty(s.shape, dtype=torch.bool) for name, s in scores.items()}
    floors: tuple[str, ...] = ()
    if scope == "global":
        wide = _widest({score.dtype for score in scores.values()})
        pieces = {n: list(cut(n, s, masks[n], out[n], wide)) for n, s in scores.items()}
        floors = _global(pieces, counts, verb, min_keep)
    else:
        _check_keys("counts", counts, scores)
        for name, s in scores.items():
            if scope == "layer":
                _layer(name, list(cut(name, s, masks[name], out[name], s.dtype)), counts[name], verb, min_keep)
            else:
                gone = _row_counts(name, masks[name], counts[name], verb, min_keep)
                _rows(name, s, masks[name], out[name], gone)
    return {name: mask.to(homes[name]) for name, mask in out.items()}, floors


# -- global and layer scope ------------------------------------------------------------------------------------


def _global(pieces: Mapping[str, list[Piece]], count: Any, verb: _Verb, min_keep: int) -> tuple[str, ...]:
    """Write the masks; returns the names of tensors held at the floor.

    A tensor that would fall below its floor is fixed there, and the other tensors lose more weights instead.
    """
    alive = dict.fromkeys(pieces, 0)
    every = [piece for of in pieces.values() for piece in of]
    for piece, n in zip(every, _alive(every), strict=True):
        alive[piece.name] += n
    floor = {name: min(min_keep, alive[name]) for name in pieces}
    gone = _to_prune("counts", count, sum(alive.values()), verb, "", min_keep, sum(floor.values()))
    free, held = dict(pieces), set()
    while True:
        _prune([piece for of in free.values() for piece in of], gone, sum(alive[name] for name in free))
        short = [n for n, of in free.items() if min_keep and _kept(of) < floor[n]]
        if not short:
            return tuple(name for name in pieces if name in held)
        for name in short:
            _prune(free.pop(name), alive[name] - floor[name], alive[name])
            gone -= alive[name] - floor[name]
        held.update(short)


def _layer(name: str, pieces: list[Piece], count: Any, verb: _Verb, min_keep: int) -> None:
    alive = sum(_alive(pieces))
    gone = _to_prune(f"counts[{name!r}]", count, alive, verb, f" in {name!r}", min_keep, min(min_keep, alive))
    _prune(pieces, gone, alive)


def _alive(pieces: Sequence[Piece]) -> list[int]:
    return _over(lambda piece: int(kernels.count(bytes_of(piece.mask))), pieces)


def _kept(pieces: Sequence[Piece]) -> int:
    return sum(_over(lambda piece: int(kernels.count(piece.kept)), pieces))


def _to_prune(what: str, count: Any, alive: int, verb: _Verb, where: str, min_keep: int, floor: int) -> int:
    _check_int(what, count)
    said = f"cannot {verb} {count} of {alive} alive weights{where}"
    if not 0 <= count <= alive:
        raise ValueError(said)
    gone = count if verb == "prune" else alive - count
    if alive - gone < floor:
        raise ValueError(f"{said}: min_keep={min_keep} keeps at least {floor} of them")
    return gone


# -- radix selection: 16 bits of the threshold at a time ----------------------------------------------------------


def _prune(pieces: Sequence[Piece], k: int, alive: int) -> None:
    """Write the masks of `pieces`: all alive entries except the k smallest."""
    if not alive:
        for piece in pieces:
            piece.out.zero_()
        return
    threshold, equal, rank = _threshold(pieces, k)
    key = pieces[0].key(threshold)
    ties = _over(lambda piece: int(kernels.write(*piece.arrays, key, rank < equal, piece.kept)), pieces)
    if rank == equal:
        return
    gone = [min(max(rank - before, 0), n) for n, before in zip(ties, np.cumsum([0, *ties]).tolist(), strict=False)]
    todo = [(piece, skip) for piece, skip, n in zip(pieces, gone, ties, strict=True) if skip < n]
    _over(lambda some: kernels.restore(*some[0].arrays, key, some[1], some[0].kept), todo)


def _threshold(pieces: Sequence[Piece], k: int) -> tuple[int, int, int]:
    """The k-th smallest key, how many keys equal it, and how many of these are among the k smallest."""
    shift = pieces[0].width - 16
    histogram, _ = _histogram(pieces, lambda piece, histogram: kernels.survey(*piece.arrays, histogram))
    digit, rank = _find(histogram, max(1, k))
    threshold = digit - DIGITS // 2
    if shift == 0:
        infinity = pieces[0].infinity + DIGITS // 2
        _refuse_nan(pieces, bool(histogram[infinity + 1 :].any() or histogram[: DIGITS - infinity].any()))
    while shift > 0:
        shift -= 16
        histogram, below = _narrow(pieces, threshold * (DIGITS << shift), shift)
        digit, rank = _find(histogram, max(1, k - below))
        threshold = threshold * DIGITS + digit
    if k == 0:
        return -(1 << (pieces[0].width - 1)), 0, 0
    return threshold, int(histogram[digit]), rank


def _narrow(pieces: Sequence[Piece], low: int, shift: int) -> tuple[np.ndarray, int]:
    """Histogram of the digits at `shift` of keys that match `low` above them, and the number of keys below `low`."""
    one = pieces[0]
    low, high, infinity = map(one.key, (low, low + (DIGITS << shift) - 1, one.infinity))

    def add(piece: Piece, histogram: np.ndarray) -> tuple[int, bool]:
        return kernels.narrow(*piece.arrays, low, high, shift, infinity, histogram)

    histogram, found = _histogram(pieces, add)
    _refuse_nan(pieces, any(nan for _, nan in found))
    return histogram, sum(below for below, _ in found)


def _histogram(pieces: Sequence[Piece], add: Callable[[Piece, np.ndarray], _T]) -> tuple[np.ndarray, list[_T]]:
    """The sum of the histograms that `add` fills, one per thread rather than per piece, and what `add` returns."""
    n = min(torch.get_num_threads(), len(pieces))

    def work(i: int) -> tuple[np.ndarray, list[_T]]:
        histogram = np.zeros(DIGITS, np.int64)
        return histogram, [add(piece, histogram) for piece in pieces[i::n]]

    histograms, found = zip(*each(work, n), strict=True)
    return np.sum(histograms, axis=0), [one for some in found for one in some]


def _find(histogram: np.ndarray, rank: int) -> tuple[int, int]:
    """The digit of the entry with this rank (from 1), and the entry's rank within that digit."""
    upto = np.cumsum(histogram)
    digit = min(int(np.searchsorted(upto, rank)), histogram.size - 1)
    return digit, rank - int(upto[digit] - histogram[digit])


def _over(work: Callable[[_S], _T], items: Sequence[_S]) -> list[_T]:
    """`[work(item) for item in items]`, on several threads."""
    return each(lambda i: work(items[i]), len(items))


def _refuse_nan(pieces: Sequence[Piece], nan: bool) -> None:
    if nan:
        name = next(piece.name for piece in pieces if piece.has_nan())
        raise ValueError(f"NaN among the alive scores of {name!r}")


# -- neuron scope ----------------------------------------------------------------------------------------------


def _row_counts(name: str, mask: Tensor, counts: Any, verb: _Verb, min_keep: int) -> Tensor:
    """The number of weights to prune in each row."""
    rows = mask.shape[0] if mask.dim() else 1
    if not isinstance(counts, Tensor) or counts.dtype != torch.int64 or counts.shape != (rows,):
        got = f"{counts.dtype} of shape {tuple(counts.shape)}" if isinstance(counts, Tensor) else type(counts).__name__
        raise ValueError(f"counts[{name!r}] must be an int64 tensor of shape ({rows},), got {got}")
    alive = mask.reshape(-1).long() if mask.dim() <= 1 else mask.sum(dim=tuple(range(1, mask.dim())))
    counts = counts.cpu()
    gone = counts if verb == "prune" else alive - counts
    bad = ((counts < 0) | (counts > alive) | (alive - gone < alive.clamp(max=min_keep))).nonzero()
    if bad.numel():
        row = int(bad[0])
        of, where = int(alive[row]), f" in '{name}[{row}]'"
        _to_prune("counts", int(counts[row]), of, verb, where, min_keep, min(min_keep, of))
    return gone


def _rows(name: str, score: Tensor, mask: Tensor, out: Tensor, gone: Tensor) -> None:
    rows, width = len(gone), score.numel() // max(1, len(gone))
    if not width:
        return
    score, mask = (t.reshape(1) if t.dim() == 0 else t for t in (score, mask))
    step = max(1, BLOCK // 16 // width)

    def work(i: int) -> bool:
        some = slice(i * step, (i + 1) * step)
        s, m, o = (t[some].reshape(-1, width) for t in (score, mask, out.view(rows, width)))
        keep_rows(s, m, gone[some], o)
        return bool((s.isnan() & m).any())

    if any(each(work, -(-rows // step))):
        raise ValueError(f"NaN among the alive scores of {name!r}")


# -- checks ----------------------------------------------------------------------------------------------------


def check_scores(scores: Scores, masks: Masks) -> None:
    """Raise TypeError or ValueError unless scores and masks are tensors of the same names, shapes and devices."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"scores must be a mapping of tensors by parameter name, got {type(scores).__name__}")
    _check_keys("masks", masks, scores)
    check_gathered(scores)
    for name, score in scores.items():
        mask = masks[name]
        for what, x in (("scores", score), ("masks", mask)):
            if not isinstance(x, Tensor):
                raise TypeError(f"{what}[{name!r}] must be a tensor, got {type(x).__name__}")
        if score.dtype not in _DTYPES:
            raise TypeError(f"scores[{name!r}] must be of one of {[str(d) for d in _DTYPES]}, got {score.dtype}")
        if mask.dtype != torch.bool:
            raise TypeError(f"masks[{name!r}] must be torch.bool, got {mask.dtype}")
        if mask.shape != score.shape:
            shapes = f"the shape of its scores, {tuple(score.shape)}, got {tuple(mask.shape)}"
            raise ValueError(f"masks[{name!r}] must have {shapes}")
        if mask.device != score.device:
            raise ValueError(f"masks[{name!r}] must be on {score.device} like its scores, got {mask.device}")


def _check_keys(what: str, got: Any, scores: Scores) -> None:
    if not isinstance(got, Mapping):
        raise TypeError(f"{what} must be a mapping with the keys of scores, got {type(got).__name__}")
    if got.keys() != scores.keys():
        missing, extra = sorted(scores.keys() - got.keys()), sorted(got.keys() - scores.keys())
        raise ValueError(f"{what} must have the keys of scores: missing {missing}, unexpected {extra}")


def _check_int(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, got {value!r} of type {type(value).__name__}")


def _widest(dtypes: set[torch.dtype]) -> torch.dtype:
    """The narrowest dtype that holds every value of these dtypes."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return torch.float64 if torch.float64 in dtypes else torch.float32
