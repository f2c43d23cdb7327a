"""`sparsight study FILE --dry-run`: what will run, what is shared, and about how long it takes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from sparsight.cli.study_trials import Planned
from sparsight.numerics import format as words
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.describe import describe
from sparsight.records.files import canonical
from sparsight.records.folder import RunFolder
from sparsight.records.trials import placed, stored
from sparsight.runs.budget import Budgeted
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Done, Listed, Until
from sparsight.train.batches import step_size, steps_per_epoch
from sparsight.train.plan import TrainingPlan
from sparsight.types import Split
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo

STEPS = 20
"""Training steps of a quick measurement."""

Setting = tuple[str, str]
"""Model and data."""


def forecast(plans: Sequence[Planned], out: Path, workers: int, threads: int) -> str:
    """What a study would do, in a few lines."""
    trials = placed([plan.trial for plan in plans], out)
    plans = [replace(plan, trial=trial) for plan, trial in zip(plans, trials, strict=True)]
    found = {plan.trial.key: stored(out / "trials" / plan.trial.key) for plan in plans}
    todo = [plan for plan in plans if not found[plan.trial.key].get("done")]
    lines = [f"{words.plural(len(plans), 'trial')}, {len(plans) - len(todo)} of them finished; to run:"]
    counted = Counter((plan.trial.label, *_setting(plan), _epochs_told(plan.recipe)) for plan in todo)
    width = max((len(label) for label, *_ in counted), default=0)
    for (label, model, data, epochs), number in counted.items():
        lines.append(f"  {label:<{width}}  {number} × {model} on {data}, {epochs}")
    starts = Counter(key for plan in todo if (key := _start(plan)) is not None)
    saved = sum((number - 1) * float(key.rpartition(" ")[2]) for key, number in starts.items())
    several = [number for number in starts.values() if number > 1]
    if several:
        lines.append(
            f"Shared: {sum(several)} trials start from {words.plural(len(several), 'dense network')}, each trained "
            f"once. That saves {saved:g} epochs, which still count as a cost of every trial."
        )
    return "\n".join([*lines, *_time(plans, todo, out, workers, threads)])


def _time(plans: Sequence[Planned], todo: Sequence[Planned], out: Path, workers: int, threads: int) -> list[str]:
    measured = _of_finished(plans, out)
    total, sources = 0.0, []
    for setting in dict.fromkeys(map(_setting, todo)):
        of = [plan for plan in todo if _setting(plan) == setting]
        epoch, how = measured.get(setting), "from finished trials"
        if epoch is None:
            epoch, how = _measure(of[0], threads), f"measured now, {STEPS} steps"
        epochs = sum(_epochs(plan.recipe) for plan in of)
        starts = Counter(key for plan in of if (key := _start(plan)) is not None)
        epochs -= sum((number - 1) * float(key.rpartition(" ")[2]) for key, number in starts.items())
        total += epoch * epochs
        sources.append(f"{setting[0]} on {setting[1]}: {epoch:.2g} s per epoch, {how}")
    if not todo:
        return []
    by = words.plural(workers, "worker")
    told = f"About {words.duration(total / workers)} with {by}, plus a few seconds to start each trial:"
    return [told, *(f"  {line}" for line in sources)]


def _setting(plan: Planned) -> Setting:
    return plan.trial.model, plan.trial.data


def _epochs(recipe: Recipe) -> float:
    """Epochs of a run, at most."""
    search = recipe.search
    if isinstance(search, Budgeted):
        whole = search.epochs
    elif isinstance(search, Listed):
        whole = sum(level.train.epochs for level in search.levels)
    elif isinstance(search, Until):
        levels = 30 if search.levels is None else search.levels
        first = (search.first or search.level).train.epochs
        whole = first + max(0, levels - 1) * search.level.train.epochs
        whole += (search.last or search.level).train.epochs if levels else 0
    else:
        whole = recipe.plan.epochs
    return whole * (2 if recipe.control else 1)


def _epochs_told(recipe: Recipe) -> str:
    exact = isinstance(recipe.search, Budgeted | Listed)
    control = ", half of them for the dense control" if recipe.control else ""
    return f"{'' if exact else 'at most '}{_epochs(recipe):g} epochs each{control}"


def _start(plan: Planned) -> str | None:
    """The key of a shared level 0 and its epochs; None if the trial shares none."""
    recipe, first = plan.recipe, plan.recipe.search.next(())
    if isinstance(first, Done) or first.prune or ":" in plan.trial.recipe:
        return None
    what = [*_setting(plan), plan.trial.seed, recipe.rewind_epoch, "gf_ema" in recipe.needs, describe(first.train)]
    return f"{canonical(what)} {first.train.epochs}"


def _of_finished(plans: Sequence[Planned], out: Path) -> dict[Setting, float]:
    """Mean seconds per epoch of the finished trials, validation and saving included."""
    found: dict[Setting, list[float]] = {}
    for plan in plans:
        folder = out / "trials" / plan.trial.key
        if stored(folder).get("done"):
            with RunFolder.open(folder) as one:
                epochs, spent = sum(level.epochs for level in one.levels()), sum(t.total for t in one.times())
            if epochs:
                found.setdefault(_setting(plan), []).append(spent / epochs)
    return {setting: fmean(each) for setting, each in found.items()}


def _measure(plan: Planned, threads: int) -> float:
    """Seconds per epoch, from a few steps of a second pass: the first one loads and compiles."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = readers.prepared(readers.load(plan.trial.data))
        network = zoo.build(plan.trial.model, source, plan.trial.seed)
        size, share = step_size(source.train, plan.recipe.plan.batch_size), 1.0
        if isinstance(source.train, Split) and len(source.train) > STEPS * size:
            few = Split(source.train.x[: STEPS * size], source.train.y[: STEPS * size], augment=source.train.augment)
            share = (steps_per_epoch(source.train, size) or STEPS) / STEPS
            source = dataclasses.replace(source, train=few)
        level = Level(train=TrainingPlan(epochs=1, batch_size=size))
        recipe = Recipe(name="probe", score=Magnitude(), levels=(level,))
        found = [next(run(recipe, network, source, device="cpu")).times for _ in range(2)]
        return found[-1].train * share + found[-1].validate
    finally:
        torch.set_num_threads(before)
