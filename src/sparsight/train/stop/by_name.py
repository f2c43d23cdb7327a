"""Rules by name, for command lines."""

from __future__ import annotations

from typing import Literal, get_args

from sparsight.train.stop.accuracy import AccuracyRecovery, FixedEpochs, LossPlateau
from sparsight.train.stop.combine import AllOf, AtLeast, PerLevel
from sparsight.train.stop.flows import FlowPlateau, GradientConsistent, InformationConsistent
from sparsight.train.stop.weights import MaskStable, PQIStable
from sparsight.types import StoppingRule

StopName = Literal[
    "fixed-epochs",
    "accuracy-recovery",
    "recovered",
    "loss-plateau",
    "pqi-stable",
    "mask-stable",
    "information-consistent",
    "gradient-consistent",
    "both-consistent",
    "flow-plateau",
]
"""A rule with its defaults, at all levels but the first and the last."""


def named_rule(name: StopName) -> FixedEpochs | PerLevel:
    """The rule of that name between the first and the last level, which train their whole budget.

    The first is what the others are compared with, the last is trained alike under every rule. ValueError for
    another name.
    """
    made: dict[str, type[StoppingRule]] = {
        "accuracy-recovery": AccuracyRecovery,
        "loss-plateau": LossPlateau,
        "pqi-stable": PQIStable,
        "mask-stable": MaskStable,
        "information-consistent": InformationConsistent,
        "gradient-consistent": GradientConsistent,
        "flow-plateau": FlowPlateau,
    }
    if name == "fixed-epochs":
        return FixedEpochs()
    if name == "recovered":  # an epoch at least: weights that go on may be as good as that before they are trained
        return whole_ends(AtLeast(AccuracyRecovery(fraction=0.95), epochs=1.0))
    if name == "both-consistent":
        return whole_ends(AllOf(InformationConsistent(), GradientConsistent()))
    if name not in made:
        raise ValueError(f"unknown stop {name!r}: allowed are {', '.join(map(repr, get_args(StopName)))}")
    return whole_ends(made[name]())


def whole_ends(rule: StoppingRule) -> PerLevel:
    """`rule`, but for the first and the last level, which train their whole budget."""
    return PerLevel(rule, {0: FixedEpochs(), -1: FixedEpochs()})
