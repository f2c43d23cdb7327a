"""Information consistent pruning: each level trains only until its flow is like the dense network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from sparsight.numerics.checks import check_whole
from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shrink import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes import _options as o
from sparsight.recipes._training import choice, exactly, sgd
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Until
from sparsight.train.schedules import constant
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

_PAPER: Mapping[str, Any] = {
    "eps_if": 0.11, "eps_gf": 0.5, "reduction": "signed", "statistic": "norm", "norm": "l2", "reference": "warmup",
}  # fmt: skip
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": _PAPER,
    "readme": {**_PAPER, "eps_if": 1.0, "eps_gf": 1.0},
    "literal": {**_PAPER, "statistic": "literal"},
    "ours": {**_PAPER, "eps_if": 0.05, "eps_gf": 0.25, "reduction": "rms", "norm": "relative", "reference": "dense"},
}
"""Arguments of `incop` by the name of a preset.

"paper": its operating point, gradient flow as intended; "readme": the thresholds that the published command lines
really run with; "literal": the published code's gradient flow, mistakes included, for tests; "ours".
"""


def incop(
    *,
    variant: Annotated[
        Literal["if", "gf", "both"], Doc("Compare information flow (if), gradient flow (gf), or both at once.")
    ] = "if",
    prune: Annotated[
        Literal["lottery", "sap"], Doc("Prune each level as SAP does, or at a fixed rate as a lottery ticket.")
    ] = "sap",
    preset: Annotated[
        Preset,
        Doc(
            "What the next six options default to: the paper's operating point; the thresholds of the published "
            "command lines (readme); its code's gradient flow, mistakes included (literal); ours."
        ),
    ] = "paper",
    eps_if: Annotated[float | None, Doc("End a level at this distance of the information flow, or closer.")] = None,
    eps_gf: Annotated[float | None, Doc("End a level at this distance of the gradient flow, or closer.")] = None,
    reduction: Annotated[
        Literal["rms", "abs", "signed", "matrix"] | None,
        Doc("What is made of a pair's correlations; signed is the published mean."),
    ] = None,
    statistic: Annotated[
        Literal["norm", "mean_abs", "mean_abs_live", "total", "ema", "literal"] | None,
        Doc(
            "What is made of a tensor's gradient; ema averages the gradients of training instead; literal repeats the "
            "published code's mistake."
        ),
    ] = None,
    norm: Annotated[Literal["relative", "l2", "linf"] | None, Doc("The distance of two flows.")] = None,
    reference: Annotated[
        Baseline | None, Doc("Whose flow it is compared with; with --statistic ema, not warmup.")
    ] = None,
    accuracy_exit: Annotated[
        bool, Doc("Also end a level when its validation accuracy reaches the best of the warm-up.")
    ] = True,
    evaluate_every: Annotated[float, Doc("Epochs between two evaluations; a fraction evaluates inside epochs.")] = 2.0,
    probes: Annotated[
        int | None, Doc("Training samples to measure the flows on, the same all run. Default: 1024, or all there are.")
    ] = None,
    p: Annotated[float | None, Doc("Exponent p of the PQ index, with --prune sap; 0 < p <= 1. Default: 1.")] = None,
    q: Annotated[float | None, Doc("Exponent q of the PQ index, with --prune sap; q >= 1, q > p. Default: 2.")] = None,
    rate: Annotated[
        float | None,
        Doc("Share of the remaining weights that each level removes, with --prune lottery. Default: 0.2."),
    ] = None,
    scope: o.Scope = "global",
    min_keep: o.MinKeep = 1,
    target_density: Annotated[
        float | None,
        Doc(
            "Prune the last level to exactly this density (kept / prunable weights) and hand that network over. 0 is "
            "no target. Default: no target, the number of levels alone."
        ),
    ] = None,
    levels: Annotated[int, Doc("Prune at most this many levels.")] = 14,
    warmup: Annotated[int, Doc("Epochs of the dense network, level 0; the others restart from its end.")] = 20,
    epochs: Annotated[int, Doc("Most epochs of a pruned level, and those of the last.")] = 40,
    batch_size: Annotated[int, Doc("Samples in a training step.")] = 64,
    lr: Annotated[float, Doc("Learning rate, constant.")] = 0.01,
    momentum: o.Momentum = 0.0,
    weight_decay: o.WeightDecay = 5e-4,
    within: Annotated[
        float | None,
        Doc(
            "Pick the sparsest level at most this many percentage points below the dense network's validation "
            "accuracy. Default: 0.5; with a target density, the network at that density."
        ),
    ] = None,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Train each level only until a flow statistic is close to the dense network's; the last one to its whole budget.

    Source: Gharatappeh and Sekeh, "Information Consistent Pruning", arXiv 2501.15592, with their published code's
    settings: dense warm-up, which is rewind point and reference; then prune, rewind, train. Level 0 is the warm-up.
    """
    check_whole(1, warmup=warmup)
    given = {
        "eps_if": eps_if, "eps_gf": eps_gf, "reduction": reduction, "statistic": statistic, "norm": norm,
        "reference": reference,
    }  # fmt: skip
    flow = _flow(variant, preset, {name: value for name, value in given.items() if value is not None})
    rule = AnyOf(flow, AccuracyRecovery(reference="warmup")) if accuracy_exit else flow
    whole = replace(
        sgd(epochs, batch_size, lr, momentum, weight_decay, None), schedule=constant, evaluate_every=evaluate_every
    )
    _check_used(prune, p=p, q=q, rate=rate)
    p, q = 1.0 if p is None else p, 2.0 if q is None else q
    shrink = Shrink(0.2 if rate is None else rate, scope, min_keep)
    cut = _cut(prune, SAP(p, q, scope=scope, min_keep=min_keep), shrink, target_density)
    return Recipe(
        name="incop",
        score=Magnitude(),
        levels=Until(
            Level((cut,), train=replace(whole, stop=rule)),
            target_density or None,
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


def _cut(prune: str, sap: SAP, shrink: Shrink, target_density: float | None) -> SAP | Shrink:
    """The allocator of that name, which goes no further than the target."""
    if prune not in ("sap", "lottery"):
        raise ValueError(f"unknown prune {prune!r}, expected 'lottery' or 'sap'")
    return replace(sap if prune == "sap" else shrink, target_density=target_density or None)


def _check_used(prune: str, **given: float | None) -> None:
    """ValueError for an argument that the way of pruning does not use."""
    for name, value in given.items():
        needs = "lottery" if name == "rate" else "sap"
        if value is not None and prune in ("sap", "lottery") and prune != needs:
            raise ValueError(f"{name}={value:g} needs prune={needs!r}, got prune={prune!r}, which does not use it")


def _flow(variant: str, preset: Preset, given: Mapping[str, Any]) -> StoppingRule:
    """The rule on flows, of a preset and what is given beside it."""
    if variant not in ("if", "gf", "both"):
        raise ValueError(f"unknown variant {variant!r}, expected 'if', 'gf' or 'both'")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}")
    how = {**PRESETS[preset], **given}
    shared = {"norm": how["norm"], "reference": how["reference"]}
    rules: list[StoppingRule] = []
    if variant != "gf":
        rules.append(InformationConsistent(how["eps_if"], reduction=how["reduction"], **shared))
    if variant != "if":
        rules.append(GradientConsistent(how["eps_gf"], statistic=how["statistic"], **shared))
    return AllOf(*rules) if len(rules) > 1 else rules[0]
