"""Pieces of scores, masks and new masks, and what selection asks of them: compiled, or as tensor code.

A piece is a run of at most `block` entries in row-major order. Tensors that lie otherwise in memory, or that
must be widened to be compared with others, are copied piece by piece, never whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.kernels import select as kernels
from sparsight.numerics.kernels.select import DIGITS

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_INTS = {2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True)
class Piece(ABC):
    """One run of entries. Keys are integers that sort as the scores do; see `kernels.select`."""

    name: str
    score: Tensor
    mask: Tensor
    out: Tensor
    wide: torch.dtype  # in which scores are compared

    block: ClassVar[int]
    threaded: ClassVar[bool]  # whether pieces may be worked on from several threads

    @property
    def width(self) -> int:
        """Bits of a key."""
        return 8 * self.wide.itemsize

    @property
    def infinity(self) -> int:
        """The key of +inf; its negative is that of -inf, and NaN is beyond both."""
        return _infinity(self.wide)

    def bits(self) -> Tensor:
        return _flat(self.score).to(self.wide).view(_BITS[self.wide.itemsize])

    def has_nan(self) -> bool:
        return bool((self.score.isnan() & self.mask).any())

    @abstractmethod
    def alive(self) -> int:
        """Entries where the mask is True."""

    @abstractmethod
    def kept(self) -> int:
        """Entries where the new mask is True."""

    @abstractmethod
    def survey(self, histogram: np.ndarray) -> None:
        """Add the top digits of alive keys to `histogram`."""

    @abstractmethod
    def narrow(self, low: int, high: int, shift: int, histogram: np.ndarray) -> tuple[int, bool]:
        """Add the digits at `shift` of alive keys in [low, high]; the alive keys below, and whether one is NaN."""

    @abstractmethod
    def write(self, threshold: int, count: bool) -> int:
        """out = alive and key > threshold; the alive keys equal to the threshold, if `count`."""

    @abstractmethod
    def restore(self, threshold: int, skip: int) -> None:
        """out = True where alive and key == threshold, but for the first `skip` of them."""

    @staticmethod
    @abstractmethod
    def rows(score: Tensor, mask: Tensor, counts: Tensor, out: Tensor) -> None:
        """In every row of these matrices, out = alive but for the `counts[row]` smallest."""


class CompiledPiece(Piece):
    """On the CPU, by numba."""

    block = 1 << 21
    threaded = True

    @cached_property
    def _views(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Scores and mask where they lie; None where they have to be copied for every use."""
        here = self.score.is_contiguous() and self.mask.is_contiguous() and self.score.dtype == self.wide
        return self._flat() if here else None

    @cached_property
    def _out(self) -> np.ndarray:
        return self.out.view(-1).view(torch.uint8).numpy()

    def _flat(self) -> tuple[np.ndarray, np.ndarray]:
        return self.bits().numpy(), _flat(self.mask).view(torch.uint8).numpy()

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._views or self._flat()

    def _key(self, key: int) -> Any:
        """As an integer of the width of the keys: kernels are compiled for that alone."""
        return _INTS[self.wide.itemsize](key)

    def alive(self) -> int:
        return int(kernels.count(_flat(self.mask).view(torch.uint8).numpy()))

    def kept(self) -> int:
        return int(kernels.count(self._out))

    def survey(self, histogram: np.ndarray) -> None:
        kernels.survey(*self._arrays(), histogram)

    def narrow(self, low: int, high: int, shift: int, histogram: np.ndarray) -> tuple[int, bool]:
        ends = self._key(low), self._key(high)
        below, nan = kernels.narrow(*self._arrays(), *ends, shift, self._key(self.infinity), histogram)
        return int(below), bool(nan)

    def write(self, threshold: int, count: bool) -> int:
        return int(kernels.write(*self._arrays(), self._key(threshold), count, self._out))

    def restore(self, threshold: int, skip: int) -> None:
        kernels.restore(*self._arrays(), self._key(threshold), skip, self._out)

    @staticmethod
    def rows(score: Tensor, mask: Tensor, counts: Tensor, out: Tensor) -> None:
        bits = score.contiguous().view(_BITS[score.dtype.itemsize]).numpy()
        alive = mask.contiguous().view(torch.uint8).numpy()
        kernels.rows(bits, alive, counts.contiguous().numpy(), out.view(torch.uint8).numpy())


class TensorPiece(Piece):
    """On any device, by torch. Temporaries are in proportion to the block."""

    block = 1 << 22
    threaded = False  # a thread of ours would not know the caller's stream

    def _keys(self) -> tuple[Tensor, Tensor]:
        return _turned(self.bits()), _flat(self.mask)

    def alive(self) -> int:
        return int(torch.count_nonzero(self.mask))

    def kept(self) -> int:
        return int(torch.count_nonzero(self.out))

    def survey(self, histogram: np.ndarray) -> None:
        keys, mask = self._keys()
        _add(histogram, (keys >> (self.width - 16)).long() + DIGITS // 2, mask)

    def narrow(self, low: int, high: int, shift: int, histogram: np.ndarray) -> tuple[int, bool]:
        keys, mask = self._keys()
        _add(histogram, ((keys >> shift) & (DIGITS - 1)).long(), mask & (keys >= low) & (keys <= high))
        nan = mask & (keys.abs() > self.infinity)
        return int((mask & (keys < low)).sum()), bool(nan.any())

    def write(self, threshold: int, count: bool) -> int:
        keys, mask = self._keys()
        self.out.view(-1).copy_(mask & (keys > threshold))
        return int((mask & (keys == threshold)).sum()) if count else 0

    def restore(self, threshold: int, skip: int) -> None:
        keys, mask = self._keys()
        tie = mask & (keys == threshold)
        self.out.view(-1).logical_or_(tie & (tie.cumsum(0) > skip))

    @staticmethod
    def rows(score: Tensor, mask: Tensor, counts: Tensor, out: Tensor) -> None:
        keys = _turned(score.contiguous().view(_BITS[score.dtype.itemsize]))
        last = torch.iinfo(keys.dtype).max  # beyond +inf: dead entries rank after all alive ones
        order = keys.masked_fill(~mask, last).sort(dim=1, stable=True).indices
        first = torch.arange(score.shape[1], device=score.device) < counts.unsqueeze(1)
        out.copy_(mask & ~torch.zeros_like(mask).scatter_(1, order, first))


@cache
def _infinity(dtype: torch.dtype) -> int:
    return int(torch.tensor(torch.inf, dtype=dtype).view(_BITS[dtype.itemsize]))


def _flat(tensor: Tensor) -> Tensor:
    """In one run of memory: kernels are compiled for that alone."""
    return tensor.reshape(-1).contiguous()


def _turned(bits: Tensor) -> Tensor:
    """The keys of these bits."""
    sign = bits >> (8 * bits.dtype.itemsize - 1)
    return (bits ^ (sign & torch.iinfo(bits.dtype).max)) - sign


def _add(histogram: np.ndarray, digits: Tensor, chosen: Tensor) -> None:
    counts = torch.bincount(digits.where(chosen, DIGITS), minlength=DIGITS + 1)
    histogram += counts[:DIGITS].cpu().numpy()


def cut(kind: type[Piece], name: str, score: Tensor, mask: Tensor, out: Tensor, wide: torch.dtype) -> Iterator[Piece]:
    """The pieces of one tensor, in row-major order."""
    if score.numel() == 0:
        return
    if score.numel() <= kind.block:
        yield kind(name, score, mask, out, wide)
        return
    if score.is_contiguous() and mask.is_contiguous():
        parts = zip(*(t.view(-1).split(kind.block) for t in (score, mask, out)), strict=True)
    else:
        rows = max(1, kind.block // score[0].numel())  # a row that is still too long is cut in its turn
        parts = zip(*(t.split(rows) if rows > 1 else t.unbind() for t in (score, mask, out)), strict=True)
    for s, m, o in parts:
        yield from cut(kind, name, s, m, o, wide)
