"""Certificates: the error bound of a pruned network, next to its measured error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.model import masks as m
from sparsight.model.batch import predict
from sparsight.model.functional import Pure, evaluating, pure
from sparsight.model.names import named
from sparsight.numerics.checks import check_known
from sparsight.numerics.seeds import seeded
from sparsight.pruning.allocate.in_groups import rows_of
from sparsight.pruning.sipp.bounds import Bound, alpha, check_constant, check_delta, eps_rand, log_term
from sparsight.pruning.sipp.certificate.measure import Measured, Outputs, measure, why_no_chain
from sparsight.pruning.sipp.certificate.records import (
    Certificate,
    LayerCertificate,
    NetworkCertificate,
    NeuronCertificate,
    said,
)
from sparsight.pruning.sipp.groups import sides
from sparsight.pruning.sipp.keep_ratio import keep_ratio
from sparsight.pruning.sipp.sampling import Decision
from sparsight.pruning.sipp.score import layers_using
from sparsight.pruning.sipp.sensitivities import by_rows
from sparsight.types import Batch, Masks, Params, Scored


@torch.no_grad()
def certify(
    model: nn.Module,
    masks: Masks,
    scores: Scored,
    held_out: Sequence[Batch],
    *,
    multipliers: Params | None = None,
    decision: Decision | None = None,
    delta: float = 1e-16,
    constant: float = 3.0,
    bound: Bound = "bernstein",
    forward: Callable[[nn.Module, Batch], Any] = predict,
) -> Certificate:
    """The error bounds of pruning `model`, which holds the weights before pruning, with `masks`.

    `scores` are `SiPP(reduction="max")` of the same weights on calibration points, `held_out` batches of other inputs.
    With gamma the `multipliers` (by default the masks as 1 and 0), a group's part z of any neuron satisfies

        |z_pruned - z| <= eps z,   eps = C sum_k |1 - gamma_k| s_k        on the event that g <= C s for every edge,

    which n independent points miss with probability at most edges x exp(-n / C). A group that `decision` (of `SiPPRand`
    or `SiPPHybrid`) sampled N times also has eps_rand(N), and the smaller one counts. "bernstein" uses ln(2 T / delta)
    over the T parts of all sampled groups for one input; "reference" uses the published constants (up to sqrt 2 below
    the proved bound). A neuron has the larger bound of its two groups, relative to sum |w||a|.

    The bounds do not hold for weights that were trained after pruning: see `pruning_of`.

    Raises: ValueError for sensitivities that are mean-reduced or of other tensors or weights (such as the pruned
    network); missing or infinite held-out inputs; multipliers of other shapes; delta outside (0, 1); constant below 1.
    Source: theorems Det, Rand, Hybrid of docs/certificates.md, after Baykal et al., arXiv 1910.05422.
    """
    _check(model, masks, scores, held_out, delta, constant, bound)
    call, layers = pure(model), layers_using(model, masks)
    _of_these_weights(call, scores)
    if multipliers is None and decision is not None:
        multipliers = decision.multipliers
    multipliers = multipliers or {}
    _fit(call, multipliers)
    gamma = {name: mask.to(scores[name].dtype) for name, mask in masks.items()}
    gamma |= {n: torch.where(masks[n], f.to(scores[n].dtype), 0) for n, f in multipliers.items() if n in masks}
    kept = {name: (call.params[name] * gamma[name]).to(call.params[name].dtype) for name in masks}
    kept |= {name: call.params[name] * factor for name, factor in multipliers.items() if name not in masks}
    rows = rows_of(scores, masks)
    eps, random = _group_bounds(by_rows(scores, rows), rows.of(gamma), decision, delta, constant, bound)
    with evaluating(model), seeded(0):
        worst = {name: both.amax(0) for name, both in eps.items()}
        found, outputs = measure(call, layers, kept, worst, held_out, forward)
    pruned, whole = rows.of({name: call.params[name] * gamma[name] for name in masks}), rows.of(call.params)
    parts = tuple(_layer(name, pruned[name], whole[name], eps[name], random[name], found[name]) for name in masks)
    why = why_no_chain(model, [layer for of in layers.values() for layer in of])
    edges = sum(int((call.params[name] != 0).sum()) for name in masks)
    failure = min(1.0, math.exp(min(0.0, math.log(max(1, edges)) - scores.points / constant)))
    drawn = delta if any(bool(both.any()) for both in random.values()) else 0.0
    needed = max(1, math.ceil(constant * (math.log(max(1, edges)) - math.log(delta))))
    certificate = Certificate(
        delta=min(1.0, failure + drawn),
        delta_points=failure,
        delta_draws=drawn,
        points=scores.points,
        points_needed=needed,
        constant=constant,
        bound=bound,
        density=m.density(masks),
        keep_ratio=keep_ratio(model, masks),
        layers=parts,
        network=_network(outputs, why),
        says=(),
    )
    return said(certificate)


def pruning_of(before: nn.Module, after: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """The masks, within `masks`, with which `after` is a pruning of `before`: every weight is unchanged or ±0.

    Raises: ValueError with the first parameter or buffer that differs otherwise, because it was trained or reweighted
    after pruning, or is not prunable; also for weights that are not finite.
    """
    m.check(before, masks)
    old, new = named(before), named(after)
    if old.keys() != new.keys():
        raise ValueError(f"the two networks have different parameters: {sorted(old.keys() ^ new.keys())[:3]}")
    found = {}
    for name, parameter in old.items():
        a, b = parameter.detach(), new[name].detach().to(parameter.device)
        if a.shape != b.shape:
            raise ValueError(f"{name!r} has shape {tuple(b.shape)} after pruning and {tuple(a.shape)} before")
        if (why := _why_no_pruning(name, a, b, name in masks)) is not None:
            raise ValueError(f"no bound covers this network: {why}")
        if name in masks:
            found[name] = masks[name] & (b != 0)
    buffers = dict(after.named_buffers())
    for name, a in before.named_buffers():
        if name not in buffers or not torch.equal(a, buffers[name].to(a.device)):
            raise ValueError(f"no bound covers this network: the buffer {name!r} changed after pruning")
    return found


def _why_no_pruning(name: str, before: Tensor, after: Tensor, prunable: bool) -> str | None:
    """Why a parameter is not only pruned; None if it is."""

    def of(which: Tensor) -> str:
        return f"{int(which.sum()):,} of {which.numel():,} values of {name!r}"

    for where, values in (("before", before), ("after", after)):
        if bool((endless := ~torch.isfinite(values)).any()):
            return f"{of(endless)} are not finite {where} pruning"
    other = before != after
    if bool((moved := other & (after != 0)).any()):
        return f"{of(moved)} are neither 0 nor unchanged, so it was trained or reweighted after pruning"
    if not prunable and bool(other.any()):
        return f"{of(other)} were set to 0, but bounds cover only prunable weights"
    return None


def _of_these_weights(call: Pure, scores: Scored) -> None:
    """Raise ValueError for sensitivities of other weights; those of pruned weights would make every bound 0."""
    for name, facts in scores.facts.items():
        weight = call.params[name]
        size, positive = (t.to(weight.device) for t in (facts.size, facts.positive))
        other = (weight.abs().to(size.dtype) != size) | ((weight > 0) != positive)
        if bool(other.any()):
            raise ValueError(
                f"the scores belong to other weights: {int(other.sum()):,} of {other.numel():,} in {name!r} differ, "
                f"and {int((other & (size == 0)).sum()):,} of them were 0 (pruned) when scored; score the "
                "weights before pruning, with masks that keep all of them"
            )


def _fit(call: Pure, multipliers: Params) -> None:
    """Raise ValueError for multipliers that do not match the model's parameters."""
    for name, factor in multipliers.items():
        if name not in call.params:
            raise ValueError(f"multipliers must be named after the parameters {', '.join(call.params)}, got {name!r}")
        shape = call.params[name].shape
        if factor.shape != shape:
            raise ValueError(
                f"the multipliers of {name!r} must have its shape {tuple(shape)}, got {tuple(factor.shape)}"
            )


def _check(
    model: nn.Module, masks: Masks, scores: Scored, held_out: Sequence[Batch], delta: float, constant: float, bound: str
) -> None:
    m.check(model, masks)
    check_known(Bound, bound=bound)
    check_delta(delta)
    check_constant(constant)
    if not isinstance(scores, Scored) or scores.reduction != "max":
        got = scores.reduction if isinstance(scores, Scored) else type(scores).__name__
        raise ValueError(f"a certificate needs the scores of SiPP(reduction='max'), got {got!r}")
    if scores.keys() != masks.keys():
        raise ValueError(f"scores and masks have different names: {sorted(scores.keys() ^ masks.keys())[:3]}")
    if not len(held_out):
        raise ValueError("a certificate needs at least one held-out batch")


def _group_bounds(
    scores: Scored, gamma: Mapping[str, Tensor], decision: Decision | None, delta: float, constant: float, bound: Bound
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The bounds of each tensor's groups, [2, outputs] (plus, minus), and which of them come from sampling."""
    eps, random, events = {}, {}, 0
    if decision is not None:
        groups = decision.groups
        events = sum(2 * scores.facts[n].patches * int(decision.random[groups.rows[n]].sum()) for n in scores)
    for name, score in scores.items():
        facts, all_true = scores.facts[name], {name: torch.ones_like(gamma[name], dtype=torch.bool)}
        loss = (1 - gamma[name]).abs() * score
        halves = [torch.where(side, loss, 0).reshape(len(side), -1).sum(1) for side in sides(scores, all_true, name)]
        eps[name] = constant * torch.stack(halves)
        random[name] = torch.zeros_like(eps[name], dtype=torch.bool)
        if decision is not None and events:
            log = math.log(2 * events) - math.log(delta)
            log = log if bound == "bernstein" else float(log_term(facts.patches, facts.kernel, delta))
            at = decision.groups.rows[name]
            sums, draws = (values[at].reshape(2, -1) for values in (decision.groups.sums, decision.draws))
            drawn = torch.from_numpy(eps_rand(alpha(sums, log, constant), draws, bound)).to(eps[name])
            random[name] = torch.from_numpy(draws > 0).to(drawn.device) & (drawn < eps[name])
            eps[name] = torch.where(random[name], drawn, eps[name])
    return eps, random


def _layer(name: str, pruned: Tensor, whole: Tensor, eps: Tensor, random: Tensor, found: Measured) -> LayerCertificate:
    """The certificate of a layer from the weights, bounds and measured errors of its rows."""
    kept, total = (((t != 0).reshape(len(whole), -1).sum(1)).tolist() for t in (pruned, whole))
    means = found.total / found.patches.clamp(min=1)
    columns = (found.bound, *eps, random.any(0), found.largest, means, found.violations, found.patches)
    rows = zip(kept, total, *(column.tolist() for column in columns), strict=True)
    neurons = tuple(
        NeuronCertificate(i, k, t, b, plus, minus, "random" if r else "deterministic", top, mean, int(v), int(p))
        for i, (k, t, b, plus, minus, r, top, mean, v, p) in enumerate(rows)
    )
    patches = sum(n.patches for n in neurons)
    return LayerCertificate(
        name=name,
        kept=sum(kept),
        total=sum(total),
        bound=max(n.bound for n in neurons),
        mean_bound=sum(n.bound for n in neurons) / len(neurons),
        vacuous=sum(n.bound >= 1 for n in neurons),
        measured=max(n.measured for n in neurons),
        mean=float(found.total.sum()) / max(1, patches),
        violations=sum(n.violations for n in neurons),
        patches=patches,
        says="",
        neurons=neurons,
    )


def _network(outputs: Outputs, why: str | None) -> NetworkCertificate:
    errors, bounds = outputs.errors, outputs.bounds
    known = why is None and bool(bounds.numel())
    return NetworkCertificate(
        bound=float(bounds.max()) if known else None,
        within=int((bounds < 1).sum()) if known else 0,
        violations=int((errors > bounds * (1 + 1e-4) + 1e-5).sum()) if known else 0,
        measured=float(errors.max()),
        mean=float(errors.mean()),
        inputs=len(errors),
        says=why or "",
    )
