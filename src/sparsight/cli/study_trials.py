"""The trials of a study file, each checked as `sparsight run` would check it, before anything starts."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sparsight.cli.errors import Misuse, NotFound
from sparsight.cli.recipes import names
from sparsight.cli.run_options import RunOptions, adapted_recipe, built, find, look_for_all
from sparsight.records.files import canonical
from sparsight.records.record import must, to_json
from sparsight.runs.recipe import Recipe
from sparsight.runs.study import Trial
from sparsight.runs.study.file import Budget, Cell, Place, Source, StudyFile, cells, near, read_study_file

OPTIONS = ("weights", "pretrained", "loss", "optimizer", "metric", "relative", "include", "exclude", "total_epochs")
"""Options of `sparsight run` that a study may set for its runs."""


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
    return [_planned(source, study, functions[cell.method.recipe], cell, made) for cell in cells(study)]


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
