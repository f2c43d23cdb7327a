"""A run as a generator over levels: score, allocate, restart, train, record."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter

import torch
from torch import nn

from sparsight.measure.flow import probe
from sparsight.model.left_out import warn
from sparsight.model.masks import all_kept, counts, left_out, prunable
from sparsight.numerics.checks import check_gathered
from sparsight.numerics.seeds import hidden_state
from sparsight.records.identity import describe
from sparsight.records.journal import Journal, LevelResult, Nowhere, Watch
from sparsight.records.record import Evaluated, Evaluation, LevelRecord
from sparsight.records.starts import Starts
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.rounds import prune
from sparsight.runs.search import Done, check_next
from sparsight.runs.several import from_main, shared
from sparsight.runs.shared_start import trained
from sparsight.runs.state import RunState, snapshot
from sparsight.runs.training import begin, keep
from sparsight.train.batches import USUAL, step_size, to_device
from sparsight.train.evaluate import evaluate, try_judge
from sparsight.train.observation import Observation
from sparsight.train.parallel import Precision, runtime
from sparsight.train.stop import Context, FixedEpochs, Reference
from sparsight.types import Allocation, Data, Masks, Split, StateDict


class ResumeNote(UserWarning):
    """Results of a resumed run may differ from those of an uninterrupted one."""


def run(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    *,
    device: str = "auto",
    precision: Precision = "no",
    journal: Journal | None = None,
    watch: Watch | None = None,
    starts: Starts | None = None,
) -> Iterator[LevelResult]:
    """Prune `model` with `recipe` on `data`; yields a result per level, and last that of the dense control, if any.

    Trains a copy of the model. The recipe's seed and the level's number determine each level: the same call gives the
    same bits on the same machine with the same number of threads, even if it was interrupted and resumed.

    Under torchrun every process calls it and gets the same results; only the main one writes its journal. With a single
    process, runs share the training of the dense network through `starts`.

    `sparsight.execute` also keeps the run on disk, resumes it, chooses a level and evaluates it on the test split.

    Warns: `LeftOutWarning` of matrix-shaped parameters that are not prunable. Raises: ValueError for a model without
    prunable weights, an empty split, NaN weights, a diverging loss, or an unreachable count.
    """
    patterns = {"include": recipe.prunable.include, "exclude": recipe.prunable.exclude}
    masks = all_kept(model, **patterns)
    check_gathered(prunable(model, **patterns))
    warn(left_out(model, **patterns), stacklevel=2)
    _say_what_cannot_be_kept(data)
    where = runtime(device, precision)
    module = _copy_of(model).to(where.device)
    if recipe.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = dataclasses.replace(
        data, train=to_device(data.train, where.device), validation=to_device(data.validation, where.device)
    )
    journal, initial = shared(journal or Nowhere(), where), snapshot(module)
    masks, rewound = {name: mask.to(where.device) for name, mask in masks.items()}, journal.rewind_point() or initial
    state = RunState(recipe, module, data, where, journal, watch or (lambda event: None), initial, rewound, masks)
    state.starts = starts if where.world == 1 else None
    return _levels(state)


def _say_what_cannot_be_kept(data: Data) -> None:
    """Warn of random state in the loaders that is neither seeded for each epoch nor stored."""
    for name in ("train", "validation"):
        hidden = hidden_state(getattr(data, name))
        if hidden:
            warnings.warn(
                f"the {name} split draws from {', '.join(hidden)}, which a run cannot store: after a resume, results "
                "may differ. Draw from the global generators of torch, numpy or Python, or from generators of the "
                "loader and its samplers, which are seeded for each epoch",
                ResumeNote,
                stacklevel=3,
            )


def _copy_of(model: nn.Module) -> nn.Module:
    """A copy of the model. Raises: ValueError if torch cannot copy it."""
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(
            f"cannot copy the {type(model).__name__} to train it: {error}; undo torch.nn.utils.prune or weight_norm "
            "first, with prune.remove or remove_weight_norm"
        ) from error


def _levels(state: RunState) -> Iterator[LevelResult]:
    recipe = state.recipe
    _take_up(state)
    if not state.history:
        try_judge(state.model, state.data.validation, recipe.judge, state.runtime)
    if "probe" in recipe.needs:
        size = recipe.plan.batch_size or USUAL
        state.probe = probe(state.data.train, recipe.probes, seed=recipe.seed, batch_size=size)
        state.journal.keep_probe(state.probe)
        if not state.history:
            _try_rules(state)
    while not isinstance(level := recipe.search.next(state.history), Done):
        check_next(recipe.search, level)
        yield _level(state, level)
    if recipe.control and not any(r.role == "control" for r in state.journal.levels()):
        yield _control(state)


def _try_rules(state: RunState) -> None:
    """Run the measurements of the rules once, to fail before training if they cannot handle the network."""
    batches = () if state.probe is None else state.probe.batches
    for rule in state.recipe.search.rules:
        if "probe" in rule.needs:
            seen = Observation(0.0, 0)
            rule.measure(Context(state.model, state.masks, 0, seen, probe=batches, loss=state.recipe.plan.loss), {})


def _take_up(state: RunState) -> None:
    """Continue after the levels in the journal."""
    done = [record for record in state.journal.levels() if record.role == "level"]
    if not done:
        return
    state.history = list(done)
    weights, masks = state.journal.restore(done[-1])
    state.model.load_state_dict(weights)
    state.masks = {name: mask.to(state.runtime.device) for name, mask in masks.items()}
    if state.recipe.scoring.of == "dense":
        state.dense = state.journal.restore(done[0])[0]
    for number in range(1, len(done) + 1):
        _compare_with(state, done[:number], lambda number=number: state.journal.restore(done[number - 1]))


def _level(state: RunState, level: Level) -> LevelResult:
    """One prune-restart-train cycle."""
    recipe, since = state.recipe, perf_counter()
    allocation = from_main(state, lambda: prune(state, level.prune))
    level = recipe.search.after_pruning(state.history, level, *counts(allocation.masks))
    if level.prune:
        state.model = level.restart(state.model, state.rewind_point, allocation)
    pruning = perf_counter() - since
    training = begin(state, allocation.masks, "level", level.train)
    training.seconds["prune"] = pruning
    state.masks = trained(state, training)
    if not state.history:
        state.dense = snapshot(state.model) if recipe.scoring.of == "dense" else None
    result = keep(state, training, allocation, _operation(state, level), state.parent)
    state.history.append(result.record)
    _compare_with(state, state.history, lambda: (result.weights, result.masks))
    return result


def _operation(state: RunState, level: Level) -> dict[str, object]:
    """How a level was made, as JSON values."""
    plan, scoring = level.train, state.recipe.scoring
    made = {"rounds": describe(level.prune), "score": describe(scoring.scorer), "score_from": scoring.of}
    if level.prune:
        made["restart"] = describe(level.restart)
    if isinstance(state.data.train, Split):
        made["batch_size"] = step_size(state.data.train, plan.batch_size)
    return made | {"epochs": plan.epochs, "evaluate_every": plan.evaluate_every, "stop": describe(plan.stop)}


def _compare_with(state: RunState, done: Sequence[LevelRecord], network: Callable[[], tuple[StateDict, Masks]]) -> None:
    """Make the last level of `done` a reference in every role that a stopping rule needs."""
    record, metric = done[-1], done[-1].metric
    roles = {"parent"} if len(done) == len(state.history) else set()
    if record.level == 0 and record.kept == record.total:
        roles |= {"dense", "warmup"}
    if not math.isnan(record.worth) and not any(earlier.worth >= record.worth for earlier in done[:-1]):
        roles |= {"best"}
    roles &= state.recipe.needs
    if not roles:
        return
    value = math.nan if record.value is None else record.value
    whole = Reference(record.level, *network(), value, record.observations[-1].values)
    state.references |= dict.fromkeys(roles - {"warmup"}, whole)
    if "warmup" in roles:  # the dense network at the rewind point
        early = [o.value(metric) for o in record.observations if o.epoch <= state.recipe.rewind_epoch]
        known = [value for value in early if value is not None and not math.isnan(value)]
        best = max(known, default=math.nan, key=metric.worth)
        state.references["warmup"] = Reference(record.level, state.rewind_point, whole.masks, best)


def _control(state: RunState) -> LevelResult:
    """The dense network from the same initial weights, trained for as many epochs as all levels together."""
    epochs = max(1, round(sum(record.epochs for record in state.history)))
    state.model.load_state_dict(state.initial)
    masks = {name: torch.ones_like(mask) for name, mask in state.masks.items()}
    plan = dataclasses.replace(state.recipe.plan, epochs=epochs, stop=FixedEpochs(), evaluate_every=1.0)
    training = begin(state, masks, "control", plan)
    trained(state, training)
    return keep(state, training, Allocation(masks), {"control": f"dense, {epochs} epochs", "stop": None}, None)


def judge_on_test(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    networks: Iterable[tuple[LevelRecord, StateDict]],
    *,
    device: str = "auto",
    precision: Precision = "no",
) -> Evaluation | None:
    """Evaluate finished networks on the test split; nothing else reads it. None without a test split."""
    if data.test is None:
        return None
    where = runtime(device, precision)
    module, split = copy.deepcopy(model).to(where.device), to_device(data.test, where.device)
    entries = []
    for record, weights in networks:
        module.load_state_dict(weights)
        worth = evaluate(module, split, recipe.judge, where)
        found = worth.accuracy, worth.loss, worth.samples, worth.others
        entries.append(Evaluated(record.level, record.role, record.id, *found))
    return Evaluation(tuple(entries))
