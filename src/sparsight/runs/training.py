"""The training of a level: from its start, or from its state in the journal, to its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsight.measure.flow import GradientAverage
from sparsight.measure.pq import PowerSums, group_sums
from sparsight.model.collapse import find_collapse
from sparsight.model.masks import counts
from sparsight.model.names import named
from sparsight.records.identity import content_id
from sparsight.records.journal import Event, LevelResult
from sparsight.records.record import PARTS, Layer, LevelRecord, LevelTimes, from_json, to_json
from sparsight.runs.rounds import scored_batches
from sparsight.runs.state import RunState, snapshot
from sparsight.train.batches import batches, check_parts, move
from sparsight.train.loop import train
from sparsight.train.observation import Observation
from sparsight.train.plan import TrainingPlan
from sparsight.train.stop import Context
from sparsight.train.training import Training
from sparsight.types import Allocation, Data, Masks, Split


def begin(state: RunState, masks: Masks, role: Literal["level", "control"], plan: TrainingPlan) -> Training:
    """The training of the level after those in `state.history`."""
    recipe, number = state.recipe, len(state.history)
    check_parts(state.data, plan.batch_size, state.runtime)
    optimizer = plan.optimizer(state.model.parameters())
    training = Training(state.model, masks, optimizer, plan, state.data, state.runtime, number, role, recipe.seed)
    training.judge, training.channels_last = recipe.judge, recipe.channels_last
    if role == "level":
        training.stops = (recipe.rewind_epoch,) if number == 0 else ()
        training.averaging = "gf_ema" in recipe.needs
        training.surroundings = _surroundings(state, training)
    stored = state.journal.progress()
    if stored is not None:
        try:
            take_up(training, stored)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise UnfitProgress(f"it does not fit level {number}: {' '.join(str(error).split())}") from error
    return training


class UnfitProgress(ValueError):
    """The stored state of a level does not fit the level."""


def take_up(training: Training, stored: Mapping[str, Any]) -> None:
    """Continue from the state that `progress` stored, if it belongs to this level."""
    if (stored["role"], stored["level"]) != (training.role, training.level):
        return
    device, masks = training.runtime.device, stored["masks"]
    if {n: (m.dtype, m.shape) for n, m in masks.items()} != {n: (m.dtype, m.shape) for n, m in training.masks.items()}:
        raise ValueError("its masks do not fit the network's weights")
    training.model.load_state_dict(stored["weights"])
    settings = [{*group} for group in training.optimizer.param_groups]
    training.optimizer.load_state_dict(stored["optimizer"])
    for needed, group in zip(settings, training.optimizer.param_groups, strict=True):
        if needed - {*group}:
            raise ValueError(f"its optimiser lacks {', '.join(sorted(needed - {*group}))}")
    training.masks = {name: mask.to(device) for name, mask in masks.items()}
    training.memory, training.stream = stored["memory"], dict(stored["stream"])
    training.observations = [from_json(Observation, seen, "observations") for seen in stored["observations"]]
    training.seconds = {str(what): 0.0 + seconds for what, seconds in stored["seconds"].items()}
    if stored["average"] is not None:
        training.average = GradientAverage(**stored["average"])


def _surroundings(state: RunState, training: Training) -> Context:
    """What a stopping rule may use besides the network in training."""
    recipe, split = state.recipe, state.data.validation
    return Context(
        training.model,
        training.masks,
        training.level,
        Observation(0.0, 0),
        tuple(batches(split, 1000)) if isinstance(split, Split) else split,
        tuple(move(batch, state.runtime.device) for batch in state.probe or ()),
        dict(state.references),
        recipe.scoring.scorer,
        recipe.search.upcoming(state.history),
        scored_batches(state) if "examples" in training.plan.stop.needs else (),
    )


def run_through(state: RunState, training: Training) -> Masks:
    """Train the level, storing its progress at each evaluation; returns its final masks."""
    kept, total = counts(training.masks)
    about = (training.role, training.level, training.plan.epochs, kept, total)
    state.watch(Event("begin", *about))
    for seen in train(training):
        first = training.role == "level" and training.level == 0
        if first and 0 < state.recipe.rewind_epoch == seen.epoch:  # at 0: the initial weights
            state.rewind_point = snapshot(state.model)
            state.journal.keep_rewind_point(state.rewind_point)
        if seen.reason is None:
            since = perf_counter()
            state.journal.keep_progress(progress(training))
            training.spent("store", since)
        state.watch(Event("epoch", *about, observation=seen))
    return training.masks


def progress(training: Training) -> Mapping[str, Any]:
    """Everything that the rest of a training depends on, for `take_up`."""
    average = training.average
    return {
        "role": training.role,
        "level": training.level,
        "weights": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "masks": training.masks,
        "memory": training.memory,
        "stream": training.stream,
        "average": None if average is None else {f.name: getattr(average, f.name) for f in dataclasses.fields(average)},
        "observations": to_json(training.observations),
        "seconds": training.seconds,
    }


def keep(
    state: RunState, training: Training, allocation: Allocation, operation: Mapping[str, Any], parent: str | None
) -> LevelResult:
    """Record a trained level in the journal."""
    weights, masks = snapshot(state.model, "cpu"), {n: m.cpu() for n, m in training.masks.items()}
    kept, total = counts(masks)
    layers, indices = layers_and_indices(state.model, training.masks, state.recipe.pq)
    record = LevelRecord(
        level=training.level,
        role=training.role,
        id=content_id(weights, masks),
        parent=parent,
        operation=operation,
        kept=kept,
        total=total,
        layers=layers,
        pq_pairs=state.recipe.pq,
        pq=indices,
        groups=allocation.groups,
        floors=allocation.floors,
        collapsed=tuple(layer.name for layer in layers if layer.kept == 0),
        collapse=find_collapse(training.masks, state.model, _one_sample(state.data)),
        metric=training.metric,
        observations=tuple(training.observations),
        epochs=training.observations[-1].epoch,
        steps=training.observations[-1].step,
    )
    spent = {part: training.seconds.get(part, 0.0) for part in PARTS}
    times = LevelTimes(training.level, record.role, **spent)
    result = state.journal.keep_level(LevelResult(record, times, weights, masks))
    about = (record.role, record.level, training.plan.epochs, kept, total)
    state.watch(Event("done", *about, training.observations[-1], result.record))
    return result


def _one_sample(data: Data) -> Tensor | None:
    """A tensor of the shape of a training sample, without using a loader; None if the shape is unknown."""
    if isinstance(data.train, Split):
        return data.train.x[:1]
    shape = data.facts.get("input_shape")
    return None if shape is None else torch.ones((1, *shape))


def layers_and_indices(
    model: nn.Module, masks: Masks, pairs: Sequence[tuple[float, float]]
) -> tuple[tuple[Layer, ...], tuple[float, ...]]:
    """The layers, and the PQ index of all alive weights for every (p, q) of `pairs`, in one pass.

    The index of a layer without alive weights is 0. Raises: ValueError for NaN or infinity in an alive weight.
    """
    parameters = named(model)
    exponents = tuple(sorted({e for pair in pairs for e in pair}))
    groups = group_sums({name: parameters[name] for name in masks}, masks, exponents, "layer")
    layers = tuple(
        Layer(name, tuple(masks[name].shape), sums.count, masks[name].numel(), _indices(sums, pairs))
        for name, sums in groups
    )
    return layers, _indices(PowerSums.merge([sums for _, sums in groups]), pairs)


def _indices(sums: PowerSums, pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(sums.index(p, q) for p, q in pairs)
