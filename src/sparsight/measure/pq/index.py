"""The PQ index: how unevenly magnitude is distributed over weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sparsight.measure.pq.read import sum_lines
from sparsight.measure.pq.sums import OUTSIDE, check_pair, effective_of, fold_lines, index_of
from sparsight.numerics.exact import exact, home
from sparsight.numerics.kernels.jit import each


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
    magnitudes (exactly), the upper end for a single nonzero weight. Does not depend on signs and scale; zeros count in
    d. 0 if undefined (no weights, or only zeros).

    `x` is a tensor, or a mapping of tensors that count as one vector; `mask` (True = kept) is of the same kind. `dim`
    reduces these dimensions, as in `torch.sum`: for a matrix, `dim=1` returns a float64 tensor of one index per row
    (neuron).

    Raises: ValueError unless 0 < p < q, or for a non-finite kept weight, with the tensor's name ("x" for a tensor).
    Warns: UserWarning unless p <= 1 <= q; moving mass from a large weight to a small one may then raise the index.
    Source: Diao et al., ICLR 2023, equation 1; M_p and M_q are compared by their logarithms if
    p < 0.5 or q > 2, because powers might exceed float64's range.
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
    """The number of weights that carry the magnitude: the bound at eta = 0.

        r = (sum |w|^p)^(q/(q-p)) / (sum |w|^q)^(p/(q-p)),      exp of the entropy of |w|^q / sum |w|^q at p = q

    the Hill number of order q/p of |w|^p / sum |w|^p. In [1, d]; d exactly for equal magnitudes; zeros do not
    change it. If undefined it is d (its index is 0). Arguments and errors as for `pq_index`, but p = q is possible and
    there is no warning. Source: Diao et al., theorem 2, at eta = 0.
    """
    check_pair(p, q, equal=True)
    exponents = (float(p), float(q)) if p < q else (float(q), -float(q))
    found = effective_of(_measure(x, exponents, mask, dim), exponents, p, q)
    return float(found[0]) if dim is None else _tensor(found, x, dim)


def pq_index_gradient(x: Float[Tensor, "*shape"], p: float = 0.5, q: float = 1.0) -> Float[Tensor, "*shape"]:
    """Gradient of the PQ index with respect to the weights, in the dtype and on the device of `x`.

        dI/dw_i = (1 - I) sign(w_i) (|w_i|^(q-1) / S_q - |w_i|^(p-1) / S_p),      S_e = sum |w|^e

    Positive if increasing w_i makes the vector sparser. 0 at w_i = 0, where it is singular (p < 1) or has a kink, and
    for the zero vector. Errors and warnings as for `pq_index`. Makes float64 copies of `x`.
    Source: differentiating equation 1 of Diao et al.
    """
    index = pq_index(x, p, q)
    w = exact(x.detach())
    largest = w.abs().max().item() if w.numel() else 0.0
    if largest == 0:
        return torch.zeros_like(x)
    unit = (w / largest).abs()
    some = torch.where(unit > 0, unit, 1.0)
    slope = some ** (q - 1) / (unit**q).sum() - some ** (p - 1) / (unit**p).sum()
    return ((1 - index) / largest * w.sign() * slope).to(x.dtype).to(x.device)


def _measure(
    x: Tensor | Mapping[str, Tensor],
    exponents: tuple[float, ...],
    mask: Tensor | Mapping[str, Tensor] | None,
    dim: int | tuple[int, ...] | None,
) -> np.ndarray:
    """One line of sums for all, or one per position of the dimensions that are not reduced."""
    if isinstance(x, Mapping):
        if dim is not None:
            raise ValueError(f"dim must be None for several tensors, got {dim}")
        if mask is not None and not isinstance(mask, Mapping):
            raise ValueError("mask must be a mapping by name, like the tensors")
        found = list(sum_lines(x, mask, exponents).values())
        lines = each(lambda i: fold_lines(found[i].lines, len(found[i]), 1, exponents), len(found))
        empty = np.empty((0, 5 + 2 * len(exponents)))
        return fold_lines(np.concatenate([empty, *lines]), len(lines), 1, exponents)
    if isinstance(mask, Mapping):
        raise ValueError("mask must be a tensor, like x")
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"the mask of 'x' must have shape {tuple(x.shape)}, got {tuple(mask.shape)}")
    if dim is not None:
        x, mask = _rows(x, dim), None if mask is None else _rows(mask, dim)
    found = sum_lines({"x": x}, None if mask is None else {"x": mask}, exponents)["x"].lines
    return found if dim is not None else fold_lines(found, len(found), 1, exponents)


def _reduced(x: Tensor, dim: int | tuple[int, ...]) -> list[int]:
    """The dimensions to reduce, counted from the front. Raises: IndexError for an unknown one, like torch."""
    dims = (dim,) if isinstance(dim, int) else dim
    for d in dims:
        if not -x.ndim <= d < x.ndim:
            raise IndexError(f"dim must be a dimension of a tensor with {x.ndim}, got {dim}")
    return sorted({d % x.ndim for d in dims})


def _rows(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """A matrix with the reduced dimensions in its rows."""
    dims = _reduced(x, dim)
    length = math.prod(x.shape[d] for d in dims)
    rows = math.prod(n for d, n in enumerate(x.shape) if d not in dims)
    return x.movedim(dims, list(range(-len(dims), 0))).reshape(rows, length)


def _tensor(values: np.ndarray, x: Tensor | Mapping[str, Tensor], dim: int | tuple[int, ...]) -> Tensor:
    assert isinstance(x, Tensor)  # checked by `_measure`
    dims = _reduced(x, dim)
    found = torch.from_numpy(np.ascontiguousarray(values)).reshape([n for d, n in enumerate(x.shape) if d not in dims])
    return found.to(home(x.device))
