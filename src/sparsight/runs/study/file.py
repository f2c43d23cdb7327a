"""Study files: a safe, bounded reader of YAML 1.2, the schema, and the runs that a file describes."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sparsight.records.files import DamagedFile, check_there
from sparsight.records.record import must

SIZE, DEPTH, NODES = 1 << 20, 20, 100_000
"""Limits: bytes of a file, levels of nesting, and values, with each use of an alias counted."""

Place = tuple[str | int, ...]
"""Keys and positions on the way from the top of a file to a value."""


class StudyFileError(ValueError):
    """A study file that cannot be run: file, line, key, value, and what is accepted."""


@dataclass(frozen=True)
class Source:
    """The content of a file, and the line (from 1) of each value."""

    path: Path
    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a value, or of the innermost known value around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, place: Place, what: str) -> StudyFileError:
        """An error at a value."""
        key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        return StudyFileError(f"{self.path}, line {self.line(place)}: {f'{key}: ' if key else ''}{what}")


def read_source(path: Path) -> Source:
    """The values of a YAML file: mappings with text as keys, lists, text, numbers, true, false and null.

    Raises: StudyFileError, with the line, for invalid YAML 1.2, a duplicate key, a tag, a merge key, or content beyond
    the limits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if path.is_dir():
            raise ValueError("it is a folder, not a study file")
        check_there(path, "give another file")
        with path.open("rb") as file:
            text = file.read(SIZE + 1)
    except (OSError, ValueError) as error:
        what = error.what if isinstance(error, DamagedFile) else getattr(error, "strerror", None) or error
        raise StudyFileError(f"cannot read {path}: {what}") from error
    if len(text) > SIZE:
        raise StudyFileError(f"{path} has more than {SIZE:,} bytes, which no study needs")
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(path, yaml, text)
        reader = _Reader(path, yaml)
        root = YAML(typ="safe", pure=True).compose(text)
        value = None if root is None else reader.value(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise StudyFileError(f"{path}{where}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, StudyFileError):
            raise
        raise StudyFileError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return Source(path, value, reader.lines)


def _check_depth(path: Path, yaml: Any, text: bytes) -> None:
    """Refuse deep nesting before anything is built, because the composer recurses."""
    depth = 0
    for number, event in enumerate(yaml.parse(text)):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if getattr(event, "version", None) not in (None, (1, 2)):
            raise StudyFileError(f"{path}, line {event.start_mark.line + 1}: expected YAML 1.2, got another version")
        if depth > DEPTH + 2 or number > 2 * NODES:  # stream and document are levels too
            what = f"nested more than {DEPTH} levels deep" if depth > DEPTH else f"more than {NODES:,} values"
            raise StudyFileError(f"{path}, line {event.start_mark.line + 1}: {what}, which no study needs")


class _Reader:
    """Builds plain values from the nodes of a document."""

    def __init__(self, path: Path, yaml: Any) -> None:
        self.path, self.lines, self._built = path, dict[Place, int](), 0
        self._plain = yaml.constructor

    def value(self, node: Any, place: Place) -> Any:
        self.lines[place] = line = node.start_mark.line + 1
        self._built += 1
        if self._built > NODES or len(place) > DEPTH:
            raise self._error(line, f"more than {NODES:,} values, or {DEPTH} levels, with what its aliases repeat")
        if node.id == "sequence":
            return [self.value(item, (*place, n)) for n, item in enumerate(node.value)]
        if node.id == "mapping":
            return self._mapping(node, place)
        return self._scalar(node, line)

    def _mapping(self, node: Any, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            name = self._scalar(key, line) if key.id == "scalar" else None
            if not isinstance(name, str):
                raise self._error(line, f"a key must be text, got {getattr(key, 'value', key)!r:.60}")
            if name in found:
                raise self._error(line, f"the key {name!r:.60} occurs twice")
            found[name] = self.value(item, (*place, name))
            self.lines[(*place, name)] = line
        return found

    def _scalar(self, node: Any, line: int) -> Any:
        tag = str(node.tag).rpartition(":")[2]
        if tag in ("null", "bool", "int", "float"):
            return self._plain.construct_object(node)
        if tag not in ("str", "timestamp"):
            raise self._error(line, f"expected plain values, got the tag or key {node.value or node.tag!r:.60}")
        return node.value

    def _error(self, line: int, what: str) -> StudyFileError:
        return StudyFileError(f"{self.path}, line {line}: {what}")


def near(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'sap'?" with a close match; otherwise what there is."""
    found = difflib.get_close_matches(word.replace("_", "-"), known := [*known], 1, 0.65)
    found = found or difflib.get_close_matches(word, known, 1, 0.65)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(known)}"


# -- the schema -------------------------------------------------------------------------------------------------


def _seeds(value: Any) -> Any:
    """5 is the seeds 0, 1, 2, 3 and 4."""
    if isinstance(value, list):
        return value
    if type(value) is not int or not 1 <= value <= NODES:
        raise ValueError(f"must be a number of seeds, at least 1 and at most {NODES:,}, or a list of seeds")
    return list(range(value))


_Many = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
Names = Annotated[list[Annotated[str, Field(min_length=1)]], _Many, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Seeds = Annotated[list[Seed], BeforeValidator(_seeds), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Several = Annotated[list[Any], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Budget(_Part):
    """Epochs of every run in total. `levels` is the default number of pruned levels of iterative recipes."""

    epochs: Annotated[int, Field(ge=1)]
    levels: Annotated[int, Field(ge=0)] = 7


class Method(_Part):
    """A recipe with its arguments. Settings that it leaves out are those of the study."""

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
    """The content of a study file."""

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
    """One run of a study file: its settings, before they are resolved for its recipe."""

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
    """Read a study file, YAML 1.2 or JSON. A list at the top is the list of methods.

    Raises: StudyFileError with file, line, key and value.
    """
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
            raise source.error(("methods", number, "grid", min(both)), "is also among the arguments")
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
    """The runs of a study: all methods with one seed, then all with the next."""
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
