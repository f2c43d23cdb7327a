"""The loop: ordinary PyTorch, with two lines that hold the masks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from time import perf_counter

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import clip_grad_norm_

from sparsight.measure.flow import GradientAverage, gf_ema
from sparsight.measure.flow.gradients import averaged
from sparsight.model.hold import Bound, Norms, apply_, bind
from sparsight.model.stepping import clear_state_, keeps_zeros
from sparsight.numerics.exact import home
from sparsight.numerics.seeds import captured, derive, drawing_on, reseed, seeded
from sparsight.train.batches import (
    batches,
    channels_last,
    check_apart,
    own_part,
    sample_count,
    step_size,
    steps_per_epoch,
)
from sparsight.train.evaluate import evaluate
from sparsight.train.observation import Observation
from sparsight.train.plan import Hooks, Moment
from sparsight.train.stop import Context
from sparsight.train.training import LossSum, Pass, Training, next_point
from sparsight.types import Batch, Masks, Split


def train(training: Training) -> Iterator[Observation]:
    """Train until the stopping rule or the budget ends it; yields an observation at each evaluation point.

    The last observation carries the reason. Between observations, `training` holds everything that the next step
    depends on: weights, optimiser, masks, observations, the rule's memory, and inside an epoch its position and the
    states of the global generators. Evaluating inside an epoch does not affect training.
    """
    going: Pass | None = None
    training.runtime.broadcast_model_(training.model)
    if not training.plan.epochs and not training.observations:
        training.observations.append(_judge(training, Observation(0.0, 0), perf_counter()))
        yield training.observations[-1]
    while not training.ended:
        since = perf_counter()
        training.model.train()
        seen, going = _stretch(training, going)
        training.runtime.broadcast_model_(training.model)  # running averages differ between processes
        training.stream = {} if going is None else {"done": going.done, "states": going.states}
        since = training.spent("train", since)
        training.observations.append(_judge(training, seen, since))
        yield training.observations[-1]


def _stretch(training: Training, going: Pass | None) -> tuple[Observation, Pass | None]:
    """Train to the next evaluation point; returns the observation, and the epoch in progress if inside one."""
    plan, epoch = training.plan, training.epoch
    length = steps_per_epoch(training.data.train, step_size(training.data.train, plan.batch_size))
    here = epoch, int(training.stream.get("done", 0))
    until, upto = next_point(here, plan.evaluate_every, length, (plan.epochs, *training.stops))
    tally = LossSum(torch.zeros((), dtype=torch.float64, device=home(training.runtime.device)))
    if training.stream and going is None:
        going = _taken_up(training)
    while True:
        seed = derive(training.seed, training.role, training.level, epoch)
        with seeded(seed) if going is None or going.states is None else drawing_on(going.states):
            going = going or Pass(epoch, _source(training, seed))
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
    reseed(split, seed)
    device = None if isinstance(split, Split) else training.runtime.device  # a split in memory is already there
    size = step_size(split, training.plan.batch_size)
    return batches(split, size, generator=generator, device=device)


def _taken_up(training: Training) -> Pass:
    """The interrupted epoch, after its finished batches."""
    seed = derive(training.seed, training.role, training.level, training.epoch)
    with seeded(seed):
        source = _source(training, seed)
        for _ in range(training.stream["done"]):
            next(source)
    return Pass(training.epoch, source, training.stream["done"], training.stream["states"])


def _mean(training: Training, tally: LossSum) -> float | None:
    """The mean training loss over all processes; None without a step. Raises: ValueError if it is not finite."""
    if not tally.steps:  # the loader was shorter than its length
        return None
    total = tally.sum()
    both = torch.stack((total, total.new_tensor(tally.samples)))
    loss_sum, count = training.runtime.total(both).tolist()
    mean = loss_sum / count
    if not math.isfinite(mean):
        where = f"{training.role} {training.level}, epoch {training.epoch + 1}"
        raise ValueError(
            f"training diverged: the loss is {mean} at {where}; try a lower learning rate, and look for NaN or "
            "infinity in the data and in the weights that it starts from"
        )
    return mean


def _judge(training: Training, seen: Observation, since: float) -> Observation:
    """Validate, measure and decide, in the main process for all."""
    found, training.metric = training.runtime.broadcast(lambda: (_judged(training, seen, since), training.metric))
    return found


def _judged(training: Training, seen: Observation, since: float) -> Observation:
    plan = training.plan
    worth = evaluate(training.model, training.data.validation, training.judge, training.runtime)
    since = training.spent("validate", since)
    training.metric = worth.metric
    found = {"validation_loss": worth.loss, "validation_accuracy": worth.accuracy, "metrics": worth.others}
    seen = dataclasses.replace(seen, **found, samples=worth.samples)
    if training.average is not None:
        averages = {f"value:gradient flow (ema), {name}": norm for name, norm in training.average.by_name.items()}
        seen = dataclasses.replace(seen, values=averages)
    context = _context(training, seen)
    values, training.memory = plan.stop.measure(context, training.memory)
    cost = {f"cost:{what} samples": count for what, count in context.cost.items()}
    seen = dataclasses.replace(seen, values={**seen.values, **values, **cost})
    reason = plan.stop.stop([*training.observations, seen])
    if reason is None and seen.epoch >= plan.epochs:
        reason = f"trained all {plan.epochs} epochs" if plan.epochs else "evaluated without training"
    training.spent("measure", since)
    return dataclasses.replace(seen, reason=reason)


def _context(training: Training, seen: Observation) -> Context:
    now = Context(training.model, training.masks, training.level, seen)
    return dataclasses.replace(
        training.surroundings or now,
        masks=training.masks,
        observation=seen,
        loss=training.plan.loss,
        metric=training.metric,
        gradients={} if training.average is None else training.average.by_name,
        history=tuple(training.observations),
        flows={},
        cost={},
    )


def _steps(training: Training, going: Pass, tally: LossSum, upto: int | None, length: int | None) -> None:
    """Train on the batches of an epoch, to its end or for `upto` of its steps."""
    plan, runtime, model, optimizer = training.plan, training.runtime, training.model, training.optimizer
    stepper = runtime.steps(optimizer)
    bases = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
    bound, hooks, hooked = bind(model, training.masks), plan.hooks, plan.hooks != Hooks()
    bound.apply_()
    if not going.done:
        clear_state_(model, training.masks, optimizer)
    settled = keeps_zeros(optimizer) and hooks.after_step is None  # a step moves no pruned weight
    tally.rate = tally.rate or bases[0]
    for whole in going.source:
        if not training.step + tally.steps:
            check_apart(whole, training.data.train, runtime)
        batch, weight = own_part(whole, training.data.train, runtime)
        progress = (going.epoch + (going.done / length if length else 0.0)) / plan.epochs
        for group, base in zip(optimizer.param_groups, bases, strict=True):
            tally.rate = group["lr"] = base * plan.schedule(min(progress, 1.0))
        moment = _moment(training, going, tally, progress) if hooked else None
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            loss = _loss(training, batch, weight, moment)
        runtime.backward(loss)
        runtime.average_(bound.parameters)
        runtime.unscale(stepper)
        if hooks.on_gradients is not None and moment:
            hooks.on_gradients(moment)
        _mask_and_clip_(training, bound)
        stepper.step()
        if hooks.after_step is not None and moment:
            hooks.after_step(moment)
        if not settled:
            bound.apply_()
        if hooks.update_masks is not None and moment:
            bound = _update(training, bound, hooks.update_masks(moment))
        tally.add(loss, sample_count(whole) / (runtime.world if batch is not whole else 1))
        going.done += 1
        del whole, batch  # freed first: the next batch can then reuse their memory, which is in the cache
        if going.done == upto:
            break
    else:
        going.over = True
    bound.apply_()
    if not going.done:
        raise ValueError(f"the training split of {training.data.name!r} must yield at least one batch")


def _loss(training: Training, batch: Batch, weight: float, moment: Moment | None) -> Tensor:
    plan = training.plan
    loss = plan.loss(training.model, channels_last(batch) if training.channels_last else batch)
    if weight != 1.0:
        loss = loss * weight
    if plan.hooks.penalty is not None and moment:
        loss = loss + plan.hooks.penalty(moment)
    return loss


def _moment(training: Training, going: Pass, tally: LossSum, progress: float) -> Moment:
    done = going.epoch, training.step + tally.steps
    return Moment(training.model, training.masks, training.optimizer, training.level, *done, progress)


def _update(training: Training, bound: Bound, masks: Masks | None) -> Bound:
    """Adopt new masks: weights switched on again start from +0.0 with clean optimiser state."""
    if masks is None:
        return bound
    apply_(training.model, masks)
    both = {name: mask & training.masks[name] for name, mask in masks.items()}
    clear_state_(training.model, both, training.optimizer)
    training.masks = masks
    return bind(training.model, masks)


# -- gradients ------------------------------------------------------------------------------------------------


def _mask_and_clip_(training: Training, bound: Bound) -> None:
    """Clear the gradients of pruned weights, update the average of the others, and clip them."""
    limit = training.plan.clip
    norms = bound.mask_and_measure_grads_() if limit is not None or training.averaging else None
    if norms is None:
        bound.mask_grads_()
    if training.averaging:
        training.average = _average(training, bound, norms)
    if limit is not None:
        clip_(bound.parameters, limit, None if norms is None else norms.total)


def _average(training: Training, bound: Bound, norms: Norms | None) -> GradientAverage:
    """The average of gradient norms, updated with this step's, which masking may have computed."""
    if norms is not None:
        return averaged(tuple(training.masks), norms.of_held(), training.average)
    held = zip(training.masks, bound.holds, strict=True)
    return gf_ema({name: hold.weight.grad for name, hold in held}, training.average)


def clip_(parameters: Sequence[nn.Parameter], limit: float, norm: float | None = None) -> None:
    """Scale all gradients by min(1, limit / (norm + 1e-6)), with the norm of all gradients as one vector.

    A known `norm` saves computing it; otherwise this is `torch.nn.utils.clip_grad_norm_`. Skips parameters without a
    gradient; a NaN makes all gradients NaN.
    """
    if norm is None:
        clip_grad_norm_(parameters, limit)
        return
    factor = limit / (norm + 1e-6)
    if not factor >= 1:  # also for NaN
        with torch.no_grad():
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
