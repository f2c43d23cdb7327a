"""The framework-independent part of a callback: holds masks, updates them by a schedule, reports on them."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, distributed, nn

from sparsight.integrations.schedule import Place, Schedule
from sparsight.measure.pq import pq_index
from sparsight.model.masks import check, check_mapping, dense, density, verify
from sparsight.model.names import named
from sparsight.model.own_loop import Holding, held
from sparsight.pruning.restart import carry_on
from sparsight.types import Masks


class UnfinishedSchedule(UserWarning):
    """Training ended, or returned to its best weights, before the schedule reached its density."""


class Session:
    """The masks of one model, over all trainings with one callback.

    `prune` is the masks to hold, or a schedule that starts from `start` (default: all weights). Resumed training starts
    with the checkpoint's masks; another training of the same model with the previous masks.
    """

    def __init__(self, prune: Masks | Schedule, start: Masks | None) -> None:
        self.schedule = prune if isinstance(prune, Schedule) else None
        self._given = start if isinstance(prune, Schedule) else prune
        if self._given is not None:
            check_mapping(self._given)
        if start is not None and self.schedule is None:
            raise ValueError("start is what a schedule begins with, and masks were given: pass one of the two")
        self._model: weakref.ref[nn.Module] | None = None
        self._masks: dict[str, Tensor] | None = None
        self._holding: Holding | None = None
        self._open = ExitStack()
        self._since = -1

    @property
    def masks(self) -> dict[str, Tensor]:
        """The current or last masks. Raises: ValueError before the first training."""
        if self._holding is not None:
            return self._holding.masks
        if self._masks is None:
            raise ValueError("there are no masks before the training begins")
        return self._masks

    @property
    def running(self) -> bool:
        return self._holding is not None

    def begin(
        self, model: nn.Module, optimizer: Any, place: Place, saved: Masks | None, copies: Sequence[nn.Module]
    ) -> None:
        """Hold the masks from now on, also in copies of the model.

        Raises: ValueError for a schedule that does not fit the training, or `saved` masks that differ from the given
        ones or do not fit the loaded weights; TypeError for a schedule with a sharded model; as `held`.
        """
        self.end(finished=False)  # the previous training may have failed
        if self.schedule is not None and any(hasattr(weight, "device_mesh") for weight in named(model).values()):
            raise TypeError(
                "a schedule scores whole weights, and those of this model are sharded over processes (FSDP2): pass "
                "masks, which are held, or train with DDP"
            )
        masks = self._first(model, saved)
        if self.schedule is not None:
            self.schedule.check(place, masks)
        self._model, self._since = weakref.ref(model), -1
        self._holding = self._open.enter_context(held(model, masks, optimizer, copies=copies))

    def _first(self, model: nn.Module, saved: Masks | None) -> Masks:
        if saved is not None:
            check(model, saved)
            try:
                verify(model, saved)
            except ValueError as error:
                raise ValueError(
                    f"the masks of the checkpoint are not those of the weights that were loaded: {error}"
                ) from error
            if self.schedule is None and not _same(saved, self._given or {}):
                raise ValueError(
                    "the masks given are not those of the checkpoint: give those, or begin a training of its own"
                )
            return saved
        if self._model is not None and self._model() is model and self._masks is not None:
            return self._masks
        if self._given is not None:
            return self._given
        assert self.schedule is not None
        return dense(model, include=self.schedule.include, exclude=self.schedule.exclude)

    def step(self, place: Place) -> None:
        """Prune, if the schedule says so; call it before each step."""
        holding, model = self._holding, self._model and self._model()
        if holding is None or model is None or self.schedule is None:
            return
        allocator = self.schedule.due(place, self._since, holding.masks)
        self._since = place.step
        if allocator is None:
            return
        scores = self.schedule.score(model, holding.masks, self.schedule.batches)
        allocation = allocator.plan(scores, holding.masks)
        for tensors in (allocation.masks, allocation.multipliers or {}):
            for tensor in tensors.values():
                _agree_(tensor)
        carry_on(model, {}, allocation)
        holding.update(allocation.masks)

    def returned(self, masks: Masks) -> None:
        """Hold the masks of restored weights."""
        if self._holding is not None:
            self._holding.update(masks)

    def figures(self) -> dict[str, float]:
        """Density, and the PQ index (1, 2) of all kept weights, for a log; NaN if a weight is not finite."""
        model = self._model and self._model()
        if self._holding is None or model is None:
            return {}
        masks, weights = self._holding.masks, named(model)
        found = {"density": density(masks)}
        if not any(hasattr(weights[name], "device_mesh") for name in masks):  # sharded weights have no index here
            try:
                found["pq_index"] = float(pq_index({name: weights[name] for name in masks}, 1.0, 2.0, mask=masks))
            except ValueError:
                found["pq_index"] = math.nan
        return found

    def end(self, finished: bool = True) -> None:
        """Release the masks: remove hooks, with pruned weights at +0.0. `finished` warns of an unfinished schedule."""
        if self._holding is None:
            return
        self._masks, self._holding = self._holding.masks, None
        self._open.close()
        left = self.schedule.left(self._masks) if self.schedule is not None and finished else ""
        if left:
            warnings.warn(f"the training ended before its schedule: {left}", UnfinishedSchedule, stacklevel=2)


def _same(a: Masks, b: Masks) -> bool:
    return set(a) == set(b) and all(bool((a[name].cpu() == b[name].cpu()).all()) for name in a)


def _agree_(tensor: Tensor) -> None:
    """Copy it from process 0, if several train."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        theirs = tensor.contiguous()
        distributed.broadcast(theirs, 0)
        tensor.copy_(theirs)
