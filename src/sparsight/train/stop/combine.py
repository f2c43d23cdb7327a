"""Combinations of rules, and rules by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sparsight.numerics.checks import check_not_negative, check_whole
from sparsight.train.observation import Observation
from sparsight.train.stop.accuracy import AccuracyRecovery, FixedEpochs, LossPlateau
from sparsight.train.stop.context import Context, FlowSource, StoppingRule, check_rule
from sparsight.train.stop.flow_sources import measure_together
from sparsight.train.stop.flows import FlowPlateau, GradientConsistent, InformationConsistent
from sparsight.train.stop.thresholds import in_a_row
from sparsight.train.stop.weights import MaskStable, PQIStable
from sparsight.types import StateDict


@dataclass(frozen=True, init=False)
class _Several(StoppingRule):
    """Rules that are measured together and share their measurements and passes."""

    rules: tuple[StoppingRule, ...]

    def __init__(self, *given: StoppingRule, rules: Sequence[StoppingRule] = ()) -> None:
        object.__setattr__(self, "rules", (*given, *rules))
        if not self.rules:
            raise ValueError(f"{type(self).__name__} needs at least one rule")
        for rule in self.rules:
            check_rule(rule, f"each rule of {type(self).__name__}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(rule.needs for rule in self.rules))

    @property
    def sources(self) -> tuple[FlowSource, ...]:
        return tuple(source for rule in self.rules for source in rule.sources)

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        measure_together(self.sources, context)
        values: dict[str, float] = {}
        kept = dict(memory)
        for rule in self.rules:
            found, after = rule.measure(context, memory)
            values.update(found)
            kept.update({key: new for key, new in after.items() if new is not memory.get(key)})  # only this rule's
        return values, kept

    def _reasons(self, history: Sequence[Observation]) -> list[str | None]:
        return [rule.stop(history) for rule in self.rules]


@dataclass(frozen=True, init=False)
class AllOf(_Several):
    """Stop if all rules stop at the same evaluation: `AllOf(a, b)`."""

    def stop(self, history: Sequence[Observation]) -> str | None:
        reasons = [reason for reason in self._reasons(history) if reason is not None]
        return "; ".join(reasons) if len(reasons) == len(self.rules) else None


@dataclass(frozen=True, init=False)
class AnyOf(_Several):
    """Stop if any rule stops: `AnyOf(a, b)`. The reason is that of the first."""

    def stop(self, history: Sequence[Observation]) -> str | None:
        return next((reason for reason in self._reasons(history) if reason is not None), None)


@dataclass(frozen=True)
class _One(StoppingRule):
    """A rule based on the measurements and decisions of another."""

    rule: StoppingRule

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    @property
    def sources(self) -> tuple[FlowSource, ...]:
        return self.rule.sources

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        return self.rule.measure(context, memory)


@dataclass(frozen=True)
class Patience(_One):
    """Stop if a rule stops at `evaluations` evaluations in a row."""

    evaluations: int = 2

    def __post_init__(self) -> None:
        check_rule(self.rule, "the rule of Patience")
        check_whole(1, evaluations=self.evaluations)

    def stop(self, history: Sequence[Observation]) -> str | None:
        n = len(history)
        if n < self.evaluations:
            return None
        said = [self.rule.stop(history[: n - back]) for back in range(self.evaluations)]
        return f"{said[0]}{in_a_row(self.evaluations)}" if None not in said else None


@dataclass(frozen=True)
class AtLeast(_One):
    """Ignore a rule before `epochs` epochs and `evaluations` evaluations of the level."""

    epochs: float = 0.0
    evaluations: int = 1

    def __post_init__(self) -> None:
        check_rule(self.rule, "the rule of AtLeast")
        check_not_negative(epochs=self.epochs)
        check_whole(0, evaluations=self.evaluations)

    def stop(self, history: Sequence[Observation]) -> str | None:
        early = not history or history[-1].epoch < self.epochs - 1e-9 or len(history) < self.evaluations
        return None if early else self.rule.stop(history)


# -- by name ----------------------------------------------------------------------------------------------------


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
        # at least an epoch: weights that were not rewound may reach the target without training
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
