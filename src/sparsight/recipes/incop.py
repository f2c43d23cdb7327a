"""Information consistent pruning: each level trains only until its flow is like the dense network's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sparsight.pruning.allocate.sap import SAP
from sparsight.pruning.allocate.shrink import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes._options import choice, exactly
from sparsight.runs.recipe import Recipe, Until
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.schedules import constant
from sparsight.train.stop import (
    AccuracyRecovery,
    AllOf,
    AnyOf,
    Baseline,
    FixedEpochs,
    GradientConsistent,
    InformationConsistent,
    PerLevel,
)
from sparsight.types import Scope, StoppingRule

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
    variant: Literal["if", "gf", "both"] = "if",
    prune: Literal["lottery", "sap"] = "sap",
    preset: Preset = "paper",
    eps_if: float | None = None,
    eps_gf: float | None = None,
    reduction: Literal["rms", "abs", "signed", "matrix"] | None = None,
    statistic: Literal["norm", "mean_abs", "mean_abs_live", "total", "ema", "literal"] | None = None,
    norm: Literal["relative", "l2", "linf"] | None = None,
    reference: Baseline | None = None,
    accuracy_exit: bool = True,
    evaluate_every: float = 2.0,
    probes: int | None = None,
    p: float = 1.0,
    q: float = 2.0,
    rate: float = 0.2,
    scope: Scope = "global",
    min_keep: int = 1,
    target_density: float | None = None,
    levels: int = 14,
    warmup: int = 20,
    epochs: int = 40,
    batch_size: int = 64,
    lr: float = 0.01,
    momentum: float = 0.0,
    weight_decay: float = 5e-4,
    within: float | None = None,
    control: bool = True,
    seed: int = 0,
) -> Recipe:
    """Train each level only until a flow statistic is close to the dense network's; the last one to its whole budget.

    Source: Gharatappeh and Sekeh, "Information Consistent Pruning", arXiv 2501.15592, with their published code's
    settings: dense warm-up, which is rewind point and reference; then prune, rewind, train. Level 0 is the warm-up.

    Args:
        variant: Information flow (if), gradient flow (gf), or both at once.
        prune: How a level is pruned: as SAP, or at a fixed rate as a lottery ticket.
        preset: What stands for the next six where they are not given: the paper's operating point; the thresholds of
            the published command lines (readme); its code's gradient flow, mistakes included (literal); ours.
        eps_if: Largest distance of the information flow at which a level ends.
        eps_gf: Largest distance of the gradient flow at which a level ends.
        reduction: What is made of a pair's correlations; signed is the published mean.
        statistic: What is made of a tensor's gradient; ema averages the gradients of training instead; literal repeats
            the published code's mistake.
        norm: The distance of two flows.
        reference: Whose flow it is compared with; with statistic ema not warmup.
        accuracy_exit: End a level, too, when validation accuracy is the best of the warm-up or better.
        evaluate_every: Epochs between two evaluations; a fraction evaluates inside epochs.
        probes: Training samples on which the flows are measured, the same all run; if not given, 1024 or all there are.
        p: Exponent p of the PQ index, with prune sap; 0 < p <= 1.
        q: Exponent q of the PQ index, with prune sap; q >= 1, q > p.
        rate: Share of the alive weights that each level removes, with prune lottery.
        scope: What is ranked together: all weights, each layer, or each neuron (output row).
        min_keep: Weights that every tensor (or row, in neuron scope) keeps at least.
        target_density: Prune the last level to exactly this density (kept / prunable weights) and hand that network
            over. 0 is no target. Default: no target, the number of levels alone.
        levels: Stop after so many pruned levels.
        warmup: Epochs of the dense network, level 0; the others restart from its end.
        epochs: Most epochs of a pruned level, and those of the last.
        batch_size: Samples of a training step.
        lr: Learning rate, constant.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on all parameters.
        within: Hand over the sparsest level at most this many points below dense validation accuracy. Default: 0.5;
            with a target_density the network at that density.
        control: Train the dense network for the whole run's epochs beside it.
        seed: Seed of everything random.
    """
    given = {
        "eps_if": eps_if, "eps_gf": eps_gf, "reduction": reduction, "statistic": statistic, "norm": norm,
        "reference": reference,
    }  # fmt: skip
    flow = _flow(variant, preset, {name: value for name, value in given.items() if value is not None})
    rule = AnyOf(flow, AccuracyRecovery(reference="warmup")) if accuracy_exit else flow
    if prune == "sap":
        cut: SAP | Shrink = SAP(p=p, q=q, scope=scope, min_keep=min_keep, target_density=target_density or None)
    elif prune == "lottery":
        cut = Shrink(rate=rate, scope=scope, min_keep=min_keep, target_density=target_density or None)
    else:
        raise ValueError(f"unknown prune {prune!r}: allowed are 'lottery' and 'sap'")
    return Recipe(
        name="incop",
        score=Magnitude(),
        levels=Until((cut,), target_density or None, levels, last=exactly(cut, target_density)),
        optimizer=NesterovSGD(lr=lr, momentum=momentum, weight_decay=weight_decay),
        schedule=constant,
        epochs=epochs,
        first_epochs=warmup,
        batch_size=batch_size,
        clip=None,
        rewind_epoch=warmup,
        stop=PerLevel(rule, {0: FixedEpochs(), -1: FixedEpochs()}),
        evaluate_every=evaluate_every,
        probes=probes,
        choose=choice(target_density, within),
        control=control,
        pq=tuple(dict.fromkeys(((p, q), (0.5, 1.0), (1.0, 2.0)))),
        seed=seed,
    )


def _flow(variant: str, preset: Preset, given: Mapping[str, Any]) -> StoppingRule:
    """The rule on flows, of a preset and what is given beside it."""
    if variant not in ("if", "gf", "both"):
        raise ValueError(f"unknown variant {variant!r}: allowed are 'if', 'gf' and 'both'")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: allowed are {', '.join(map(repr, PRESETS))}")
    how = {**PRESETS[preset], **given}
    shared = {"norm": how["norm"], "reference": how["reference"]}
    rules: list[StoppingRule] = []
    if variant != "gf":
        rules.append(InformationConsistent(how["eps_if"], reduction=how["reduction"], **shared))
    if variant != "if":
        rules.append(GradientConsistent(how["eps_gf"], statistic=how["statistic"], **shared))
    return AllOf(*rules) if len(rules) > 1 else rules[0]
