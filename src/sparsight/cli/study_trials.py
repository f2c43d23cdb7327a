"""The trials of a study file, each checked as `sparsight run` would check it, and a forecast of what they take."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from sparsight.cli.errors import Misuse, NotFound
from sparsight.cli.recipes import names
from sparsight.cli.run_options import RunOptions, adapted_recipe, built, find, look_for_all
from sparsight.numerics import format as words
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.files import canonical
from sparsight.records.folder import RunFolder
from sparsight.records.identity import describe
from sparsight.records.record import must, to_json
from sparsight.records.trials import placed, stored
from sparsight.runs.budget import Budgeted
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import run
from sparsight.runs.search import Done, Listed, Until
from sparsight.runs.study import Trial
from sparsight.runs.study.file import Budget, Cell, Place, Source, StudyFile, cells, near, read_study_file
from sparsight.train.batches import step_size, steps_per_epoch
from sparsight.train.plan import TrainingPlan
from sparsight.types import Split
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo

OPTIONS = ("weights", "pretrained", "loss", "optimizer", "metric", "relative", "include", "exclude", "total_epochs")
"""Options of `sparsight run` that a study may set for its runs."""


STEPS = 20
"""Training steps of a quick measurement."""

Setting = tuple[str, str]
"""Model and data."""


@dataclass(frozen=True)
class Planned:
    """A trial, and the recipe that it makes."""

    trial: Trial
    recipe: Recipe


def planned(path: Path) -> list[Planned]:
    """The trials of a study file, in order. Raises: StudyFileError with file, line, key, value and what is accepted."""
    study, source = read_study_file(path)
    functions: dict[str, Callable[..., Recipe]] = {}
    for number, method in enumerate(study.methods):
        functions[method.recipe] = _function(source, ("methods", number, "recipe"), method.recipe)
    for name, value in study.arguments.items():
        known = {parameter for function in functions.values() for parameter in _hints(function)}
        if name not in known:
            raise source.error(("arguments", name), f"no recipe of the study has this argument, got {value!r:.80}")
    made: dict[str, Recipe] = {}
    plans: dict[str, Planned] = {}
    named: dict[tuple[Any, ...], int] = {}  # the method that a label names in a setting
    for cell in cells(study):
        plan = _planned(source, study, functions[cell.method.recipe], cell, made)
        if plans.setdefault(plan.trial.key, plan) is not plan:
            of = f"{cell.method.recipe} with {canonical(dict(plan.trial.arguments))}, {cell.model} on {cell.data}"
            raise source.error(cell.place, f"the trial {of:.300}, seed {cell.seed}, occurs twice: remove one of them")
        setting, number = (cell.label, cell.model, cell.data, cell.density, cell.seed), int(cell.place[1]) + 1
        if cell.label and (first := named.setdefault(setting, number)) != number:
            what = f"{cell.label!r:.80} names methods[{first}] too, on the same model, data, density and seed"
            raise source.error((*cell.place, "label"), f"{what}: give each its own label")
    return [*plans.values()]


def _function(source: Source, place: Place, name: str) -> Callable[..., Recipe]:
    if ":" not in name and name.replace("_", "-") not in (known := names()):
        raise source.error(place, f"unknown recipe {name!r:.80}{near(name, known)}")
    try:
        return find(name)
    except Misuse as error:
        raise source.error(place, str(error)) from error


def _planned(
    source: Source, study: StudyFile, function: Callable[..., Recipe], cell: Cell, made: dict[str, Recipe]
) -> Planned:
    own = cell.place
    hints = _hints(function)
    given = {name: value for name, value in study.arguments.items() if name in hints}
    given |= {**cell.method.arguments, **cell.chosen}
    options = {**study.options, **cell.method.options}
    for name in [*cell.method.arguments, *cell.chosen]:
        if name == "seed":
            raise source.error((*own, "arguments", name), "set seeds with the study's key seeds")
        if name not in hints:
            where = (*own, "grid" if name in cell.chosen else "arguments", name)
            raise source.error(where, f"{cell.method.recipe} does not have this argument{near(name, hints)}")
    for name, value in options.items():
        if name not in OPTIONS:
            raise source.error((*own, "options", name), f"unknown option{near(name, OPTIONS)}")
        options[name] = _checked(source, (*own, "options", name), _hints(RunOptions)[name], value)
    for name, value in given.items():
        place = (*own, "grid" if name in cell.chosen else "arguments", name)
        if name in study.arguments and name not in cell.method.arguments:
            place = ("arguments", name)
        given[name] = _checked(source, place, hints.get(name, Any), value)
    try:
        if cell.density is not None:
            _at(cell, hints, given)
        if cell.budget is not None:
            options["total_epochs"] = cell.budget.epochs
            _share_out(cell, cell.budget, function, given)
        kept = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        trial = Trial(cell.method.recipe, to_json(given), cell.seed, cell.model, cell.data, cell.label, to_json(kept))
        key = canonical([trial.recipe, dict(trial.arguments), trial.model, trial.data, dict(trial.options)])
        if key not in made:
            settings = RunOptions(model=cell.model, data=cell.data, **options)
            look_for_all(settings)
            seed = {"seed": cell.seed} if "seed" in hints else {}
            made[key] = adapted_recipe(built(trial.recipe, function, {**given, **seed}), settings)
        return Planned(trial, replace(made[key], seed=cell.seed))
    except (Misuse, NotFound, ValueError) as error:
        raise source.error(own, str(error)) from error


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function, or the fields of a dataclass, and their types."""
    hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    return {name: hints.get(name, Any) for name in inspect.signature(function).parameters}


def _checked(source: Source, place: Place, kind: Any, value: Any) -> Any:
    """The value converted to its parameter's type, as on the command line."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        found = dict.fromkeys(must(one).removeprefix("must be ") for one in error.errors(include_url=False))
        raise source.error(place, f"must be {' or '.join(found)}, got {value!r:.80}") from None


def _at(cell: Cell, hints: Mapping[str, Any], given: dict[str, Any]) -> None:
    """Set the recipe's argument for exactly this density."""
    name = next((name for name in ("target_density", "density") if name in hints), None)
    if name is None:
        raise ValueError(f"{cell.method.recipe} has no density argument: remove densities, or use another recipe")
    if name in given:
        raise ValueError(f"give either densities or the argument {name}, not both")
    given[name] = cell.density


def _share_out(cell: Cell, budget: Budget, function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Fill in arguments that spread the epochs evenly over the levels and remove the same share at each.

    With L pruned levels, each trains for epochs // (L + 1) and the last for the rest; the rate is 1 - D^(1/L).
    """
    own = inspect.signature(function).parameters
    if not {"levels", "target_density"} <= own.keys():
        return  # a single level takes all epochs
    levels = given.setdefault("levels", budget.levels)
    each = budget.epochs // (levels + 1)
    if each < 1:
        raise ValueError(f"{budget.epochs} epochs are too few for {levels} pruned levels and the dense one")
    for name in {"epochs", "warmup"} & own.keys():
        given.setdefault(name, each)
    if cell.density is not None and levels and "rate" in own and isinstance(own["rate"].default, float):
        given.setdefault("rate", round(1 - cell.density ** (1 / levels), 6))


# -- what they take ----------------------------------------------------------------------------------------------


def forecast(plans: Sequence[Planned], out: Path, workers: int, threads: int) -> list[str]:
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
    if shared := _shared(todo):
        lines.append(
            f"Shared: {sum(n for n, _ in shared)} trials start from {words.plural(len(shared), 'dense network')}, each "
            f"trained once. That saves {_saved(shared):g} epochs, which still count as a cost of every trial."
        )
    return [*lines, *_time(plans, todo, out, workers, threads)]


def _time(plans: Sequence[Planned], todo: Sequence[Planned], out: Path, workers: int, threads: int) -> list[str]:
    measured = _of_finished(plans, out)
    total, sources = 0.0, []
    for setting in dict.fromkeys(map(_setting, todo)):
        of = [plan for plan in todo if _setting(plan) == setting]
        epoch, how = measured.get(setting), "from finished trials"
        if epoch is None:
            epoch, how = _measure(of[0], threads), f"measured now, {STEPS} steps"
        total += epoch * (sum(_epochs(plan.recipe) for plan in of) - _saved(_shared(of)))
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


def _shared(plans: Sequence[Planned]) -> list[tuple[int, int]]:
    """How many trials start from each dense network that several start from, and its epochs."""
    starts = Counter(start for plan in plans if (start := _start(plan)) is not None)
    return [(number, epochs) for (_, epochs), number in starts.items() if number > 1]


def _saved(shared: Sequence[tuple[int, int]]) -> int:
    """Epochs that sharing saves."""
    return sum((number - 1) * epochs for number, epochs in shared)


def _start(plan: Planned) -> tuple[str, int] | None:
    """The key of a shared level 0, and its epochs; None if the trial shares none."""
    recipe, first = plan.recipe, plan.recipe.search.next(())
    if isinstance(first, Done) or first.prune or ":" in plan.trial.recipe:
        return None
    what = [*_setting(plan), plan.trial.seed, recipe.rewind_epoch, "gf_ema" in recipe.needs, describe(first.train)]
    return canonical(what), first.train.epochs


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
