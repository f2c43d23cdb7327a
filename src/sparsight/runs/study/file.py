"""The schema of a study file: which keys there are, what they hold, and the trials that they make together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sparsight.records.record import must
from sparsight.runs.study.source import Place, Source, near, read_source


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _seeds(value: Any) -> Any:
    """5 is the seeds 0, 1, 2, 3 and 4."""
    if type(value) is int and value < 1:
        raise ValueError("must be a number of seeds, at least 1, or a list of seeds")
    return list(range(value)) if type(value) is int and value <= 100_000 else value


Names = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Seeds = Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Several = Annotated[list[Any], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Budget(_Part):
    """Epochs of every run in all. Recipes that prune level by level take `levels` pruned levels, without a number of
    their own."""

    epochs: Annotated[int, Field(ge=1)]
    levels: Annotated[int, Field(ge=0)] = 7


class Method(_Part):
    """A recipe with its arguments; what it does not say, the study says."""

    recipe: Annotated[str, Field(min_length=1)]
    label: str = ""
    arguments: dict[str, Any] = {}
    grid: dict[str, Several] = {}
    options: dict[str, Any] = {}
    model: Names | None = None
    data: Names | None = None
    seeds: Seeds | None = None
    seed: Seed | None = None
    densities: Annotated[list[Share], Field(min_length=1)] | None = None
    budget: Budget | None = None


class StudyFile(_Part):
    """What a study is of."""

    methods: Annotated[list[Method], Field(min_length=1)]
    model: Names = ["mlp"]
    data: Names = ["fashion-mnist"]
    seeds: Seeds = [0]
    arguments: dict[str, Any] = {}
    options: dict[str, Any] = {}
    densities: Annotated[list[Share], Field(min_length=1)] | None = None
    budget: Budget | None = None


@dataclass(frozen=True)
class Cell:
    """One run that a file asks for, before its recipe is known: what is the same in it for every recipe."""

    method: Method
    place: Place  # of the method
    label: str
    chosen: Mapping[str, Any]  # of the grid
    model: str
    data: str
    seed: int
    density: float | None
    budget: Budget | None


def read_study_file(path: Path) -> tuple[StudyFile, Source]:
    """A study file, YAML 1.2 or JSON. A list is that of the methods. StudyFileError names file, line, key and value."""
    source = read_source(path)
    if isinstance(source.value, list):
        lines = {("methods", *place): line for place, line in source.lines.items()}
        source = replace(source, value={"methods": source.value}, lines=lines)
    if not isinstance(source.value, dict):
        got = type(source.value).__name__ if source.value is not None else "nothing"
        raise source.error((), f"expected the keys of a study, or a list of methods, got {got}")
    try:
        study = StudyFile.model_validate(source.value)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        raise _told(source, found[0]) from None
    for number, method in enumerate(study.methods):
        if method.seed is not None and method.seeds is not None:
            raise source.error(("methods", number, "seed"), "give one of seed and seeds")
        if both := method.grid.keys() & method.arguments.keys():
            raise source.error(("methods", number, "grid", min(both)), "is among the arguments too")
    return study, source


def _told(source: Source, error: ErrorDetails) -> Exception:
    place = tuple(part for part in error["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    if error["type"] == "extra_forbidden":
        known = (Method if "methods" in place[:1] and "budget" not in place else StudyFile).model_fields
        known = Budget.model_fields if "budget" in place[:-1] else known
        return source.error(place, f"unknown key{near(str(place[-1]), known)}")
    if error["type"] == "missing":
        return source.error(place[:-1], f"the key {place[-1]!r} is missing")
    return source.error(place, f"{must(error)}, got {error['input']!r:.80}")


def cells(study: StudyFile) -> Iterator[Cell]:
    """The runs of a study: all methods at one seed, then all at the next."""
    made = [list(_of(study, number, method)) for number, method in enumerate(study.methods)]
    seeds = dict.fromkeys(cell.seed for of in made for cell in of)
    yield from (cell for seed in seeds for of in made for cell in of if cell.seed == seed)


def _of(study: StudyFile, number: int, method: Method) -> Iterator[Cell]:
    seeds = method.seeds or ([method.seed] if method.seed is not None else study.seeds)
    density = method.densities or study.densities or [None]
    name = method.label or method.recipe
    only = name if [other.recipe for other in study.methods].count(method.recipe) == 1 else ""
    chosen = [dict(zip(method.grid, of, strict=True)) for of in itertools.product(*method.grid.values())]
    for model, data, at, of, seed in itertools.product(
        method.model or study.model, method.data or study.data, density, chosen, seeds
    ):
        label = ", ".join([name, *(f"{key}={value}" for key, value in of.items())]) if of else method.label or only
        yield Cell(method, ("methods", number), label, of, model, data, seed, at, method.budget or study.budget)
