"""The PQ index: how unevenly magnitude is distributed over weights; and power sums, in one pass over memory."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsight.measure.pq.sums import OUTSIDE, PowerSums, RowSums, check_pair, effective_of, fold_lines, index_of
from sparsight.numerics.checks import check_gathered
from sparsight.numerics.exact import exact, home
from sparsight.numerics.kernels import power_sums as kernel
from sparsight.numerics.kernels.jit import each
from sparsight.types import Scope

_JOB = 1 << 20  # weights per thread at a time
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


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


# -- power sums ------------------------------------------------------------------------------------------------------


def row_sums(
    tensors: Mapping[str, Tensor], exponents: Sequence[float], masks: Mapping[str, Tensor] | None = None
) -> dict[str, RowSums]:
    """Power sums of every row of every tensor, in one pass over all of them.

    Raises: ValueError for a non-finite kept weight (with the tensor's name), or a missing or misshapen mask.
    """
    found = tuple(float(e) for e in exponents)
    if not found or len(set(found)) < len(found) or not all(math.isfinite(e) and e > 0 for e in found):
        raise ValueError(f"exponents must be distinct, finite and greater than 0, and at least one, got {found}")
    return sum_lines(tensors, masks, found)


@overload
def power_sums(
    x: Tensor, exponents: Sequence[float], *, mask: Tensor | None = ..., rows: Literal[False] = ...
) -> PowerSums: ...
@overload
def power_sums(x: Tensor, exponents: Sequence[float], *, mask: Tensor | None = ..., rows: Literal[True]) -> RowSums: ...
def power_sums(
    x: Float[Tensor, "*shape"],
    exponents: Sequence[float],
    *,
    mask: Bool[Tensor, "*shape"] | None = None,
    rows: bool = False,
) -> PowerSums | RowSums:
    """Power sums of a tensor or, with `rows`, of each of its rows (indices of dimension 0).

    Pieces of a tensor can be summed separately and merged in order: split between rows, or within one at a multiple of
    8192 weights from its start. Raises: as `row_sums`; the tensor is called 'x'.
    """
    found = row_sums({"x": x}, exponents, None if mask is None else {"x": mask})["x"]
    return found if rows else found.total()


def group_sums(
    tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, exponents: Sequence[float], scope: Scope
) -> list[tuple[str, PowerSums]]:
    """(name, sums) of each group of a scope: "global", the tensors' names, or rows as in "fc1.weight[3]"."""
    rows = row_sums(tensors, exponents, masks)
    if scope == "neuron":
        return [(f"{name}[{i}]", r.row(i)) for name, r in rows.items() for i in range(len(r))]
    found = list(rows.values())
    layers = list(zip(rows, each(lambda i: found[i].total(), len(rows)), strict=True))
    if scope == "layer":
        return layers
    return [("global", PowerSums.merge([sums for _, sums in layers]))]


def sum_lines(
    tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, exponents: tuple[float, ...]
) -> dict[str, RowSums]:
    missing = [name for name in tensors if masks is not None and name not in masks]
    if missing:
        raise ValueError(f"masks must have every tensor's name: missing {missing}, got {sorted(masks or ())}")
    array = np.asarray(exponents, dtype=np.float64)
    limit = 2.0 ** (900.0 / max(1.0, *(abs(e) for e in exponents)))
    jobs, tables = [], {}
    for name, x in tensors.items():
        mask = None if masks is None else masks[name]
        _check(name, x, mask)
        rows = x.shape[0] if x.ndim > 1 else 1
        length = x.numel() // rows if rows else 0
        chunks = -(-length // kernel.CHUNK)
        table = np.empty((rows * chunks, kernel.SUMS + 2 * len(exponents)))
        tables[name] = table, chunks, rows
        flat = None if mask is None else mask.detach().cpu().contiguous().reshape(-1).numpy()
        work = functools.partial(kernel.fill, _array(x), flat, 0, length, array, limit)
        per = max(1, _JOB // min(length, kernel.CHUNK)) if length else 1
        ends = ((a, min(a + per, len(table))) for a in range(0, len(table), per))
        jobs += [functools.partial(work, a, z, table[a:z]) for a, z in ends]
    each(lambda i: jobs[i](), len(jobs))
    found = {}
    for name, (table, chunks, rows) in tables.items():
        if not np.isfinite(table[:, kernel.LARGEST]).all():
            _refuse_infinite(name, tensors[name], None if masks is None else masks[name])
        found[name] = RowSums(exponents, table if chunks == 1 else fold_lines(table, chunks, rows, exponents))
    return found


def _check(name: str, x: Tensor, mask: Tensor | None) -> None:
    check_gathered({name: x})
    if x.dtype not in _DTYPES:
        raise ValueError(f"the dtype of '{name}' must be one of {', '.join(map(str, _DTYPES))}, got {x.dtype}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
        got = f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"the mask of '{name}' must be torch.bool {tuple(x.shape)}, got {got}")


def _array(x: Tensor) -> np.ndarray:
    """The flat array of a tensor for the kernel."""
    x = x.detach().cpu().contiguous().reshape(-1)
    if x.dtype == torch.float16:
        return x.view(torch.int16).numpy()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(np.uint16)
    return x.numpy()


def _refuse_infinite(name: str, x: Tensor, mask: Tensor | None) -> None:
    bad = ~torch.isfinite(x)
    if mask is not None:
        bad &= mask.to(x.device)
    where = tuple(bad.nonzero()[0].tolist())
    raise ValueError(f"kept weights must be finite, but '{name}' has {x[where].item()} at {where}")
