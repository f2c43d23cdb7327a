"""The PQ index: how unevenly magnitude is spread over weights, and how many of them that lets us remove."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsight.measure.pq.read import sum_lines
from sparsight.measure.pq.sums import check_pair, effective_of, fold_lines, index_of
from sparsight.numerics.checks import check_not_negative
from sparsight.numerics.kernels.jit import each

OUTSIDE = "the PQ index is a measure of sparsity for p <= 1 <= q only; elsewhere a more even vector may score higher"
_SNAP = 1e-9


def pq_index(
    x: Tensor | Mapping[str, Tensor],
    p: float = 0.5,
    q: float = 1.0,
    *,
    mask: Tensor | Mapping[str, Tensor] | None = None,
    dim: int | tuple[int, ...] | None = None,
) -> float | Float[Tensor, "*rest"]:
    """PQ index of a tensor, of several together, or over some dimensions of a tensor.

        I = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q = 1 - M_p / M_q

    with w the d kept weights and M_e their power mean. In [0, 1 - d^(1/q - 1/p)], larger = sparser: 0 for equal
    magnitudes (exactly), the upper end for a single weight that is not zero. Signs and scale do not matter;
    zeros count in d. Where undefined (no weight, or only zeros) it is 0.

    `x` is a tensor or a mapping by name, whose tensors count as one vector; `mask` (True = kept) is of the same
    kind. With `dim`, those dimensions are reduced, as in `torch.sum`: of a matrix, `dim=1` gives a float64 tensor
    of one index for each row (neuron).

    ValueError: not 0 < p < q; NaN or infinity in a kept weight, with the tensor's name ("x" for a bare one).
    UserWarning: not p <= 1 <= q, where moving mass from a large weight to a small one may raise the index.
    Source: Diao et al., ICLR 2023, equation 1; M_p and M_q are compared by their logarithms where
    p < 0.5 or q > 2, whose powers might leave float64's range.
    """
    check_pair(p, q)
    if not p <= 1 <= q:
        warnings.warn(OUTSIDE, UserWarning, stacklevel=2)
    found = index_of(_measure(x, (float(p), float(q)), mask, dim), (p, q), p, q)
    return float(found[0]) if dim is None else _tensor(found, x, dim)


def effective_count(
    x: Tensor | Mapping[str, Tensor],
    p: float = 0.5,
    q: float = 1.0,
    *,
    mask: Tensor | Mapping[str, Tensor] | None = None,
    dim: int | tuple[int, ...] | None = None,
) -> float | Float[Tensor, "*rest"]:
    """How many weights carry the magnitude: the retained bound at eta = 0.

        r = (sum |w|^p)^(q/(q-p)) / (sum |w|^q)^(p/(q-p)),      exp of the entropy of |w|^q / sum |w|^q at p = q

    the Hill number of order q/p of |w|^p / sum |w|^p. In [1, d]; d exactly for equal magnitudes; zeros do not
    change it. Where undefined it is d (as its index is 0), so that it lets nothing be pruned. Arguments and
    errors as for `pq_index`, p = q too and without the warning. Source: Diao et al., theorem 2, at eta = 0.
    """
    check_pair(p, q, equal=True)
    exponents = (float(p), float(q)) if p < q else (float(q), -float(q))
    found = effective_of(_measure(x, exponents, mask, dim), exponents, p, q)
    return float(found[0]) if dim is None else _tensor(found, x, dim)


def retained_bound(
    count: float | Tensor, index: float | Tensor, p: float, q: float, eta: float = 0.0
) -> float | Tensor:
    """Least number of weights to keep if the rest may hold at most eta of the kept ones' p-mass.

        r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))

    In [0, d], not rounded; smaller = more can go. Necessary, not sufficient: keeping r weights may lose more.
    Numbers, or tensors (then float64). ValueError: not 0 < p < q, eta < 0, an index outside [0, 1], count < 0.
    Source: Diao et al., theorem 2.
    """
    check_pair(p, q)
    check_not_negative(eta=eta)
    d, i = (v.double() if isinstance(v, Tensor) else float(v) for v in (count, index))
    if not _all(i >= 0) or not _all(i <= 1):
        raise ValueError(f"index must be in [0, 1], got {index}")
    if not _all(d >= 0):
        raise ValueError(f"count must be >= 0, got {count}")
    return d * math.exp(-q / (q - p) * math.log1p(eta)) * (1 - i) ** (p * q / (q - p))


def _all(condition: bool | Tensor) -> bool:
    return bool(condition.all()) if isinstance(condition, Tensor) else condition


def prune_count(
    count: int, r: float, gamma: float = 1.0, beta: float = 0.9, *, rounding: Literal["paper", "reference"] = "paper"
) -> int:
    """How many of `count` weights to remove, given the bound r.

        c = floor(min(gamma (d - r), beta d)),     in [0, d]

    where a value within 1e-9 max(1, d) of an integer is that integer, so that rounding errors do not cost a
    weight. `rounding="reference"` has ceil(r) for r, as the authors' code; the same for gamma = 1, nearly always.
    ValueError: negative count, r or gamma, NaN, beta outside [0, 1].
    Source: Diao et al., algorithm 1.
    """
    if count < 0 or not (r >= 0 and math.isfinite(r)):
        raise ValueError(f"count and a finite r must be >= 0, got {count} and {r}")
    if not (gamma >= 0 and math.isfinite(gamma)) or not 0 <= beta <= 1:
        raise ValueError(f"gamma must be a finite number >= 0 and beta in [0, 1], got {gamma} and {beta}")
    if rounding not in ("paper", "reference"):
        raise ValueError(f"unknown rounding {rounding!r}, expected one of 'paper', 'reference'")
    kept = r if rounding == "paper" else -snapped_floor(-r, count)
    return min(max(snapped_floor(min(gamma * (count - kept), beta * count), count), 0), count)


def snapped_floor(value: float, count: int) -> int:
    """floor(value), or the integer within 1e-9 max(1, count) of it: 0.2 of 35 is 7, and 44 - 41 is 3."""
    near = round(value)
    return near if abs(value - near) <= _SNAP * max(1, count) else math.floor(value)


def pq_index_gradient(x: Float[Tensor, "*shape"], p: float = 0.5, q: float = 1.0) -> Float[Tensor, "*shape"]:
    """Gradient of the PQ index with respect to the weights, in the type and on the device of `x`.

        dI/dw_i = (1 - I) sign(w_i) (|w_i|^(q-1) / S_q - |w_i|^(p-1) / S_p),      S_e = sum |w|^e

    Positive where growing w_i makes the vector sparser. At w_i = 0, where it is singular (p < 1) or has a kink,
    and for the zero vector it is 0. ValueError and UserWarning as for `pq_index`. Takes float64 copies of `x`.
    Source: differentiating equation 1 of Diao et al.
    """
    index = pq_index(x, p, q)
    w = x.detach().to(torch.float64)
    largest = w.abs().max().item() if w.numel() else 0.0
    if largest == 0:
        return torch.zeros_like(x)
    unit = (w / largest).abs()
    some = torch.where(unit > 0, unit, 1.0)
    slope = some ** (q - 1) / (unit**q).sum() - some ** (p - 1) / (unit**p).sum()
    return ((1 - index) / largest * w.sign() * slope).to(x.dtype)


def _measure(
    x: Tensor | Mapping[str, Tensor],
    exponents: tuple[float, ...],
    mask: Tensor | Mapping[str, Tensor] | None,
    dim: int | tuple[int, ...] | None,
) -> np.ndarray:
    """One line of sums for all, or one for each place along the dimensions that are not reduced."""
    if isinstance(x, Mapping):
        if dim is not None:
            raise ValueError(f"several tensors take no dim, got {dim}")
        if mask is not None and not isinstance(mask, Mapping):
            raise ValueError("several tensors need their masks by name")
        found = list(sum_lines(x, mask, exponents).values())
        lines = each(lambda i: fold_lines(found[i].lines, len(found[i]), 1, exponents), len(found))
        empty = np.empty((0, 5 + 2 * len(exponents)))
        return fold_lines(np.concatenate([empty, *lines]), len(lines), 1, exponents)
    if isinstance(mask, Mapping):
        raise ValueError("masks by name need their tensors by name")
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"the mask of 'x' must have shape {tuple(x.shape)}, got {tuple(mask.shape)}")
    if dim is not None:
        x, mask = _rows(x, dim), None if mask is None else _rows(mask, dim)
    found = sum_lines({"x": x}, None if mask is None else {"x": mask}, exponents)["x"].lines
    return found if dim is not None else fold_lines(found, len(found), 1, exponents)


def _reduced(x: Tensor, dim: int | tuple[int, ...]) -> list[int]:
    """The dimensions to reduce, counted from the front. IndexError if there is no such one, as torch has it."""
    dims = (dim,) if isinstance(dim, int) else dim
    for d in dims:
        if not -x.ndim <= d < x.ndim:
            raise IndexError(f"got dim={dim} for a tensor of {x.ndim} dimensions")
    return sorted({d % x.ndim for d in dims})


def _rows(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """A matrix with the reduced dimensions in its rows."""
    dims = _reduced(x, dim)
    length = math.prod(x.shape[d] for d in dims)
    rows = math.prod(n for d, n in enumerate(x.shape) if d not in dims)
    return x.movedim(dims, list(range(-len(dims), 0))).reshape(rows, length)


def _tensor(values: np.ndarray, x: Tensor | Mapping[str, Tensor], dim: int | tuple[int, ...]) -> Tensor:
    assert isinstance(x, Tensor)  # `_measure` has refused the other kind
    dims = _reduced(x, dim)
    found = torch.from_numpy(np.ascontiguousarray(values)).reshape([n for d, n in enumerate(x.shape) if d not in dims])
    return found.to(x.device if x.device.type != "mps" else "cpu")
