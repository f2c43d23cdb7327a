"""The stopping rules of the study and their settings, by name.

Every rule acts between the first level and the last, which train the whole budget, as rules by name do in Sparsight.
The settings were fixed before any final accuracy was known, after one look at a run with seed 100, which is no seed of
the study: at its distances, and at how far within a level validation accuracy stayed below the dense network's.
Defaults that were hardly met within the first epochs got a looser setting beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sparsight.train.stop import (
    AccuracyRecovery,
    AllOf,
    AtLeast,
    FixedEpochs,
    GradientConsistent,
    InformationConsistent,
    MaskStable,
    PQIStable,
    StoppingRule,
)

SETTINGS: Mapping[tuple[str, str], StoppingRule] = {
    # default: Sparsight's own; paper: threshold, statistic and norm of the published function, here against the
    # trained dense network; 0.95: the published code's older share of the dense network's accuracy
    ("accuracy-recovery", "default"): AccuracyRecovery(),
    ("accuracy-recovery", "0.95"): AccuracyRecovery(fraction=0.95),
    ("mask-stable", "default"): MaskStable(),
    ("mask-stable", "loose"): MaskStable(tol=0.15, patience=1),
    ("pqi-stable", "default"): PQIStable(),
    ("pqi-stable", "loose"): PQIStable(tol=5e-3, patience=1),
    ("information-consistent", "default"): InformationConsistent(),
    ("information-consistent", "loose"): InformationConsistent(eps=0.15),
    ("information-consistent", "paper"): InformationConsistent(eps=0.11, reduction="signed", norm="l2"),
    ("gradient-consistent", "default"): GradientConsistent(),
    ("gradient-consistent", "paper"): GradientConsistent(eps=0.5, norm="l2"),
    ("both-consistent", "default"): AllOf(InformationConsistent(), GradientConsistent()),
    ("both-consistent", "paper"): AllOf(
        InformationConsistent(eps=0.11, reduction="signed", norm="l2"), GradientConsistent(eps=0.5, norm="l2")
    ),
}
"""(rule, setting) -> the rule of the middle levels."""

ONE: Mapping[str, str] = {
    "accuracy-recovery": "0.95",
    "mask-stable": "loose",
    "pqi-stable": "loose",
    "information-consistent": "loose",
    "gradient-consistent": "paper",
    "both-consistent": "paper",
}
"""The one setting of each rule where there is time for one only."""


@dataclass(frozen=True)
class Short:
    """Budgets, each with a cosine of its own, for the levels that find the masks; the last level has the full one."""

    first: int
    middle: int
    carried: Literal["none", "middle", "all"] = "none"  # which pruned levels go on from the weights as they are
    rule: StoppingRule | None = None  # may end a middle level before its budget


RECOVERED = AtLeast(AccuracyRecovery(fraction=0.95), epochs=1.0)

SHORT: Mapping[tuple[str, str], Short] = {
    # tried after the others, to see whether levels that end early lose because their cosine is cut off
    ("short-levels", "1"): Short(9, 1),
    ("short-levels", "2"): Short(2, 2),
    ("short-levels", "1-carried"): Short(9, 1, "middle"),
    ("short-levels", "2-carried"): Short(2, 2, "middle"),
    # tried after those: no level is rewound; the full budget of the same beside it
    ("carried", "1"): Short(9, 1, "all"),
    ("carried", "2"): Short(2, 2, "all"),
    ("carried", "9"): Short(9, 9, "all"),
    # tried last: two epochs a level, without the epoch by which SAP takes more than a third of the full budget
    ("carried", "1-2"): Short(1, 2, "all"),
    # tried after the confirmation of that: levels of at most so many epochs end once they have recovered
    ("carried-recovery", "2"): Short(9, 2, "all", RECOVERED),
    ("carried-recovery", "3"): Short(9, 3, "all", RECOVERED),
    ("carried-recovery", "9"): Short(9, 9, "all", RECOVERED),
}
"""(rule, setting) -> budgets. All but the full one cost about a third of the full budget, 25 epochs of 81."""

FULL = "9"
"""Setting of the rule `fixed` that is the full budget."""

EVERY = 0.5
"""Epochs between two evaluations of a rule, and the shortest fixed budget: one evaluation."""


def rule_of(rule: str, setting: str) -> tuple[StoppingRule, float]:
    """The rule for the middle levels, and the epochs between two evaluations.

    `fixed` takes its number of epochs as its setting. It is evaluated once an epoch, or every half one where it ends
    inside one: it needs no evaluation, and evaluating changes nothing of what is trained. `short-levels` and `carried`
    end no level early: their budgets are the recipe's, as those of `carried-recovery` are at most. ValueError for
    another name, or a number of epochs that ends between two evaluations.
    """
    if (rule, setting) in SHORT:
        given = SHORT[rule, setting].rule
        middle, every = (FixedEpochs(), 1.0) if given is None else (given, EVERY)
    elif rule == "fixed":
        if float(setting) % EVERY:
            raise ValueError(f"a fixed budget must be a multiple of {EVERY:g} epochs: got {setting}")
        middle, every = FixedEpochs(float(setting)), EVERY if float(setting) % 1 else 1.0
    elif (rule, setting) in SETTINGS:
        middle, every = SETTINGS[rule, setting], EVERY
    else:
        known = ", ".join(f"{name} {of}" for name, of in (*SETTINGS, *SHORT))
        raise ValueError(f"unknown rule {rule!r} with setting {setting!r}: allowed are fixed N, {known}")
    return middle, every
