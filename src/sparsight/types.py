"""The common types (dictionaries of tensors by parameter name) and protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

Params = Mapping[str, Float[Tensor, "..."]]
"""Tensors by parameter name, as in `named_parameters()` (a tied weight once, under its first name)."""

Scores = Mapping[str, Float[Tensor, "..."]]
"""The saliency of every prunable weight; higher = keep. Entries of pruned weights are ignored."""

Masks = Mapping[str, Bool[Tensor, "..."]]
"""True = kept. The keys are the names of the prunable weights."""

StateDict = Mapping[str, Tensor]
"""Parameters and buffers, as in `nn.Module.state_dict()`."""

Batch = Any
"""A batch, by default `(x, y)`."""

Scope = Literal["global", "layer", "neuron"]
"""What is ranked together: all weights, each tensor (each expert of a stack), or each output unit."""


@dataclass(frozen=True)
class Layout:
    """Which dimensions of a weight are outputs and which inputs: by default [outputs, inputs, *kernel].

    With `groups`, as in convolutions, dimension 0 holds one group after the other. `swapped` weights have inputs before
    outputs, `stacked` ones a dimension of experts before both, one group each.
    """

    groups: int = 1
    swapped: bool = False
    stacked: bool = False

    def split(self, x: Tensor) -> Tensor:
        """A tensor of the weight's shape as [groups, outputs per group, inputs per group, *kernel]."""
        x = x.reshape(-1, 1) if x.dim() < 2 else x
        x = x if self.stacked else x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
        return x.transpose(1, 2) if self.swapped else x

    def rows(self, x: Tensor) -> Tensor:
        """A tensor of the weight's shape as [outputs, inputs per group, *kernel]: a row per output unit."""
        return self.split(x).flatten(0, 1)

    def back(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `rows`, for a tensor of the given shape."""
        groups = shape[0] if self.stacked else self.groups
        x = rows.reshape(groups, len(rows) // max(1, groups), *rows.shape[1:])
        return (x.transpose(1, 2) if self.swapped else x).reshape(tuple(shape)).contiguous()

    def outputs(self, mask: Tensor) -> Tensor:
        """Which output units keep a weight."""
        return self.rows(mask).flatten(1).any(1)

    def inputs(self, mask: Tensor) -> Tensor:
        """Which input units keep a weight, group by group; empty for a tensor with fewer than two dimensions."""
        if mask.dim() < 2:
            return mask.new_zeros(0)
        return self.split(mask).transpose(1, 2).flatten(2).any(2).flatten()


@dataclass(frozen=True)
class GroupRecord:
    """The measurements of a group of a scope, and the decision for it.

    `name` is "global", a parameter name, or a name with the index of an output unit (in layer scope, of an expert):
    "fc1.weight[3]".
    """

    name: str
    d: int  # alive weights before the round
    c: int  # weights removed by the round
    index: float | None = None  # PQ index of the alive weights; 0.0 if undefined
    r: float | None = None  # least count to keep by the PQI bound, not rounded
    defined: bool = True  # False: the index is undefined, without alive weights or with only zeros
    floor_bound: bool = False  # True: `min_keep` changed the number of removed weights


@dataclass(frozen=True)
class Allocation:
    """The decision of a round."""

    masks: Masks
    groups: tuple[GroupRecord, ...] = ()
    multipliers: Params | None = None
    floors: tuple[str, ...] = ()  # tensors or rows in which `min_keep` changed the selection


@dataclass(frozen=True, eq=False)
class Scored(Mapping[str, Tensor]):
    """Scores by parameter name, with additional facts for later stages; a mapping like any other scores."""

    scores: Scores
    facts: Mapping[str, Any] = field(default_factory=dict)  # facts about each tensor
    model: nn.Module | None = None  # the scored network
    batches: Sequence[Batch] = ()  # the batches used for scoring
    points: int = 0  # number of inputs used
    wanted: int = 0  # number of inputs that a formula requires
    reduction: str = ""  # over patches: "max" or "mean"
    silent: Callable[[Masks, Params | None], Mapping[str, Tensor]] | None = None  # finds parameters without a gradient
    layouts: Mapping[str, Layout] = field(default_factory=dict)  # of tensors that are not [outputs, inputs, *kernel]

    def __getitem__(self, name: str) -> Tensor:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


@runtime_checkable
class Scorer(Protocol):
    """A saliency criterion. It does not change the model; a loss, if needed, is one of its fields."""

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scores: ...


@runtime_checkable
class Allocator(Protocol):
    """Decides how many weights to keep, and which; counts are exact. To write your own, inherit and define `plan`."""

    @property
    def monotone(self) -> bool:
        """Whether pruned weights never return."""
        return True

    def plan(self, scores: Scores, masks: Masks) -> Allocation: ...

    def __call__(self, scores: Scores, masks: Masks) -> Masks:
        return self.plan(scores, masks).masks


def check_allocator(allocator: object, where: str) -> None:
    """Raise TypeError for anything but an allocator; `where` names the argument."""
    lacks = [name for name in ("monotone", "plan", "__call__") if not hasattr(allocator, name)]
    if isinstance(allocator, type) or lacks:
        why = "it is a class" if isinstance(allocator, type) else f"it lacks {', '.join(lacks)}"
        raise TypeError(
            f"{where} holds {allocator!r:.60}, which is not an allocator: {why}; your own allocator must inherit from "
            "sparsight.types.Allocator"
        )


@runtime_checkable
class Restart(Protocol):
    """The weights that the next level starts from. Returns the module to train (usually `model`, changed)."""

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module: ...


@dataclass(frozen=True)
class Split:
    """A split in memory.

    `x` holds N samples, `y` their N labels. `augment(x, generator)` is applied to every training batch, on the device
    of the tensors, and must draw only from `generator`.
    """

    x: Tensor
    y: Tensor
    augment: Callable[[Tensor, Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"a split needs as many labels as samples, got {len(self.y):,} for {len(self.x):,}")

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a run.

    Each split is a `Split` (in memory, faster) or a re-iterable of `(x, y)` batches, such as a `DataLoader`.
    `validation` is for curves, selection and stopping; `test` is read once, for the final evaluation. Raises: TypeError
    for a generator, which can be read only once, in place of `train` or `validation`.
    """

    name: str
    train: Split | Iterable[Batch]
    validation: Split | Iterable[Batch]
    test: Split | Iterable[Batch] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values: source, classes, normalisation

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            split = getattr(self, name)
            if isinstance(split, Iterator) and type(split).__module__ in ("builtins", "itertools"):
                raise TypeError(
                    f"the {name} split must yield its batches anew in every epoch, but a {type(split).__name__} yields "
                    "them once: give a list of batches, a DataLoader, or an object whose __iter__ begins again"
                )
