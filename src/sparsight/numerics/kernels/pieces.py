"""Pieces of scores, masks and new masks, and what selection asks of them.

A piece is a run of at most `BLOCK` entries in row-major order. Tensors that lie otherwise in memory, or that
must be widened to be compared with others, are copied piece by piece, never whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.kernels import select as kernels

BLOCK = 1 << 21
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INTS = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class Piece:
    """One run of entries on the CPU. Keys are integers that sort as the scores do; see `kernels.select`."""

    name: str
    score: Tensor
    mask: Tensor
    out: Tensor
    wide: torch.dtype  # in which scores are compared

    @property
    def width(self) -> int:
        """Bits of a key."""
        return 8 * self.wide.itemsize

    @property
    def infinity(self) -> int:
        """The key of +inf; its negative is that of -inf, and NaN is beyond both."""
        return int(torch.tensor(torch.inf, dtype=self.wide).view(_BITS[self.wide.itemsize]))

    def has_nan(self) -> bool:
        return bool((self.score.isnan() & self.mask).any())

    @cached_property
    def _views(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores and mask where they lie; None where they have to be copied for every use."""
        here = self.score.is_contiguous() and self.mask.is_contiguous() and self.score.dtype == self.wide
        return self._flat() if here else None

    @cached_property
    def _out(self) -> np.ndarray:
        return _bytes(self.out)

    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        return _bits(self.score.reshape(-1).to(self.wide)), _bytes(self.mask)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._views or self._flat()

    def _key(self, key: int) -> Any:
        """As an integer of the width of the keys: kernels are compiled for that alone."""
        return _INTS[self.wide.itemsize](key)

    def alive(self) -> int:
        """Entries where the mask is True."""
        return int(kernels.count(_bytes(self.mask)))

    def kept(self) -> int:
        """Entries where the new mask is True."""
        return int(kernels.count(self._out))

    def survey(self, histogram: np.ndarray) -> None:
        """Add the top digits of alive keys to `histogram`."""
        kernels.survey(*self._arrays(), histogram)

    def narrow(self, low: int, high: int, shift: int, histogram: np.ndarray) -> tuple[int, bool]:
        """Add the digits at `shift` of alive keys in [low, high]; the alive keys below, and whether one is NaN."""
        ends = self._key(low), self._key(high)
        below, nan = kernels.narrow(*self._arrays(), *ends, shift, self._key(self.infinity), histogram)
        return int(below), bool(nan)

    def write(self, threshold: int, count: bool) -> int:
        """out = alive and key > threshold; the alive keys equal to the threshold, if `count`."""
        return int(kernels.write(*self._arrays(), self._key(threshold), count, self._out))

    def restore(self, threshold: int, skip: int) -> None:
        """out = True where alive and key == threshold, but for the first `skip` of them."""
        kernels.restore(*self._arrays(), self._key(threshold), skip, self._out)


def keep_rows(score: Tensor, mask: Tensor, counts: Tensor, out: Tensor) -> None:
    """In every row of these matrices, out = alive but for the `counts[row]` smallest."""
    alive = mask.contiguous().view(torch.uint8).numpy()
    kernels.rows(_bits(score), alive, counts.contiguous().numpy(), out.view(torch.uint8).numpy())


def _bits(score: Tensor) -> np.ndarray:
    """In one run of memory: kernels are compiled for that alone."""
    return score.contiguous().view(_BITS[score.dtype.itemsize]).numpy()


def _bytes(mask: Tensor) -> np.ndarray:
    return mask.reshape(-1).contiguous().view(torch.uint8).numpy()


def cut(name: str, score: Tensor, mask: Tensor, out: Tensor, wide: torch.dtype) -> Iterator[Piece]:
    """The pieces of one tensor, in row-major order."""
    if score.numel() <= BLOCK:
        if score.numel():
            yield Piece(name, score, mask, out, wide)
        return
    if score.is_contiguous() and mask.is_contiguous():
        parts = zip(*(t.view(-1).split(BLOCK) for t in (score, mask, out)), strict=True)
    else:
        rows = max(1, BLOCK // score[0].numel())  # a row that is still too long is cut in its turn
        parts = zip(*(t.split(rows) if rows > 1 else t.unbind() for t in (score, mask, out)), strict=True)
    for s, m, o in parts:
        yield from cut(name, s, m, o, wide)
