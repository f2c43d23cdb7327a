"""Power sums: all that the PQ index needs from a tensor, mergeable and computed in one pass.

    S_e = sum_i (|w_i| / scale)^e        over the kept weights, for each exponent e

A row (an index of dimension 0; a vector is one row) is summed in chunks of 8192 from its start, a tensor is
summed over its rows and a network over its tensors, always in order: scopes and threads never change a bit. Every sum
is a pair of float64; the second holds the rounding error of the first, so joining pieces adds no error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from sparsight.numerics.kernels import power_sums as kernel

OUTSIDE = "the PQ index is a measure of sparsity for p <= 1 <= q only; elsewhere a more even vector may score higher"
COUNT, ZEROS, LARGEST, SMALLEST = kernel.COUNT, kernel.ZEROS, kernel.LARGEST, kernel.SMALLEST


def check_pair(p: float, q: float, *, equal: bool = False) -> None:
    """Raise ValueError unless 0 < p < q (with `equal`, also p = q) and both are finite."""
    known = all(isinstance(e, Real) and math.isfinite(e) for e in (p, q))
    if not (known and p > 0 and (p < q or (equal and p == q))):
        bound = "at most" if equal else "less than"
        raise ValueError(f"p must be {bound} q, both finite and above 0, got p={p}, q={q}")


def _at(exponents: Sequence[float], e: float) -> int:
    """The column of the sums for an exponent. Raises: ValueError."""
    if e not in exponents:
        raise ValueError(f"there are no sums for the exponent {e}, only for {tuple(exponents)}")
    return kernel.SUMS + exponents.index(e)


def _where(exponents: Sequence[float], p: float, q: float) -> tuple[int, int, float, float]:
    """The arguments of kernels for (p, q): columns, and numbers of the type that they are compiled for."""
    return _at(exponents, p), _at(exponents, q), float(p), float(q)


def index_of(lines: np.ndarray, exponents: Sequence[float], p: float, q: float) -> np.ndarray:
    """PQ index of each line."""
    check_pair(p, q)
    return kernel.of_lines(lines, *_where(exponents, p, q), False)


def effective_of(lines: np.ndarray, exponents: Sequence[float], p: float, q: float) -> np.ndarray:
    """Effective count of each line; at p = q from the sums of y and y ln y, y = |w|^q."""
    check_pair(p, q, equal=True)
    if p < q:
        return kernel.of_lines(lines, *_where(exponents, p, q), True)
    if -q not in exponents:
        raise ValueError(f"there are no entropy sums for the exponent {q}: use effective_count of the tensor")
    mass, y_ln_y = (lines[:, kernel.SUMS + exponents.index(e)] for e in (q, -q))
    with np.errstate(divide="ignore", invalid="ignore"):
        shannon = np.exp(np.log(mass) - y_ln_y / mass)
    uneven = (lines[:, LARGEST] > 0) & (lines[:, SMALLEST] < lines[:, LARGEST])
    return np.where(uneven, np.minimum(shannon, lines[:, COUNT]), lines[:, COUNT])


@dataclass(frozen=True)
class PowerSums:
    """Power sums of one group of weights. `a + b` is the union, in that order.

    Zeros count in `count`. An empty group has largest 0 and smallest infinity.
    """

    exponents: tuple[float, ...]
    count: int  # kept weights
    zeros: int  # weights that are exactly 0
    largest: float  # magnitude
    smallest: float
    scale: float  # a power of two, 1 unless powers might exceed float64's range
    sums: tuple[float, ...]  # S_e for each exponent
    carries: tuple[float, ...]  # rounding error of each sum

    def index(self, p: float, q: float) -> float:
        """PQ index 1 - M_p / M_q, in [0, 1), larger = sparser; 0 if undefined. Raises: ValueError."""
        check_pair(p, q)
        return kernel.index(*self._of(p, q))

    def effective(self, p: float, q: float) -> float:
        """Effective count, in [1, count]: (sum |w|^p)^(q/(q-p)) / (sum |w|^q)^(p/(q-p)), p < q."""
        check_pair(p, q, equal=True)
        if p == q:
            return float(effective_of(self._line(), self.exponents, p, q)[0])
        return kernel.effective(*self._of(p, q))

    @property
    def defined(self) -> bool:
        """Whether there is a nonzero weight; without one the index is undefined."""
        return self.largest > 0

    def __add__(self, other: PowerSums) -> PowerSums:
        return PowerSums.merge((self, other))

    @staticmethod
    def merge(parts: Sequence[PowerSums]) -> PowerSums:
        """The union of `parts`, in order. Raises: ValueError without parts or for different exponents."""
        kinds = {part.exponents for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"merged sums must have the same exponents, got {sorted(kinds)}")
        (exponents,) = kinds
        return _one(exponents, fold_lines(np.concatenate([part._line() for part in parts]), len(parts), 1, exponents))

    def _of(self, p: float, q: float) -> tuple[float, ...]:
        at_p, at_q, p, q = _where(self.exponents, p, q)
        low, high = self.sums[at_p - kernel.SUMS], self.sums[at_q - kernel.SUMS]
        return float(self.count), self.largest, self.smallest, low, high, p, q

    def _line(self) -> np.ndarray:
        head = (self.count, self.zeros, self.largest, self.smallest, math.log2(self.scale))
        return np.array([[*head, *self.sums, *self.carries]], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class RowSums:
    """Power sums of every row of a tensor, as arrays."""

    exponents: tuple[float, ...]
    lines: np.ndarray  # a row's line: count, zeros, largest, smallest, log2(scale), sums, carries

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def count(self) -> np.ndarray:
        return self.lines[:, COUNT].astype(np.int64)

    @property
    def defined(self) -> np.ndarray:
        return self.lines[:, LARGEST] > 0

    def index(self, p: float, q: float) -> np.ndarray:
        """PQ index of every row."""
        return index_of(self.lines, self.exponents, p, q)

    def neurons(
        self, p: float, q: float, shares: np.ndarray, gamma: float, beta: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """PQ index of every defined row, and the sum of their prune counts for each bound."""
        return kernel.neurons(self.lines, *_where(self.exponents, p, q), shares, float(gamma), float(beta))

    def effective(self, p: float, q: float) -> np.ndarray:
        """Effective count of every row."""
        return effective_of(self.lines, self.exponents, p, q)

    def row(self, i: int) -> PowerSums:
        return _one(self.exponents, self.lines[i : i + 1])

    def total(self) -> PowerSums:
        """The whole tensor: its rows merged in order."""
        return _one(self.exponents, fold_lines(self.lines, len(self.lines), 1, self.exponents))


def _one(exponents: tuple[float, ...], line: np.ndarray) -> PowerSums:
    count, zeros, largest, smallest, log_scale, *rest = line[0].tolist()
    n = len(exponents)
    scale = 2.0**log_scale
    return PowerSums(exponents, int(count), int(zeros), largest, smallest, scale, tuple(rest[:n]), tuple(rest[n:]))


def fold_lines(table: np.ndarray, per: int, groups: int, exponents: Sequence[float]) -> np.ndarray:
    out = np.empty((groups, table.shape[1]))
    kernel.fold(table, per, np.asarray(exponents, dtype=np.float64), out)
    return out
