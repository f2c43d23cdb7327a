"""The loop: ordinary PyTorch, with two lines that hold the masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from sparsight.data import batches
from sparsight.evaluate import evaluate
from sparsight.masks import Bound, apply_, bind, clear_state_, keeps_zeros
from sparsight.parallel import Runtime
from sparsight.recipe import Moment, Recipe
from sparsight.record import Observation
from sparsight.seeds import derive, seeded
from sparsight.stop import Context
from sparsight.types import Batch, Data, Masks, Split, StateDict


@dataclass
class Training:
    """One level's training, as far as it has come. Everything that changes is a field; resuming sets them."""

    model: nn.Module
    masks: Masks
    optimizer: Optimizer
    recipe: Recipe
    data: Data
    runtime: Runtime
    level: int
    role: str = "level"
    budget: int = 0  # epochs: the cap, and the horizon of the schedule
    observations: list[Observation] = field(default_factory=list)
    memory: StateDict = field(default_factory=dict)  # what the stopping rule keeps between evaluations
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        return len(self.observations)

    @property
    def step(self) -> int:
        return self.observations[-1].step if self.observations else 0

    @property
    def ended(self) -> bool:
        return bool(self.observations) and self.observations[-1].reason is not None

    def spent(self, what: str, since: float) -> float:
        """Add the seconds since `since` to `what`; the time now."""
        now = perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - since
        return now


def train(training: Training) -> Iterator[Observation]:
    """Train until the stopping rule or the budget ends it, one observation after each epoch.

    The observation that ends it carries the reason. Between two observations everything that the next epoch
    depends on stands in `training`: weights, optimiser, masks, observations, the rule's memory.
    """
    while not training.ended:
        since = perf_counter()
        seed = derive(training.recipe.seed, training.role, training.level, training.epoch)
        training.model.train()
        with seeded(seed):
            loss, steps, rate = _epoch(training, Generator().manual_seed(seed))
        since = training.spent("train", since)
        so_far = float(training.epoch + 1), training.step + steps
        seen = Observation(*so_far, learning_rate=rate, train_loss=loss)
        training.observations.append(_judge(training, seen, since))
        yield training.observations[-1]


def _judge(training: Training, seen: Observation, since: float) -> Observation:
    """Validate, let the rule measure and decide."""
    recipe = training.recipe
    worth = evaluate(training.model, training.data.validation, recipe.judge, training.runtime)
    since = training.spent("validate", since)
    seen = dataclasses.replace(seen, validation_loss=worth.loss, validation_accuracy=worth.accuracy)
    if training.role == "level":
        context = Context(training.model, training.masks, training.level, seen, ())
        values, training.memory = recipe.stop.measure(context, training.memory)
        seen = dataclasses.replace(seen, values=dict(values))
        reason = recipe.stop.stop([*training.observations, seen])
    else:
        reason = None
    if reason is None and seen.epoch >= training.budget:
        reason = f"trained all {training.budget} epochs"
    training.spent("measure", since)
    return dataclasses.replace(seen, reason=reason)


def _epoch(training: Training, generator: Generator) -> tuple[float, int, float]:
    """One pass over the training split: mean loss, steps, last learning rate."""
    recipe, runtime, model, optimizer = training.recipe, training.runtime, training.model, training.optimizer
    forward, stepper = runtime.parallel(model), runtime.steps(optimizer)
    bases = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    bound, hooks, parameters = bind(model, training.masks), recipe.hooks, list(model.parameters())
    bound.apply_()
    clear_state_(model, training.masks, optimizer)
    settled = keeps_zeros(optimizer) and hooks.after_step is None  # a step moves no pruned weight
    steps_per_epoch = _length(training.data.train, recipe.batch_size)
    total, samples, step = torch.zeros((), dtype=torch.float64, device=runtime.device), 0.0, 0
    rate = bases[0]
    for whole in batches(training.data.train, recipe.batch_size, generator=generator, device=runtime.device):
        batch, weight = _part(whole, training.data.train, runtime)
        progress = (training.epoch + (step / steps_per_epoch if steps_per_epoch else 0.0)) / training.budget
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            rate = group["lr"] = base * recipe.schedule(min(progress, 1.0))
        done = training.epoch, training.step + step
        moment = Moment(model, training.masks, optimizer, training.level, *done, progress)
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = recipe.loss(forward, _channels_last(batch) if recipe.channels_last else batch)
            if weight != 1.0:
                loss = loss * weight
            if hooks.penalty is not None:
                loss = loss + hooks.penalty(moment)
        runtime.backward(loss)
        runtime.unscale(stepper)
        if hooks.on_gradients is not None:
            hooks.on_gradients(moment)
        bound.mask_grads_()
        if recipe.clip is not None:
            clip_grad_norm_(parameters, recipe.clip)
        stepper.step()
        if hooks.after_step is not None:
            hooks.after_step(moment)
        if not settled:
            bound.apply_()
        if hooks.update_masks is not None:
            bound = _update(training, bound, hooks.update_masks(moment))
        size = _size(whole) / (runtime.world if batch is not whole else 1)
        total += loss.detach() * size
        samples, step = samples + size, step + 1
    bound.apply_()
    if not step:
        raise ValueError(f"the training split of {training.data.name!r} yielded no batch: allowed is at least one")
    loss_sum, count = runtime.total(torch.stack((total, total.new_tensor(samples)))).tolist()
    mean = loss_sum / count
    if not math.isfinite(mean):
        where = f"{training.role} {training.level}, epoch {training.epoch + 1}"
        raise ValueError(f"training diverged: the loss is {mean} at {where}; a lower learning rate may help")
    return mean, step, rate


def _update(training: Training, bound: Bound, masks: Masks | None) -> Bound:
    """Adopt new masks: weights switched on again start from +0.0 with clean optimiser state."""
    if masks is None:
        return bound
    apply_(training.model, masks)
    both = {name: mask & training.masks[name] for name, mask in masks.items()}
    clear_state_(training.model, both, training.optimizer)
    training.masks = masks
    return bind(training.model, masks)


def _part(batch: Batch, split: Any, runtime: Runtime) -> tuple[Batch, float]:
    """This process's part of a batch held in memory, and the weight that makes the averaged gradient the whole's.

    Batches of a foreign loader are taken as they are: it shards itself.
    """
    if runtime.world == 1 or not isinstance(split, Split):
        return batch, 1.0
    x, y = batch
    mine = slice(runtime.rank, None, runtime.world) if len(x) > runtime.rank else slice(0, 1)
    share = len(x[mine]) if len(x) > runtime.rank else 0
    return (x[mine], y[mine]), share * runtime.world / len(x)


def _channels_last(batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch
    return type(batch)(_channels_last(item) for item in batch) if type(batch) in (tuple, list) else batch


def _length(split: Any, batch_size: int) -> int | None:
    """Batches of an epoch, or None for an iterable that does not tell."""
    if isinstance(split, Split):
        return -(-len(split) // batch_size)
    try:
        return len(split)
    except TypeError:
        return None


def _size(batch: Batch) -> int:
    """Samples of a batch, to weight its loss by: the length of the first tensor inside; 1 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 1
    inside = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return next((_size(item) for item in inside if isinstance(item, (Tensor, dict, list, tuple))), 1)
