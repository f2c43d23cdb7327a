"""Rules by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sparsight.train.stop.accuracy import AccuracyRecovery, FixedEpochs, LossPlateau
from sparsight.train.stop.combine import AllOf, AtLeast
from sparsight.train.stop.context import StoppingRule
from sparsight.train.stop.flows import FlowPlateau, GradientConsistent, InformationConsistent
from sparsight.train.stop.weights import MaskStable, PQIStable

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
"""A rule with its defaults."""


def named_rule(name: StopName) -> StoppingRule:
    """The rule of that name, with its defaults. Raises: ValueError for an unknown name."""
    made: dict[str, Callable[[], StoppingRule]] = {
        "fixed-epochs": FixedEpochs,
        "accuracy-recovery": AccuracyRecovery,
        # at least an epoch: weights that carry on may reach the target without training
        "recovered": lambda: AtLeast(AccuracyRecovery(fraction=0.95), epochs=1.0),
        "loss-plateau": LossPlateau,
        "pqi-stable": PQIStable,
        "mask-stable": MaskStable,
        "information-consistent": InformationConsistent,
        "gradient-consistent": GradientConsistent,
        "both-consistent": lambda: AllOf(InformationConsistent(), GradientConsistent()),
        "flow-plateau": FlowPlateau,
    }
    if name not in made:
        raise ValueError(f"stop must be one of {', '.join(made)}, got {name!r}")
    return made[name]()
