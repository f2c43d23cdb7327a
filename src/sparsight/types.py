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
"""What is ranked together: all weights, each tensor (each expert of a stack), or each output unit."""


@dataclass(frozen=True)
class Layout:
    """Which dimensions of a weight are outputs and which inputs: by default [outputs, inputs, *kernel].

    With `groups`, as convolutions have them, dimension 0 goes through group after group. `swapped` weights have inputs
    before outputs, `stacked` ones a dimension of experts before both, one group each.
    """

    groups: int = 1
    swapped: bool = False
    stacked: bool = False

    def split(self, x: Tensor) -> Tensor:
        """A view of a tensor of the weight's shape as [groups, outputs, inputs, *kernel], the last three of a group."""
        x = x.reshape(-1, 1) if x.dim() < 2 else x
        x = x if self.stacked else x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
        return x.transpose(1, 2) if self.swapped else x

    def rows(self, x: Tensor) -> Tensor:
        """The same as [outputs, inputs of an output's group, *kernel]: a row for each output unit."""
        return self.split(x).flatten(0, 1)

    def back(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor of that shape whose `rows` these are."""
        groups = shape[0] if self.stacked else self.groups
        x = rows.reshape(groups, len(rows) // max(1, groups), *rows.shape[1:])
        return (x.transpose(1, 2) if self.swapped else x).reshape(tuple(shape)).contiguous()

    def outputs(self, mask: Tensor) -> Tensor:
        """Which output units a weight is kept of."""
        return self.rows(mask).flatten(1).any(1)

    def inputs(self, mask: Tensor) -> Tensor:
        """Which input units a weight is kept of, group by group; none of a tensor without two dimensions."""
        if mask.dim() < 2:
            return mask.new_zeros(0)
        return self.split(mask).transpose(1, 2).flatten(2).any(2).flatten()


@dataclass(frozen=True)
class GroupRecord:
    """What one group of a scope was measured at, and what was decided for it.

    `name` is "global", a parameter name, or one with the number of an output unit (of an expert, in layer scope):
    "fc1.weight[3]".
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
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of tensors that are not [outputs, inputs, *kernel]

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


def check_allocator(allocator: object, where: str) -> None:
    """TypeError, naming what it lacks, for something in `where` that is no allocator."""
    lacks = [name for name in ("monotone", "plan", "__call__") if not hasattr(allocator, name)]
    if isinstance(allocator, type) or lacks:
        why = "it is a class" if isinstance(allocator, type) else f"it lacks {', '.join(lacks)}"
        raise TypeError(
            f"{where} holds {allocator!r:.60}, which is not an allocator: {why}; one of your own inherits from "
            "sparsight.types.Allocator"
        )


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
