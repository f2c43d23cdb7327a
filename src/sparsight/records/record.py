"""What a run remembers: frozen records, and their JSON.

Records hold numbers that the run computed and nothing that the clock says, so that a run which was killed
and resumed writes the same bytes as one that was not. Seconds live apart, in `LevelTimes`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from sparsight.model.collapse import Collapse
from sparsight.model.left_out import LeftOut
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord

SCHEMA = 1
"""Version of the records below. A reader refuses a version that it does not know."""

Keep = Literal["all", "chosen", "last"]
"""Which levels' weights stay on disk."""

T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """One prunable tensor at one level. `pq` follows the pairs of `LevelRecord.pq_pairs`."""

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int
    pq: tuple[float, ...] = ()

    @property
    def density(self) -> float:
        return self.kept / self.total


@dataclass(frozen=True)
class LevelRecord:
    """One prune-restart-train cycle."""

    level: int
    role: Literal["level", "control"]  # "control": the dense network trained for the whole run's epochs
    id: str  # content id: SHA-256 over weights and masks
    parent: str | None  # id of the level whose weights were scored; None for the first
    operation: Mapping[str, Any]  # what made it: rounds, restart, stopping rule, as JSON values
    kept: int
    total: int
    layers: tuple[Layer, ...]
    pq_pairs: tuple[tuple[float, float], ...]  # the (p, q) at which PQ indices are recorded
    pq: tuple[float, ...]  # PQ index of all alive weights together, one per pair
    groups: tuple[GroupRecord, ...]  # what the allocator of the last round recorded
    floors: tuple[str, ...]  # where `min_keep` changed the selection
    collapsed: tuple[str, ...]  # prunable tensors with no weight left
    observations: tuple[Observation, ...]
    epochs: float
    steps: int
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> SHA-256 of its tensors
    collapse: Collapse | None = None  # what the masks cut off; None in records from before it was looked for
    schema: int = SCHEMA

    @property
    def density(self) -> float:
        """Kept / prunable weights."""
        return self.kept / self.total

    @property
    def validation_accuracy(self) -> float | None:
        return self.observations[-1].validation_accuracy if self.observations else None

    @property
    def validation_loss(self) -> float | None:
        return self.observations[-1].validation_loss if self.observations else None

    @property
    def reason(self) -> str | None:
        """Why training ended."""
        return self.observations[-1].reason if self.observations else None


@dataclass(frozen=True)
class LevelTimes:
    """Seconds that a level took, over all processes that worked on it."""

    level: int
    role: Literal["level", "control"]
    prune: float = 0.0  # scoring, allocating, restarting
    train: float = 0.0
    validate: float = 0.0
    measure: float = 0.0  # what the stopping rule measured
    store: float = 0.0


@dataclass(frozen=True)
class Evaluated:
    """One stored network on the test split."""

    level: int
    role: Literal["level", "control"]
    id: str
    test_accuracy: float
    test_loss: float
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """The test split, read once, after the run has ended. `entries` follow the stored levels."""

    entries: tuple[Evaluated, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Choice:
    """Which level the run hands over, and why."""

    level: int
    id: str
    why: str
    missed: str | None = None  # if it is not what was asked for: by how much, and what to try


@dataclass(frozen=True)
class RunRecord:
    """The run as a whole: everything needed to know what was done, and to do it again."""

    recipe: str
    arguments: Mapping[str, Any]  # as given to the recipe function
    description: Mapping[str, Any]  # the recipe as built, `describe`d
    seed: int
    data: Mapping[str, Any]  # name, facts and fingerprint
    model: Mapping[str, Any]  # type, parameter counts, prunable tensors, fingerprint of the initial weights
    environment: Mapping[str, Any]  # versions, platform, device, precision, threads, world size
    keep: Keep
    status: Literal["running", "interrupted", "failed", "finished"]
    started: str  # ISO 8601, UTC
    ended: str | None = None
    resumed: int = 0  # how often the run was taken up again
    chosen: Choice | None = None
    why_ended: str | None = None  # why no further level was pruned
    command: str | None = None  # command line that made the run
    left_out: tuple[LeftOut, ...] | None = None  # not prunable, though matrix-shaped; None: not on record
    schema: int = SCHEMA


# -- JSON ------------------------------------------------------------------------------------------------------


def to_json(record: Any) -> Any:
    """JSON values of a record. A number that JSON lacks (NaN, infinity) becomes a string: "nan", "inf", "-inf".

    Keys become strings, tuples lists. ValueError for keys that would become one; TypeError for any other value.
    """
    if record is None or isinstance(record, (bool, int, str)):
        return record
    if isinstance(record, float):
        return float(record) if math.isfinite(record) else repr(float(record))
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        found = {str(key): to_json(value) for key, value in record.items()}
        if len(found) != len(record):
            raise ValueError(f"cannot record {record!r:.80}: two of its keys are spelled alike")
        return found
    if isinstance(record, (list, tuple)):
        return [to_json(item) for item in record]
    allowed = "None, bool, int, float, str, and lists, tuples, mappings and dataclasses of them"
    raise TypeError(f"cannot record {record!r:.80} of type {type(record).__qualname__}: allowed are {allowed}")


def from_json(kind: type[T], value: Any, where: str = "record") -> T:
    """The record of `kind` that `value` spells. ValueError names the field, what came and what is allowed."""
    return _read(kind, value, where)


def dumps(record: Any) -> str:
    """One line of JSON: sorted keys, no spaces, so that equal records give equal bytes."""
    return json.dumps(to_json(record), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse(where: str, got: Any, allowed: str) -> typing.NoReturn:
    raise ValueError(f"{where}: got {got!r:.80}, allowed is {allowed}")


@functools.cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type is made of: its origin (a union is `Union` however it was written) and arguments."""
    origin = typing.get_origin(kind)
    return (typing.Union if origin is types.UnionType else origin), typing.get_args(kind)


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Types of a dataclass's fields, and the names of those that have no default."""
    fields, missing = dataclasses.fields(kind), dataclasses.MISSING
    required = frozenset(f.name for f in fields if f.default is missing and f.default_factory is missing)
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields}, required


def _read(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float:
        return _read_float(value, where)
    origin, args = _form(kind)
    if origin is None:
        if dataclasses.is_dataclass(kind):
            return _read_dataclass(typing.cast(type, kind), value, where)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            _refuse(where, value, f"of type {kind.__name__}")
        return value
    if origin is typing.Union:
        if value is None and type(None) in args:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _read(inner, value, where)
    if origin is Literal:
        return value if value in args else _refuse(where, value, f"one of {args}")
    if origin is tuple:
        return _read_tuple(args, value, where)
    if not isinstance(value, dict):  # a Mapping
        _refuse(where, value, "an object")
    return {key: _read(args[1], item, f"{where}.{key}") for key, item in value.items()}


def _read_float(value: Any, where: str) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023:
        return float(value)
    _refuse(where, value, "a number")


def _read_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(where, value, "a list")
    inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    if len(inner) != len(value):
        _refuse(where, value, f"a list of {len(inner)}")
    pairs = zip(inner, value, strict=True)
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(where, value, "an object")
    fields, required = _fields(kind)
    if "schema" in fields and value.get("schema") != SCHEMA:
        _refuse(f"{where}.schema", value.get("schema"), f"{SCHEMA} (written by another version of sparsight?)")
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        _refuse(where, unknown, f"fields among {sorted(fields)}")
    missing = sorted(required - value.keys())
    if missing:
        _refuse(where, sorted(value), f"an object that has {missing} too")
    return kind(**{key: _read(fields[key], item, f"{where}.{key}") for key, item in value.items()})


# -- describing what a recipe is made of -----------------------------------------------------------------------


def describe(thing: Any) -> Any:
    """JSON values that say what a recipe, allocator, rule or function is; equal for equal things.

    A dataclass gives its type and fields, a function its public name, a partial or bound method
    its parts, a tensor or array its type, shape and SHA-256. A closure, a lambda or any other object is named by
    place or type only: the run cannot tell two of them apart.
    """
    if isinstance(thing, enum.Enum):
        return f"{type(thing).__qualname__}.{thing.name}"
    if isinstance(thing, np.generic):
        thing = thing.item()
    if thing is None or isinstance(thing, (bool, int, str)):
        return thing
    if isinstance(thing, (torch.dtype, torch.device, pathlib.PurePath)):
        return str(thing)
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        return _describe_array(thing)
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"type": type(thing).__qualname__, **parts}
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(item) for item in thing]
    if isinstance(thing, (set, frozenset)):
        return sorted((describe(item) for item in thing), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(thing, functools.partial):
        keywords = {f"{key}=": describe(value) for key, value in thing.keywords.items()}
        return {"partial": describe(thing.func), "args": describe(thing.args), **keywords}
    if isinstance(thing, types.MethodType):
        return {"method": describe(thing.__func__), "of": describe(thing.__self__)}
    return public_name(thing if hasattr(thing, "__qualname__") else type(thing))


def public_name(thing: Any) -> str:
    """ "module:qualified name" of a function or class; of our own "sparsight:name", wherever it is defined."""
    home = "sparsight" if thing.__module__.partition(".")[0] == "sparsight" else thing.__module__
    return f"{home}:{thing.__qualname__}"


def _describe_array(array: torch.Tensor | np.ndarray) -> dict[str, Any]:
    tensor = torch.as_tensor(array).detach().cpu().contiguous()
    content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"type": str(tensor.dtype), "shape": list(tensor.shape), "sha256": hashlib.sha256(content).hexdigest()}


def description_digest(thing: Any) -> str:
    """SHA-256 of `describe(thing)`, as hexadecimal."""
    text = json.dumps(describe(thing), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
