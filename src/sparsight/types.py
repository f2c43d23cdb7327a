"""The nouns (dictionaries of tensors by parameter name) and the protocols between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

Params = Mapping[str, Float[Tensor, "..."]]
"""Tensors by parameter name, as `named_parameters()` gives it (a tied weight once, under its first name)."""

Scores = Mapping[str, Float[Tensor, "..."]]
"""Saliency of every prunable weight; higher = keep. Entries of pruned weights are ignored."""

Masks = Mapping[str, Bool[Tensor, "..."]]
"""True = kept. The keys are the prunable set."""

StateDict = Mapping[str, Tensor]
"""Parameters and buffers, as `nn.Module.state_dict()` gives them."""

Batch = Any
"""One batch; `(x, y)` by default. Only `loss(model, batch)` looks inside."""

Scope = Literal["global", "layer", "neuron"]
"""What is ranked together: all weights, each tensor, or each output row (index of dimension 0)."""


@dataclass(frozen=True)
class GroupRecord:
    """What one group of a scope was measured at, and what was decided for it.

    `name` is "global", a parameter name, or a parameter name and a row: "fc1.weight[3]".
    """

    name: str
    d: int  # alive weights before the round
    c: int  # weights removed by the round
    index: float | None = None  # PQ index of the alive weights; 0.0 where it is undefined
    r: float | None = None  # least count that the PQI bound lets us keep, not rounded
    defined: bool = True  # False: no alive weight, or all of them zero, so the index is undefined
    floor_bound: bool = False  # True: `min_keep` changed what was removed here


@dataclass(frozen=True)
class Allocation:
    """What a round decided, and why."""

    masks: Masks
    groups: tuple[GroupRecord, ...] = ()
    multipliers: Params | None = None
    floors: tuple[str, ...] = ()  # tensors or rows where `min_keep` changed the selection


@dataclass(frozen=True, eq=False)
class Scored(Mapping[str, Tensor]):
    """Scores by parameter name, with what a later stage may need of how they came about.

    A mapping like any other scores. What the scorer does not give is empty; a filtered copy is a plain dictionary.
    """

    scores: Scores
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is known of each tensor besides its scores
    model: nn.Module | None = None  # the network that was scored
    batches: Sequence[Batch] = ()  # and the batches
    points: int = 0  # inputs that were seen
    wanted: int = 0  # of those that a formula asks for
    reduction: str = ""  # what the largest over patches, or their mean, was taken of
    silent: Callable[[Masks, Params | None], Mapping[str, Tensor]] | None = None  # where no gradient would arrive

    def __getitem__(self, name: str) -> Tensor:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


@runtime_checkable
class Scorer(Protocol):
    """One saliency criterion. It leaves the model as it was; a loss, where needed, is a field of it."""

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scores: ...


@runtime_checkable
class Allocator(Protocol):
    """How much to keep, and where: exact counts. Inherit from it and write `plan`."""

    @property
    def monotone(self) -> bool:
        """Whether it never brings a pruned weight back."""
        return True

    def plan(self, scores: Scores, masks: Masks) -> Allocation: ...

    def __call__(self, scores: Scores, masks: Masks) -> Masks:
        return self.plan(scores, masks).masks


@runtime_checkable
class Restart(Protocol):
    """The weights that the next level starts from. Returns the module to train (usually `model`, changed)."""

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module: ...


@dataclass(frozen=True)
class Split:
    """One split held in memory: the fast path.

    `x` holds N samples, `y` their N labels. `augment(x, generator)` is applied to every training batch,
    on the device of the tensors, and draws from `generator` alone.
    """

    x: Tensor
    y: Tensor
    augment: Callable[[Tensor, Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"a split needs as many labels as samples: got {len(self.y)} for {len(self.x)}")

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a run trains on, chooses by and is judged on.

    Each split is a `Split` (in memory, fast) or any re-iterable of `(x, y)` batches, such as a `DataLoader`.
    `validation` serves curves, selection and stopping; `test` is read once, by the evaluation.
    """

    name: str
    train: Split | Iterable[Batch]
    validation: Split | Iterable[Batch]
    test: Split | Iterable[Batch] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values: source, classes, normalisation
