"""The loop: ordinary PyTorch, with two lines that hold the masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from sparsight.measure.flow import GradientAverage, gf_ema
from sparsight.measure.flow.running_average import averaged
from sparsight.model.hold import Bound, Norms, apply_, bind
from sparsight.model.stepping import clear_state_, keeps_zeros
from sparsight.numerics.seeds import captured, derive, drawing_on, seeded
from sparsight.train import feed
from sparsight.train.batches import batches
from sparsight.train.clip import clip_
from sparsight.train.evaluate import evaluate
from sparsight.train.evaluation_points import next_point
from sparsight.train.hooks import Hooks, Moment
from sparsight.train.observation import Observation
from sparsight.train.parallel import Runtime
from sparsight.train.stop import Context, PerLevel
from sparsight.types import Batch, Data, Masks, Split, StateDict, StoppingRule

if TYPE_CHECKING:
    from sparsight.runs.recipe import Recipe


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
    rule: StoppingRule | None = None  # what may end it earlier; by default the recipe's, and nothing for the control
    every: float | None = None  # epochs from one evaluation to the next; by default the recipe's
    stops: tuple[int, ...] = ()  # epochs that are evaluated besides
    surroundings: Context | None = None  # what the rule may measure on, besides the network
    averaging: bool = False  # keep the exponential average of gradient norms
    observations: list[Observation] = field(default_factory=list)
    memory: StateDict = field(default_factory=dict)  # what the stopping rule keeps between evaluations
    stream: Mapping[str, Any] = field(default_factory=dict)  # inside an epoch: steps done, and the generators' states
    average: GradientAverage | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stop = self.recipe.stop
        if self.rule is None and self.role == "level":
            self.rule = stop.at(self.level) if isinstance(stop, PerLevel) else stop
        if self.every is None:
            self.every = self.recipe.evaluate_every if self.role == "level" else 1.0

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return int(self.observations[-1].epoch) if self.observations else 0

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


@dataclass
class _Pass:
    """An epoch in progress. Between two stretches of it `states` says where the global generators stand."""

    epoch: int
    source: Iterator[Batch]
    done: int = 0
    states: Mapping[str, Any] | None = None
    over: bool = False


@dataclass
class _Tally:
    """What is summed up from one evaluation to the next. Losses wait on their device and are added up together."""

    total: Tensor
    samples: float = 0.0
    steps: int = 0
    rate: float = 0.0
    waiting: list[tuple[Tensor, float]] = field(default_factory=list)

    def add(self, loss: Tensor, samples: float) -> None:
        """Count a step with its mean loss."""
        self.waiting.append((loss.detach(), samples))
        self.samples, self.steps = self.samples + samples, self.steps + 1
        if len(self.waiting) == 256:
            self.sum()

    def sum(self) -> Tensor:
        """The sum of the losses of all samples so far."""
        if self.waiting:
            losses = torch.stack([loss for loss, _ in self.waiting]).double().flatten()
            self.total = self.total + losses @ losses.new_tensor([samples for _, samples in self.waiting])
            self.waiting = []
        return self.total


def train(training: Training) -> Iterator[Observation]:
    """Train until the stopping rule or the budget ends it, one observation at each evaluation point.

    The observation that ends it carries the reason. Between two observations everything that the next step depends
    on stands in `training`: weights, optimiser, masks, observations, the rule's memory, and inside an epoch where it
    and the global generators stand. Evaluating inside an epoch does not change what is trained.
    """
    going: _Pass | None = None
    while not training.ended:
        since = perf_counter()
        training.model.train()
        seen, going = _stretch(training, going)
        training.stream = {} if going is None else {"done": going.done, "states": going.states}
        since = training.spent("train", since)
        training.observations.append(_judge(training, seen, since))
        yield training.observations[-1]


def _stretch(training: Training, going: _Pass | None) -> tuple[Observation, _Pass | None]:
    """Train to the next evaluation point; what was seen, and the epoch in progress if it is inside one."""
    recipe, epoch = training.recipe, training.epoch
    length = feed.length(training.data.train, recipe.batch_size)
    here = epoch, int(training.stream.get("done", 0))
    until, upto = next_point(here, training.every or 1.0, length, (training.budget, *training.stops))
    tally = _Tally(torch.zeros((), dtype=torch.float64, device=training.runtime.device))
    if training.stream and going is None:
        going = _taken_up(training)
    while True:
        seed = derive(recipe.seed, training.role, training.level, epoch)
        with seeded(seed) if going is None or going.states is None else drawing_on(going.states):
            going = going or _Pass(epoch, _source(training, seed))
            _steps(training, going, tally, upto if epoch == until else None, length)
            going.states = None if going.over else captured()
        if not going.over:
            break
        epoch, going = epoch + 1, None
        if (epoch, 0) >= (until, upto):
            break
    at = epoch + (going.done / length if going is not None and length else 0.0)
    seen = Observation(
        float(at), training.step + tally.steps, learning_rate=tally.rate, train_loss=_mean(training, tally)
    )
    return seen, going


def _source(training: Training, seed: int) -> Iterator[Batch]:
    """An epoch's batches, in the order of its seed."""
    split, generator = training.data.train, Generator().manual_seed(seed)
    device = None if isinstance(split, Split) else training.runtime.device  # in memory: it has been moved as a whole
    return batches(split, training.recipe.batch_size, generator=generator, device=device)


def _taken_up(training: Training) -> _Pass:
    """The epoch in which the training was left: its batches, those that were trained on gone by."""
    seed = derive(training.recipe.seed, training.role, training.level, training.epoch)
    with seeded(seed):
        source = _source(training, seed)
        for _ in range(training.stream["done"]):
            next(source)
    return _Pass(training.epoch, source, training.stream["done"], training.stream["states"])


def _mean(training: Training, tally: _Tally) -> float | None:
    """The mean training loss of a stretch over all processes, None without a step; ValueError if it is not finite."""
    if not tally.steps:  # a loader that told a greater length than it has
        return None
    total = tally.sum()
    both = torch.stack((total, total.new_tensor(tally.samples)))
    loss_sum, count = training.runtime.total(both).tolist()
    mean = loss_sum / count
    if not math.isfinite(mean):
        where = f"{training.role} {training.level}, epoch {training.epoch + 1}"
        raise ValueError(f"training diverged: the loss is {mean} at {where}; a lower learning rate may help")
    return mean


def _judge(training: Training, seen: Observation, since: float) -> Observation:
    """Validate, let the rule measure and decide."""
    recipe = training.recipe
    worth = evaluate(training.model, training.data.validation, recipe.judge, training.runtime)
    since = training.spent("validate", since)
    seen = dataclasses.replace(seen, validation_loss=worth.loss, validation_accuracy=worth.accuracy)
    reason = None
    if training.average is not None:
        names, norms = training.average.names, training.average.values.tolist()
        averages = {f"value:gradient flow (ema), {name}": norm for name, norm in zip(names, norms, strict=True)}
        seen = dataclasses.replace(seen, values=averages)
    if training.rule is not None:
        context = _context(training, seen)
        values, training.memory = training.rule.measure(context, training.memory)
        cost = {f"cost:{what} samples": count for what, count in context.cost.items()}
        seen = dataclasses.replace(seen, values={**seen.values, **values, **cost})
        reason = training.rule.stop([*training.observations, seen])
    if reason is None and seen.epoch >= training.budget:
        reason = f"trained all {training.budget} epochs"
    training.spent("measure", since)
    return dataclasses.replace(seen, reason=reason)


def _context(training: Training, seen: Observation) -> Context:
    average = training.average
    now: dict[str, Any] = {
        "model": training.model,
        "masks": training.masks,
        "level": training.level,
        "observation": seen,
        "loss": training.recipe.loss,
        "gradients": {} if average is None else dict(zip(average.names, average.values.tolist(), strict=True)),
        "history": tuple(training.observations),
    }
    if training.surroundings is None:
        return Context(**now)
    return dataclasses.replace(training.surroundings, **now, flows={}, cost={})


def _steps(training: Training, going: _Pass, tally: _Tally, upto: int | None, length: int | None) -> None:
    """Train on the batches of an epoch, to its end or until `upto` of its steps are done."""
    recipe, runtime, model, optimizer = training.recipe, training.runtime, training.model, training.optimizer
    forward, stepper = runtime.parallel(model), runtime.steps(optimizer)
    bases = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    bound, hooks, hooked = bind(model, training.masks), recipe.hooks, recipe.hooks != Hooks()
    bound.apply_()
    if not going.done:
        clear_state_(model, training.masks, optimizer)
    settled = keeps_zeros(optimizer) and hooks.after_step is None  # a step moves no pruned weight
    tally.rate = tally.rate or bases[0]
    for whole in going.source:
        batch, weight = feed.part(whole, training.data.train, runtime)
        progress = (going.epoch + (going.done / length if length else 0.0)) / training.budget
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            tally.rate = group["lr"] = base * recipe.schedule(min(progress, 1.0))
        moment = _moment(training, going, tally, progress) if hooked else None
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = _loss(recipe, forward, batch, weight, moment)
        runtime.backward(loss)
        runtime.unscale(stepper)
        if hooks.on_gradients is not None and moment:
            hooks.on_gradients(moment)
        _mask_and_clip(training, bound)
        stepper.step()
        if hooks.after_step is not None and moment:
            hooks.after_step(moment)
        if not settled:
            bound.apply_()
        if hooks.update_masks is not None and moment:
            bound = _update(training, bound, hooks.update_masks(moment))
        tally.add(loss, feed.size(whole) / (runtime.world if batch is not whole else 1))
        going.done += 1
        del whole, batch  # freed before the next batch is made, which then lies where this one did, in the cache
        if going.done == upto:
            break
    else:
        going.over = True
    bound.apply_()
    if not going.done:
        raise ValueError(f"the training split of {training.data.name!r} yielded no batch: allowed is at least one")


def _loss(recipe: Recipe, forward: nn.Module, batch: Batch, weight: float, moment: Moment | None) -> Tensor:
    loss = recipe.loss(forward, feed.channels_last(batch) if recipe.channels_last else batch)
    if weight != 1.0:
        loss = loss * weight
    if recipe.hooks.penalty is not None and moment:
        loss = loss + recipe.hooks.penalty(moment)
    return loss


def _mask_and_clip(training: Training, bound: Bound) -> None:
    """Clear the gradients of pruned weights, keep the average of what is left, and clip it."""
    limit = training.recipe.clip
    norms = bound.mask_and_measure_grads_() if limit is not None or training.averaging else None
    if norms is None:
        bound.mask_grads_()
    if training.averaging:
        training.average = _average(training, bound, norms)
    if limit is not None:
        clip_(bound.parameters, limit, None if norms is None else norms.total)


def _average(training: Training, bound: Bound, norms: Norms | None) -> GradientAverage:
    """The average of gradient norms with this step's, which are mostly known from masking."""
    if norms is None:
        return gf_ema(_gradients(bound, training.masks), training.average)
    return averaged(tuple(training.masks), norms.of_held(), training.average)


def _moment(training: Training, going: _Pass, tally: _Tally, progress: float) -> Moment:
    done = going.epoch, training.step + tally.steps
    return Moment(training.model, training.masks, training.optimizer, training.level, *done, progress)


def _gradients(bound: Bound, masks: Masks) -> dict[str, Tensor | None]:
    """The masked gradients of the prunable tensors."""
    return {name: hold.weight.grad for name, hold in zip(masks, bound.holds, strict=True)}


def _update(training: Training, bound: Bound, masks: Masks | None) -> Bound:
    """Adopt new masks: weights switched on again start from +0.0 with clean optimiser state."""
    if masks is None:
        return bound
    apply_(training.model, masks)
    both = {name: mask & training.masks[name] for name, mask in masks.items()}
    clear_state_(training.model, both, training.optimizer)
    training.masks = masks
    return bind(training.model, masks)
