"""Power sums of tensors in one pass over memory, on all threads."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsight.measure.pq.sums import PowerSums, RowSums, fold_lines
from sparsight.numerics.checks import check_gathered
from sparsight.numerics.kernels import power_sums as kernel
from sparsight.numerics.kernels.jit import each
from sparsight.types import Scope

_JOB = 1 << 20  # weights per thread at a time
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


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


# -- the public constructors -----------------------------------------------------------------------------------


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
