"""Power sums of tensors in one pass over memory, on all threads or on the tensors' own device."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparsight.measure.pq.sums import PowerSums, RowSums, fold_lines
from sparsight.numerics.checks import check_gathered
from sparsight.numerics.exact import at_home
from sparsight.numerics.kernels import power_sums as kernel
from sparsight.numerics.kernels.jit import each
from sparsight.types import Scope

_JOB = 1 << 20  # weights per thread at a time
_BLOCK = 512  # chunks per call of tensor code
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class _Source:
    """A tensor ready to be read: rows of `length` weights, and the table to fill."""

    name: str
    x: Tensor
    mask: Tensor | None
    rows: int
    length: int
    table: np.ndarray

    @property
    def chunks(self) -> int:
        return -(-self.length // kernel.CHUNK)


def _source(name: str, x: Tensor, mask: Tensor | None, width: int) -> _Source:
    check_gathered({name: x})
    if x.dtype not in _DTYPES:
        raise ValueError(f"the dtype of '{name}' must be one of {', '.join(map(str, _DTYPES))}, got {x.dtype}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
        got = f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"the mask of '{name}' must be torch.bool {tuple(x.shape)}, got {got}")
    x = at_home(x.detach()).contiguous()
    mask = None if mask is None else mask.detach().to(x.device).contiguous()
    rows = x.shape[0] if x.ndim > 1 else 1
    length = x.numel() // rows if rows else 0
    table = np.empty((rows * -(-length // kernel.CHUNK), width))
    return _Source(name, x, mask, rows, length, table)


def _array(x: Tensor) -> np.ndarray:
    """The flat array of a CPU tensor for the kernel."""
    x = x.reshape(-1)
    if x.dtype == torch.float16:
        return x.view(torch.int16).numpy()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(np.uint16)
    return x.numpy()


def _jobs(source: _Source, exponents: np.ndarray, limit: float) -> list[functools.partial[None]]:
    x = _array(source.x)
    mask = None if source.mask is None else source.mask.reshape(-1).numpy()
    lines = len(source.table)
    per = max(1, _JOB // min(source.length, kernel.CHUNK)) if lines else 1
    work = functools.partial(kernel.fill, x, mask, 0, source.length, exponents, limit)
    ends = ((a, min(a + per, lines)) for a in range(0, lines, per))
    return [functools.partial(work, a, z, source.table[a:z]) for a, z in ends]


def _refuse_infinite(source: _Source) -> None:
    if np.isfinite(source.table[:, kernel.LARGEST]).all():
        return
    bad = ~torch.isfinite(source.x)
    if source.mask is not None:
        bad &= source.mask
    where = tuple(bad.nonzero()[0].tolist())
    value = source.x[where].item()
    raise ValueError(f"kept weights must be finite, but '{source.name}' has {value} at {where}")


def sum_lines(
    tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, exponents: tuple[float, ...]
) -> dict[str, RowSums]:
    missing = [name for name in tensors if masks is not None and name not in masks]
    if missing:
        raise ValueError(f"masks must have every tensor's name: missing {missing}, got {sorted(masks or ())}")
    width = kernel.SUMS + 2 * len(exponents)
    sources = [_source(n, x, None if masks is None else masks[n], width) for n, x in tensors.items()]
    array = np.asarray(exponents, dtype=np.float64)
    limit = 2.0 ** (900.0 / max(1.0, *(abs(e) for e in exponents)))
    jobs = [job for s in sources if s.x.device.type == "cpu" for job in _jobs(s, array, limit)]
    each(lambda i: jobs[i](), len(jobs))
    found = {}
    for s in sources:
        if s.x.device.type != "cpu":
            tensor_table(s.x.reshape(s.rows, -1), s.mask, exponents, limit, s.table)
        _refuse_infinite(s)
        lines = s.table if s.chunks == 1 else fold_lines(s.table, s.chunks, s.rows, exponents)
        found[s.name] = RowSums(exponents, lines)
    return found


def tensor_table(x: Tensor, mask: Tensor | None, exponents: Sequence[float], limit: float, table: np.ndarray) -> None:
    """The table of rows `x`, as tensor code for any device that has float64. Twin of `kernels.power_sums.fill`."""
    rows, length = x.shape
    lines = table.reshape(rows, -1, table.shape[1])
    mask = torch.ones((1, 1), dtype=torch.bool, device=x.device) if mask is None else mask.reshape(rows, length)
    mask = mask.expand(rows, length)
    whole = length // kernel.CHUNK if rows < _BLOCK else 0  # many rows by columns, few by chunks
    if whole:
        for row in range(rows):
            chunks = [t[row, : whole * kernel.CHUNK].reshape(whole, kernel.CHUNK) for t in (x, mask)]
            for a in range(0, whole, _BLOCK):
                z = min(a + _BLOCK, whole)
                _tensor_lines(chunks[0][a:z], chunks[1][a:z], exponents, limit, lines[row, a:z])
    for c in range(whole, lines.shape[1]):
        part = slice(c * kernel.CHUNK, (c + 1) * kernel.CHUNK)
        for a in range(0, rows, _BLOCK):
            z = a + _BLOCK
            _tensor_lines(x[a:z, part], mask[a:z, part], exponents, limit, lines[a:z, c])


def _tensor_lines(x: Tensor, keep: Tensor, exponents: Sequence[float], limit: float, lines: np.ndarray) -> None:
    """Lines of chunks that are the rows of `x`."""
    v = torch.where(keep, x.to(torch.float64).abs(), 0.0)
    largest = v.amax(1)
    unit = [kernel.unit_of(m, limit) for m in largest.tolist()]
    scaled = v * torch.tensor([2.0**-u for u in unit], dtype=v.dtype, device=v.device)[:, None]
    head = (keep.sum(1), (keep & (v == 0)).sum(1), largest, torch.where(keep, v, math.inf).amin(1))
    sums = [_tensor_term(scaled, e).sum(1) for e in exponents]
    found = torch.stack([c.to(torch.float64) for c in (*head, *sums)], 1).cpu().numpy()
    lines[:] = 0.0
    lines[:, : kernel.SCALE], lines[:, kernel.SCALE] = found[:, : len(head)], unit
    lines[:, kernel.SUMS : kernel.SUMS + len(exponents)] = found[:, len(head) :]


def _tensor_term(v: Tensor, e: float) -> Tensor:
    if e == 0.5:
        return v.sqrt()
    return v**e if e > 0 else torch.special.xlogy(y := v**-e, y)


# -- the public constructors -----------------------------------------------------------------------------------


def _exponents(exponents: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(e) for e in exponents)
    if not found or len(set(found)) < len(found) or not all(math.isfinite(e) and e > 0 for e in found):
        raise ValueError(f"exponents must be distinct, finite and greater than 0, and at least one, got {found}")
    return found


def row_sums(
    tensors: Mapping[str, Tensor], exponents: Sequence[float], masks: Mapping[str, Tensor] | None = None
) -> dict[str, RowSums]:
    """Power sums of every row of every tensor, in one pass over all of them.

    Raises: ValueError for a non-finite kept weight (with the tensor's name), or a missing or misshapen mask.
    """
    return sum_lines(tensors, masks, _exponents(exponents))


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
