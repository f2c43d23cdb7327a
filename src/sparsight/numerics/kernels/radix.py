"""Selection over pieces by radix: 16 bits of the threshold at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from sparsight.numerics.kernels.jit import each
from sparsight.numerics.kernels.pieces import Piece
from sparsight.numerics.kernels.select import DIGITS

_T = TypeVar("_T")


def prune(pieces: Sequence[Piece], k: int, alive: int) -> None:
    """Write the masks of `pieces`: alive, but for the k smallest."""
    if not alive:
        for piece in pieces:
            piece.out.zero_()
        return
    threshold, equal, rank = _threshold(pieces, k)
    ties = over(lambda piece: piece.write(threshold, rank < equal), pieces)
    if rank == equal:
        return
    gone = [min(max(rank - before, 0), n) for n, before in zip(ties, np.cumsum([0, *ties]).tolist(), strict=False)]
    todo = [(piece, skip) for piece, skip, n in zip(pieces, gone, ties, strict=True) if skip < n]
    skips = {id(piece): skip for piece, skip in todo}
    over(lambda piece: piece.restore(threshold, skips[id(piece)]), [piece for piece, _ in todo])


def _threshold(pieces: Sequence[Piece], k: int) -> tuple[int, int, int]:
    """The k-th smallest key, how many keys are equal to it, and how many of those are among the k smallest."""
    shift = pieces[0].width - 16
    histogram = _survey(pieces)
    digit, rank = _find(histogram, max(1, k))
    threshold = digit - DIGITS // 2
    if shift == 0:
        infinity = pieces[0].infinity + DIGITS // 2
        _refuse_nan(pieces, bool(histogram[infinity + 1 :].any() or histogram[: DIGITS - infinity].any()))
    while shift > 0:
        shift -= 16
        histogram, below, nan = _narrow(pieces, threshold, shift)
        _refuse_nan(pieces, nan)
        digit, rank = _find(histogram, max(1, k - below))
        threshold = threshold * DIGITS + digit
    if k == 0:
        return -(1 << (pieces[0].width - 1)), 0, 0
    return threshold, int(histogram[digit]), rank


def _survey(pieces: Sequence[Piece]) -> np.ndarray:
    def work(share: Sequence[Piece]) -> np.ndarray:
        histogram = np.zeros(DIGITS, np.int64)
        for piece in share:
            piece.survey(histogram)
        return histogram

    return np.sum(_shared(work, pieces), axis=0)


def _narrow(pieces: Sequence[Piece], prefix: int, shift: int) -> tuple[np.ndarray, int, bool]:
    low = prefix * (DIGITS << shift)
    high = low + (DIGITS << shift) - 1

    def work(share: Sequence[Piece]) -> tuple[np.ndarray, int, bool]:
        histogram = np.zeros(DIGITS, np.int64)
        found = [piece.narrow(low, high, shift, histogram) for piece in share]
        return histogram, sum(below for below, _ in found), any(nan for _, nan in found)

    histograms, below, nan = zip(*_shared(work, pieces), strict=True)
    return np.sum(histograms, axis=0), sum(below), any(nan)


def _find(histogram: np.ndarray, rank: int) -> tuple[int, int]:
    """The digit of the entry of this rank (from 1), and its rank within that digit."""
    upto = np.cumsum(histogram)
    digit = min(int(np.searchsorted(upto, rank)), histogram.size - 1)
    return digit, rank - int(upto[digit] - histogram[digit])


def over(work: Callable[[Piece], _T], pieces: Sequence[Piece]) -> list[_T]:
    """`[work(piece) for piece in pieces]`, on several threads."""
    return each(lambda i: work(pieces[i]), len(pieces))


def _shared(work: Callable[[Sequence[Piece]], _T], pieces: Sequence[Piece]) -> list[_T]:
    """One share of the pieces for each thread, so that a histogram is made for each thread, not for each piece."""
    n = min(torch.get_num_threads(), len(pieces))
    return each(lambda i: work(pieces[i::n]), n)


def _refuse_nan(pieces: Sequence[Piece], nan: bool) -> None:
    if nan:
        name = next(piece.name for piece in pieces if piece.has_nan())
        raise ValueError(f"NaN among the alive scores of {name!r}")
