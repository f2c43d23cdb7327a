"""Information consistent pruning: each level trains only until its flow is close to the dense network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from sparsight.numerics.checks import check_known, check_whole
from sparsight.pruning.allocate.fixed import Shrink
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import _options as o
from sparsight.recipes._training import choice, exactly, sgd
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Until
from sparsight.train.plan import constant
from sparsight.train.stop import (
    AccuracyRecovery,
    AllOf,
    AnyOf,
    Baseline,
    GradientConsistent,
    InformationConsistent,
    StoppingRule,
)

Preset = Literal["paper", "readme", "literal", "ours"]

_PUBLISHED = {"reduction": "signed", "statistic": "norm", "norm": "l2", "reference": "warmup"}
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": {**_PUBLISHED, "eps_if": 0.11, "eps_gf": 0.5},
    "readme": {**_PUBLISHED, "eps_if": 1.0, "eps_gf": 1.0},
    "literal": {**_PUBLISHED, "eps_if": 0.11, "eps_gf": 0.5, "statistic": "literal"},
    "ours": {"eps_if": 0.05, "eps_gf": 0.25}
    | {"reduction": "rms", "statistic": "norm", "norm": "relative", "reference": "dense"},
}
"""Arguments of `incop` by preset.

"paper": the paper's operating point, with its intended gradient flow; "readme": the thresholds of the published command
lines; "literal": the published code's gradient flow, mistakes included, for tests; "ours".
"""


def incop(
    *,
    variant: Literal["if", "gf", "both"] = "if",
    prune: Literal["lottery", "sap"] = "sap",
    preset: Preset = "paper",
    eps_if: float | None = None,
    eps_gf: float | None = None,
    reduction: Literal["rms", "abs", "signed", "matrix"] | None = None,
    statistic: Literal["norm", "mean_abs", "mean_abs_live", "total", "ema", "literal"] | None = None,
    norm: Annotated[Literal["relative", "l2", "linf"] | None, Doc("Distance between two flows.")] = None,
    reference: Baseline | None = None,
    accuracy_exit: bool = True,
    evaluate_every: Annotated[float, Doc("Epochs between two evaluations; may be a fraction.")] = 2.0,
    probes: int | None = None,
    p: Annotated[float | None, Doc("Exponent p of the PQ index, with --prune sap; 0 < p <= 1. Default: 1.")] = None,
    q: Annotated[float | None, Doc("Exponent q of the PQ index, with --prune sap; q >= 1, q > p. Default: 2.")] = None,
    rate: float | None = None,
    scope: o.Scope = "global",
    min_keep: o.MinKeep = 1,
    target_density: float | None = None,
    levels: Annotated[int, Doc("Prune at most this many levels.")] = 14,
    warmup: Annotated[int, Doc("Epochs of the dense network (level 0); the others restart from its end.")] = 20,
    epochs: Annotated[int, Doc("Epochs of the last level, and at most of each other pruned level.")] = 40,
    batch_size: Annotated[int, Doc("Samples per training step.")] = 64,
    lr: Annotated[float, Doc("Constant learning rate.")] = 0.01,
    momentum: o.Momentum = 0.0,
    weight_decay: o.WeightDecay = 5e-4,
    within: float | None = None,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Train each level only until a flow statistic is close to the dense network's, the last for its full budget.

    Source: Gharatappeh and Sekeh, "Information Consistent Pruning", arXiv 2501.15592, with the settings of their
    published code. Level 0 is the dense warm-up: both rewind point and reference.

    Args:
        variant: Compare information flow (if), gradient flow (gf), or both at once.
        prune: Prune each level like SAP, or at a fixed rate like a lottery ticket.
        preset: Defaults of the next six options: the paper's operating point; the thresholds of the published command
            lines (readme); the published code's gradient flow, mistakes included (literal); ours.
        eps_if: End a level if its information flow is at most this far from the reference.
        eps_gf: End a level if its gradient flow is at most this far from the reference.
        reduction: How to reduce the correlations of a pair of layers; signed is the published mean.
        statistic: How to reduce a tensor's gradient; ema averages the gradients of training instead; literal repeats
            the published code's mistake.
        reference: Network to compare the flow with; warmup does not work with --statistic ema.
        accuracy_exit: Also end a level when it reaches the best validation accuracy of the warm-up.
        probes: Training samples to measure the flows on, fixed for the run. Default: 1024, or all if fewer.
        rate: Share of the remaining weights that each level removes, with --prune lottery. Default: 0.2.
        target_density: Prune the last level to exactly this density (kept / prunable weights) and choose that level.
            Default: no target, end after --levels.
        within: Choose the sparsest level at most this many percentage points below the dense network's validation
            accuracy. Default: 0.5 (with a target density, the level at it).
    """
    check_whole(1, warmup=warmup)
    given = {"eps_if": eps_if, "eps_gf": eps_gf, "reduction": reduction}
    given |= {"statistic": statistic, "norm": norm, "reference": reference}
    flow = _flow(variant, preset, {name: value for name, value in given.items() if value is not None})
    rule = AnyOf(flow, AccuracyRecovery(reference="warmup")) if accuracy_exit else flow
    whole = replace(
        sgd(epochs, batch_size, lr, momentum, weight_decay, None), schedule=constant, evaluate_every=evaluate_every
    )
    check_known(("lottery", "sap"), prune=prune)
    for name, value in {"rate": rate}.items() if prune == "sap" else {"p": p, "q": q}.items():
        if value is not None:
            raise ValueError(f"{name}={value:g} needs prune={'lottery' if prune == 'sap' else 'sap'!r}, got {prune!r}")
    p, q, target = 1.0 if p is None else p, 2.0 if q is None else q, target_density or None
    if prune == "sap":
        cut = SAP(p, q, scope=scope, min_keep=min_keep, target_density=target)
    else:
        cut = Shrink(0.2 if rate is None else rate, scope, min_keep, target)
    return Recipe(
        name="incop",
        score=Magnitude(),
        levels=Until(
            Level((cut,), train=replace(whole, stop=rule)),
            target,
            levels,
            last=Level((exactly(cut, target_density),), train=whole),
            first=Level(train=replace(whole, epochs=warmup)),
        ),
        choose=choice(target_density, within),
        rewind_epoch=warmup,
        probes=probes,
        control=control,
        pq=tuple(dict.fromkeys(((p, q), (0.5, 1.0), (1.0, 2.0)))),
        seed=seed,
    )


def _flow(variant: str, preset: Preset, given: Mapping[str, Any]) -> StoppingRule:
    """The stopping rule on flows: the preset, overridden by `given`."""
    check_known(("if", "gf", "both"), variant=variant)
    check_known(Preset, preset=preset)
    how = {**PRESETS[preset], **given}
    shared = {"norm": how["norm"], "reference": how["reference"]}
    rules: list[StoppingRule] = []
    if variant != "gf":
        rules.append(InformationConsistent(how["eps_if"], reduction=how["reduction"], **shared))
    if variant != "if":
        rules.append(GradientConsistent(how["eps_gf"], statistic=how["statistic"], **shared))
    return AllOf(*rules) if len(rules) > 1 else rules[0]
