"""Measures how compressible a network is: each tensor of a checkpoint, its neurons and the whole, in one pass."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor as TorchTensor
from torch import nn

from sparsight.analysis.partners import products
from sparsight.analysis.records import Analysis, Listed, Row, Summary, Tensor
from sparsight.analysis.seen import Seen, magnitudes_of, shares
from sparsight.analysis.stream import Watch, stream
from sparsight.analysis.summary import Sample, SummaryRequest, neurons, summarise
from sparsight.analysis.tensor_kinds import Verdict, judge
from sparsight.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from sparsight.checkpoint.entry import in_memory
from sparsight.measure.pq import RowSums
from sparsight.measure.pq.sums import check_pair, fold_lines
from sparsight.model.left_out import LeftOut
from sparsight.model.masks import left_out, prunable
from sparsight.model.names import named
from sparsight.numerics.checks import check_fraction, check_not_negative
from sparsight.numerics.kernels.jit import each
from sparsight.records.files import there
from sparsight.types import Scope

BUDGET = 256 << 20
_LARGE = 1 << 20  # weights; with smaller tensors, threads would only compete for the interpreter
_OF_RUNS = {  # files of a run folder that do not contain a network
    "masks": "the masks of a run, not its weights",
    "state": "the training progress of a run",
    "probe": "the training samples that a run's stopping rules measure on",
}
SCOPES: tuple[Scope, ...] = ("global", "layer", "neuron")


def analyze(
    model_or_path: str | Path | nn.Module | Mapping[str, TorchTensor],
    p: float | Sequence[float] = 0.5,
    q: float | Sequence[float] = 1.0,
    eta: float | Sequence[float] = 0.0,
    *,
    gamma: float = 1.0,
    beta: float = 0.9,
    scopes: Sequence[Scope] = SCOPES,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    rows: bool = False,
    exact: bool = False,
    sample: bool = True,
    budget: int = BUDGET,
    watch: Watch | None = None,
) -> Analysis:
    """Measure how compressible a network is: PQ index, bound and SAP's counts per tensor, per neuron and overall.

    `model_or_path` is a checkpoint (see `checkpoint.open_checkpoint`), a module, or a mapping of tensors. `p` and `q`
    are numbers or sequences of equal length; a single p or q is paired with every value of the other. Names and shapes
    decide which tensors are prunable; for a module, its layers do. `include` adds tensors by shell-style pattern,
    `exclude` removes them. `left_out` lists other matrix-shaped tensors of a module, with their share and the pattern
    that would include them.

    PQ index, counts and bound are exact: float64 sums in a fixed order, with the same bits for any number of threads,
    budget or split into files. The Gini index and the exact eta are estimated from 2^14 weights of each tensor, drawn
    with a seed from its name and shape. Their bounds hold with probability 1 - `delta` (`analysis.sampled`). Smaller
    tensors are exact; with `exact` all are, in further passes. Without `sample`, these two and the distribution of
    magnitudes are left out. `budget` limits the memory in bytes, beyond Python and torch. `watch(bytes done, bytes in
    total)` is called during the pass. `rows` records every neuron.

    Zeros count as pruned: only `count`, `zeros` and `smallest` include them. Signs do not matter. A tensor with NaN or
    infinity is listed, not analysed.

    Raises: ValueError unless 0 < p < q, for other bad numbers, a pattern that matches nothing, a budget below 32 MiB;
    CheckpointError for a file that cannot be read or is damaged; FileNotFoundError.
    """
    check_not_negative(gamma=gamma)
    check_fraction(beta=beta)
    for scope in scopes:
        if scope not in SCOPES:
            raise ValueError(f"scopes must be among {', '.join(SCOPES)}, got {scope!r}")
    if exact and not sample:
        raise ValueError("exact computes what sample=False leaves out (--exact and --no-sample): give one of them")
    etas = tuple(dict.fromkeys(_many(eta)))
    if not etas or not all(0 <= e < math.inf for e in etas):
        raise ValueError(f"eta must be finite numbers of at least 0, got {eta}")
    asked = SummaryRequest(pairs_of(p, q), etas, float(gamma), float(beta), exact, sample, budget)
    checkpoint, known, left = _opened(model_or_path, include, exclude)
    entries = products(checkpoint.entries)
    verdicts = judge(entries, _patterns(include), _patterns(exclude), known, left)
    chosen = [e for e in entries if verdicts[e.name].why is None]
    keep_rows = "neuron" in scopes or rows
    few = shares(chosen) if "global" in scopes else {e.name: 0 for e in chosen}
    record = partial(_tensor, verdicts=verdicts, asked=asked, scopes=scopes, rows=rows, all_weights=not few)
    fine, tensors, broken = [], [], {}
    found = stream(
        chosen, asked.exponents, few=few if sample else None, keep_rows=keep_rows, budget=budget, watch=watch
    )
    for complete in found:
        broken |= {s.entry.name: "it contains NaN or infinity" for s in complete if not s.finite}
        some = [s for s in complete if s.finite]
        fine += some
        if asked.exact or any(s.entry.count < _LARGE for s in some):  # an exact pass takes the whole budget
            tensors += [record(s) for s in some]
        else:
            tensors += each(lambda i, of=some: record(of[i]), len(some))
    listed = [
        Listed(e.name, verdicts[e.name].kind, e.dtype, e.shape, e.aliases, why)
        for e in entries
        if (why := verdicts[e.name].why or broken.get(e.name)) is not None
    ]
    whole = _whole(fine, asked, not few) if fine and "global" in scopes else None
    return Analysis(
        checkpoint.source, checkpoint.format, asked.pairs, asked.etas, asked.gamma, asked.beta,
        exact, whole, tuple(tensors), tuple(listed), left,
    )  # fmt: skip


# -- requests --------------------------------------------------------------------------------------------------


def pairs_of(p: float | Sequence[float], q: float | Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Pairs (p, q): one p for many q, one q for many p, or equally many of both."""
    ps, qs = _many(p), _many(q)
    if len(ps) != len(qs) and 1 not in (len(ps), len(qs)):
        raise ValueError(
            f"p and q must have equally many values, or one of them a single value, got {len(ps)} and {len(qs)}"
        )
    if not ps or not qs:
        raise ValueError("p and q must have at least one value")
    most = max(len(ps), len(qs))
    found = tuple(dict.fromkeys(zip(ps * (most // len(ps)), qs * (most // len(qs)), strict=True)))
    for a, b in found:
        check_pair(a, b)
    return found


def _many(value: float | Sequence[float]) -> list[float]:
    return [float(v) for v in (value if isinstance(value, Sequence) else [value])]


def _patterns(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _opened(
    thing: str | Path | nn.Module | Mapping[str, TorchTensor],
    include: str | Sequence[str],
    exclude: str | Sequence[str],
) -> tuple[Checkpoint, frozenset[str] | None, tuple[LeftOut, ...]]:
    """The checkpoint; for a module, also the names of its prunable weights and its other matrix-shaped parameters."""
    if isinstance(thing, nn.Module):
        names = frozenset(prunable(thing, include=include, exclude=exclude))
        return from_memory(thing), names, left_out(thing, include=include, exclude=exclude)
    if not isinstance(thing, (str, Path)):
        return from_memory(thing), None, ()
    path = Path(thing)
    if not there(path):
        raise FileNotFoundError(f"{path} does not exist")
    if there(path / "run.json"):
        if not there(path / "model.safetensors"):
            raise CheckpointError(path, "the run has not chosen a level yet", "analyse")
        return open_checkpoint(path / "model.safetensors"), None, ()
    checkpoint = open_checkpoint(path)
    _check_role(path, checkpoint.metadata)
    return checkpoint, None, ()


def from_memory(thing: nn.Module | Mapping[str, TorchTensor]) -> Checkpoint:
    """The parameters and buffers of a model, or a mapping's tensors; tied ones appear once, under their first name.

    Raises: TypeError for anything else, or a value that is not a tensor.
    """
    if isinstance(thing, nn.Module):
        items = {**named(thing), **dict(thing.named_buffers())}
        every = [*thing.named_parameters(remove_duplicate=False)]
        return in_memory(type(thing).__name__, "module", [*items.items(), *every])
    if not isinstance(thing, Mapping):
        raise TypeError(f"expected a path, a module or a mapping of tensors, got {type(thing).__name__}")
    for name, tensor in thing.items():
        if not isinstance(name, str) or not isinstance(tensor, TorchTensor):
            raise TypeError(f"{name!r} must be a tensor, got {type(tensor).__name__}")
    return in_memory("tensors", "tensors", thing.items())


def _check_role(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise CheckpointError for a run's file that does not contain a network."""
    try:
        facts = json.loads(metadata.get("facts", "{}"))
    except ValueError:
        return
    kind = facts.get("kind") if isinstance(facts, dict) else None
    if isinstance(kind, str) and kind in _OF_RUNS:
        instead = path.with_name("model.safetensors")
        which = str(instead) if instead.exists() else "the run folder"
        raise CheckpointError(path, f"it holds {_OF_RUNS[kind]}; analyse {which} instead", "analyse")


# -- records ---------------------------------------------------------------------------------------------------


def _tensor(
    s: Seen, *, verdicts: Mapping[str, Verdict], asked: SummaryRequest, scopes: Sequence[Scope], rows: bool,
    all_weights: bool,
) -> Tensor:  # fmt: skip
    """The record of a completely read tensor. Keeps only the draws that belong to the sample of all tensors."""
    entry = s.entry
    sample = None if s.draws is None else Sample(magnitudes_of([s.draws]), s.draws.whole)
    summary = summarise(s.sums(), sample, [entry], asked if "layer" in scopes else replace(asked, exact=False))
    of = neurons(s.row_sums(), asked) if "neuron" in scopes and s.keep_rows else ()
    own = _rows(s, asked) if rows and s.keep_rows else ()
    s.rows.clear()
    if s.draws is not None and not all_weights:
        s.draws.keep_few()
    return Tensor(entry.name, verdicts[entry.name].kind, entry.dtype, entry.shape, entry.aliases, summary, of, own)


def _rows(seen: Seen, asked: SummaryRequest) -> tuple[Row, ...]:
    known = seen.row_sums()
    index = np.stack([known.index(p, q) for p, q in asked.pairs], axis=1).tolist()
    zeros, defined = known.lines[:, 1].astype(np.int64).tolist(), known.defined.tolist()
    return tuple(Row(z, d, tuple(i)) for z, d, i in zip(zeros, defined, index, strict=True))


def _whole(seen: Sequence[Seen], asked: SummaryRequest, all_weights: bool) -> Summary:
    lines = np.concatenate([s.total for s in seen if s.total is not None])
    sums = RowSums(asked.exponents, fold_lines(lines, len(lines), 1, asked.exponents)).row(0)
    drawn = [s.draws for s in seen if s.draws is not None]
    sample = Sample(magnitudes_of(drawn), all_weights) if drawn else None
    return summarise(sums, sample, [s.entry for s in seen], asked)
