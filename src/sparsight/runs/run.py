"""The whole method, as a generator over levels: score, allocate, restart, train, record; then choose and evaluate."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsight.measure.flow import GradientAverage, Probe, probe
from sparsight.model.collapse import find_collapse
from sparsight.model.left_out import warn
from sparsight.model.masks import all_kept, counts, left_out
from sparsight.numerics.seeds import derive, seeded
from sparsight.pruning.restart import composed, reweighted
from sparsight.records.identity import content_id
from sparsight.records.journal import Event, Journal, LevelResult, Nowhere, Watch
from sparsight.records.record import Evaluated, Evaluation, LevelRecord, LevelTimes, describe
from sparsight.runs.layers import layers_and_indices
from sparsight.runs.recipe import Level, Recipe
from sparsight.runs.references import parts_of, references
from sparsight.train.batches import batches, move, to_device
from sparsight.train.evaluate import evaluate
from sparsight.train.loop import Training, train
from sparsight.train.observation import Observation
from sparsight.train.parallel import Precision, Runtime, runtime
from sparsight.train.stop import Context, PerLevel, Reference, needs
from sparsight.types import Allocation, Batch, Data, Masks, Split, StateDict

Keep = Literal["all", "chosen", "last"]


@dataclass
class _Run:
    """What a run in progress holds."""

    recipe: Recipe
    model: nn.Module
    data: Data
    runtime: Runtime
    journal: Journal
    watch: Watch
    initial: StateDict
    rewind_point: StateDict
    masks: Masks
    dense: StateDict | None = None
    history: list[LevelRecord] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)  # what the stopping rules compare with
    probe: Probe | None = None  # what they measure on


def run(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    *,
    device: str = "auto",
    precision: Precision = "no",
    journal: Journal | None = None,
    watch: Watch | None = None,
) -> Iterator[LevelResult]:
    """Prune `model` by `recipe` on `data`, one result after each level; the dense control, if any, comes last.

    The model passed in stays as it is: a copy of it is trained. Everything that a level depends on is derived
    from the recipe's seed and the level's number, so that the same call gives the same bits on the same machine
    with the same number of threads, also when it was interrupted and goes on from a journal.

    To keep a run on disk, to resume it, to have it choose a level and evaluate it on the test split, use
    `sparsight.execute`.

    A `LeftOutWarning` names the matrix-shaped parameters that are not prunable. Errors: a model in which nothing is
    prunable; a split that yields nothing; NaN weights or a diverging loss; a count that cannot be met. Each names the
    tensor or the place.
    """
    masks = all_kept(model, include=recipe.include, exclude=recipe.exclude)
    warn(left_out(model, include=recipe.include, exclude=recipe.exclude), stacklevel=2)
    where = runtime(device, precision)
    return _run(recipe, model, data, masks, where, journal or Nowhere(), watch or (lambda event: None))


def _run(
    recipe: Recipe, model: nn.Module, data: Data, masks: Masks, where: Runtime, journal: Journal, watch: Watch
) -> Iterator[LevelResult]:
    module = _copy_of(model).to(where.device)
    if recipe.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = dataclasses.replace(
        data, train=to_device(data.train, where.device), validation=to_device(data.validation, where.device)
    )
    initial = snapshot(module)
    state = _Run(
        recipe, module, data, where, journal, watch, initial, journal.rewind_point() or initial,
        {name: mask.to(where.device) for name, mask in masks.items()},
    )  # fmt: skip
    _take_up(state)
    if "probe" in needs(recipe.stop):
        state.probe = probe(data.train, recipe.probes, seed=recipe.seed, batch_size=recipe.batch_size)
        journal.keep_probe(state.probe)
        if not state.history:
            _try_rules(state)
    while not isinstance(level := recipe.next_level(state.history), str) and level is not None:
        yield _level(state, level)
    if recipe.control and not any(r.role == "control" for r in journal.levels()):
        yield _control(state)


def _copy_of(model: nn.Module) -> nn.Module:
    """A copy of the model. ValueError where torch cannot copy it, as with weights that are computed by hooks."""
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"cannot copy the {type(model).__name__} to train it: {error}; weights that torch.nn.utils.prune or "
            "weight_norm compute must be made plain first, by prune.remove or remove_weight_norm"
        ) from error


def _try_rules(state: _Run) -> None:
    """Measure once what the rules measure, so that a network with which they fail is refused before it is trained."""
    stop = state.recipe.stop
    for rule in (stop.rule, *stop.levels.values()) if isinstance(stop, PerLevel) else (stop,):
        if "probe" in needs(rule):
            seen = Observation(0.0, 0)
            batches = () if state.probe is None else state.probe.batches
            rule.measure(Context(state.model, state.masks, 0, seen, probe=batches, loss=state.recipe.loss), {})


def _take_up(state: _Run) -> None:
    """Go on after the levels that are in the journal."""
    done = [record for record in state.journal.levels() if record.role == "level"]
    if not done:
        return
    state.history = list(done)
    weights, masks = state.journal.restore(done[-1])
    state.model.load_state_dict(weights)
    state.masks = {name: mask.to(state.runtime.device) for name, mask in masks.items()}
    if state.recipe.score_from == "dense":
        state.dense = state.journal.restore(done[0])[0]
    for number in range(1, len(done) + 1):
        _compare_with(state, done[:number], lambda number=number: state.journal.restore(done[number - 1]))


def _level(state: _Run, rounds: Level) -> LevelResult:
    """One prune-restart-train cycle."""
    recipe, since = state.recipe, perf_counter()
    number = len(state.history)
    allocation = _prune(state, rounds)
    kept, total = counts(allocation.masks)
    last = recipe.is_last(state.history, kept, total)
    restart = recipe.restart_of(last)
    if rounds:
        state.model = restart(state.model, state.rewind_point, allocation)
    pruning = perf_counter() - since
    training = _training(state, allocation.masks, "level", number, recipe.budget(number, last), last)
    training.seconds["prune"] = pruning
    state.masks = _train(state, training)
    if number == 0:
        state.dense = snapshot(state.model) if recipe.score_from == "dense" else None
    operation = {"rounds": describe(rounds), "score": describe(recipe.score), "score_from": recipe.score_from}
    if rounds:
        operation["restart"] = describe(restart)
    operation |= {"epochs": training.budget, "evaluate_every": training.every, "stop": describe(training.rule)}
    result = _result(state, training, allocation, operation, state.history[-1].id if state.history else None)
    state.history.append(result.record)
    _compare_with(state, state.history, lambda: (result.weights, result.masks))
    return result


def _compare_with(state: _Run, done: Sequence[LevelRecord], network: Callable[[], tuple[StateDict, Masks]]) -> None:
    """Make the last level of `done` a reference, in every part that a stopping rule asks for."""
    roles = parts_of(done) if len(done) == len(state.history) else parts_of(done) - {"parent"}
    roles &= needs(state.recipe.stop)
    if roles:
        rewound = state.recipe.rewind_epoch, state.rewind_point
        state.references |= references(done[-1], roles, network(), rewound)


def _control(state: _Run) -> LevelResult:
    """The dense network from the same initial weights, trained for as many epochs as all levels together."""
    epochs = max(1, round(sum(record.epochs for record in state.history)))
    state.model.load_state_dict(state.initial)
    masks = {name: torch.ones_like(mask) for name, mask in state.masks.items()}
    training = _training(state, masks, "control", len(state.history), epochs)
    _train(state, training)
    return _result(state, training, Allocation(masks), {"control": f"dense, {epochs} epochs", "stop": None}, None)


def _prune(state: _Run, rounds: Level) -> Allocation:
    """The level's rounds of score and allocate, without training between them.

    Each scores the network that the rounds before leave, factors included, and its own factors come on top. A round
    that may bring weights back chooses anew: from the network as the level found it, without earlier factors.
    """
    allocation = Allocation(state.masks)
    if not rounds:
        return allocation
    recipe, model = state.recipe, state.model
    if recipe.score_from != "current":
        source = state.dense if recipe.score_from == "dense" else state.initial
        if source is None:
            raise ValueError("scores from the dense network need a first level that trains it: got rounds at level 0")
        model = copy.deepcopy(model)
        model.load_state_dict(source)
    examples = _examples(state)
    for allocator in rounds:
        earlier = allocation.multipliers if getattr(allocator, "monotone", True) else None
        at = model if earlier is None else reweighted(copy.deepcopy(model), earlier)
        scores = recipe.score(at, allocation.masks, examples)
        allocation = composed(earlier, allocator.plan(scores, allocation.masks))
    return allocation


def _surroundings(state: _Run, training: Training) -> Context:
    """What a stopping rule may measure on beside the network in training."""
    recipe, split = state.recipe, state.data.validation
    return Context(
        training.model,
        training.masks,
        training.level,
        Observation(0.0, 0),
        tuple(batches(split, 1000)) if isinstance(split, Split) else split,
        tuple(move(batch, state.runtime.device) for batch in state.probe or ()),
        dict(state.references),
        recipe.score,
        recipe.rounds_after(training.level),
        _examples(state) if "examples" in needs(training.rule) else (),
    )


def _examples(state: _Run) -> Sequence[Batch]:
    """The scorer's batches: the first of a shuffle of the training split, the same at every level."""
    recipe = state.recipe
    if not recipe.score_batches:
        return ()
    seed = derive(recipe.seed, "score")
    generator = torch.Generator().manual_seed(seed)
    split = state.data.train
    if isinstance(split, Split):
        split = dataclasses.replace(split, augment=None)
    with seeded(seed):
        found = islice(
            batches(split, recipe.batch_size, generator=generator, device=state.runtime.device), recipe.score_batches
        )
        return tuple(found)


def _one_sample(data: Data) -> Tensor | None:
    """Something of the shape of a training sample, without going through a loader; None where it is not known."""
    if isinstance(data.train, Split):
        return data.train.x[:1]
    shape = data.facts.get("input_shape")
    return None if shape is None else torch.ones((1, *shape))


def _training(
    state: _Run, masks: Masks, role: Literal["level", "control"], number: int, epochs: int, last: bool = False
) -> Training:
    """The training of a level from its start, or from where the journal says that it stood."""
    optimizer = state.recipe.optimizer(state.model.parameters())
    training = Training(
        state.model, masks, optimizer, state.recipe, state.data, state.runtime, number, role, budget=epochs
    )
    if role == "level":
        training.rule = state.recipe.rule(number, last)
        training.stops = (state.recipe.rewind_epoch,) if number == 0 else ()
        training.averaging = "gf_ema" in needs(state.recipe.stop)
        training.surroundings = _surroundings(state, training)
    stored = state.journal.progress()
    if stored is not None and (stored["role"], stored["level"]) == (role, number):
        state.model.load_state_dict(stored["weights"])
        optimizer.load_state_dict(stored["optimizer"])
        training.masks = {name: mask.to(state.runtime.device) for name, mask in stored["masks"].items()}
        training.memory, training.observations = stored["memory"], list(stored["observations"])
        training.seconds = dict(stored["seconds"])
        training.stream = stored["stream"]
        if stored["average"] is not None:
            training.average = GradientAverage(**stored["average"])
    return training


def _train(state: _Run, training: Training) -> Masks:
    """Train the level, keeping its progress at each evaluation; the masks at its end."""
    kept, total = counts(training.masks)
    about = (training.role, training.level, training.budget, kept, total)
    state.watch(Event("begin", *about))  # type: ignore[arg-type]
    for seen in train(training):
        first = training.role == "level" and training.level == 0
        if first and seen.epoch == state.recipe.rewind_epoch:
            state.rewind_point = snapshot(state.model)
            state.journal.keep_rewind_point(state.rewind_point)
        if seen.reason is None:
            since = perf_counter()
            state.journal.keep_progress(_progress(training))
            training.spent("store", since)
        state.watch(Event("epoch", *about, observation=seen))  # type: ignore[arg-type]
    return training.masks


def _progress(training: Training) -> dict[str, Any]:
    return {
        "role": training.role,
        "level": training.level,
        "weights": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "masks": training.masks,
        "memory": training.memory,
        "stream": training.stream,
        "average": _fields(training.average) if training.average is not None else None,
        "observations": training.observations,
        "seconds": training.seconds,
    }


def _fields(average: GradientAverage) -> dict[str, Any]:
    return {f.name: getattr(average, f.name) for f in dataclasses.fields(average)}


def _result(
    state: _Run, training: Training, allocation: Allocation, operation: dict[str, Any], parent: str | None
) -> LevelResult:
    """Record a trained level, and keep it."""
    weights, masks = snapshot(state.model, "cpu"), {n: m.cpu() for n, m in training.masks.items()}
    kept, total = counts(masks)
    layers, indices = layers_and_indices(state.model, training.masks, state.recipe.pq)
    record = LevelRecord(
        level=training.level,
        role=training.role,  # type: ignore[arg-type]
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
        observations=tuple(training.observations),
        epochs=training.observations[-1].epoch,
        steps=training.observations[-1].step,
    )
    spent = {f.name: training.seconds.get(f.name, 0.0) for f in dataclasses.fields(LevelTimes)[2:]}
    times = LevelTimes(training.level, record.role, **spent)
    result = state.journal.keep_level(LevelResult(record, times, weights, masks))
    state.watch(
        Event("done", record.role, record.level, training.budget, kept, total, training.observations[-1], result.record)
    )
    return result


def snapshot(model: nn.Module, device: str | torch.device | None = None) -> dict[str, Tensor]:
    """The state dict by value: later training does not change it."""
    return {
        name: value.detach().to(device, copy=True) if device is not None else value.detach().clone()
        for name, value in model.state_dict().items()
    }


def judge_on_test(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    networks: Iterable[tuple[LevelRecord, StateDict]],
    *,
    device: str = "auto",
    precision: Precision = "no",
) -> Evaluation | None:
    """Evaluate finished networks on the test split, which is read here and nowhere else. None without a test split."""
    if data.test is None:
        return None
    where = runtime(device, precision)
    module, split = copy.deepcopy(model).to(where.device), to_device(data.test, where.device)
    entries = []
    for record, weights in networks:
        module.load_state_dict(weights)
        worth = evaluate(module, split, recipe.judge, where)
        entries.append(Evaluated(record.level, record.role, record.id, worth.accuracy, worth.loss, worth.samples))
    return Evaluation(tuple(entries))
