"""The records of a run, and their JSON.

Records are reproducible: a resumed run writes the same bytes. Times are separate, in `LevelTimes`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sparsight.model.collapse import Collapse
from sparsight.model.left_out import LeftOut
from sparsight.numerics.checks import check_not_negative
from sparsight.train.metric import ACCURACY, Metric
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, SchemaValidator, ValidationError

SCHEMA = 1
"""Version of the records below. Readers refuse unknown versions."""

Keep = Literal["all", "packed", "chosen", "last"]
"""Which levels' weights stay on disk."""
KEEPS_ALL: tuple[Keep, ...] = ("all", "packed")

T = TypeVar("T")


@dataclass(frozen=True)
class Layer:
    """A prunable tensor at a level. `pq` has one entry per pair of `LevelRecord.pq_pairs`."""

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
    role: Literal["level", "control"]  # "control": a dense network trained for as many epochs as the run
    id: str  # content id: SHA-256 over weights and masks
    parent: str | None  # id of the level whose weights were scored; None for the first
    operation: Mapping[str, Any]  # how it was made: rounds, restart, stopping rule, as JSON values
    kept: int
    total: int
    layers: tuple[Layer, ...]
    pq_pairs: tuple[tuple[float, float], ...]  # the (p, q) at which PQ indices are recorded
    pq: tuple[float, ...]  # PQ index of all alive weights, one per pair
    groups: tuple[GroupRecord, ...]  # recorded by the allocator of the last round
    floors: tuple[str, ...]  # where `min_keep` changed the selection
    collapsed: tuple[str, ...]  # prunable tensors without kept weights
    observations: tuple[Observation, ...]
    epochs: float
    steps: int
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> SHA-256 of its tensors
    collapse: Collapse | None = None  # what the masks cut off; None in old records
    metric: Metric = ACCURACY  # chooses between networks
    schema: int = SCHEMA

    @property
    def density(self) -> float:
        """Kept / prunable weights."""
        return self.kept / self.total

    @property
    def validation_accuracy(self) -> float | None:
        return self.observations[-1].validation_accuracy if self.observations else None

    @property
    def value(self) -> float | None:
        """The metric on the validation split."""
        return self.observations[-1].value(self.metric) if self.observations else None

    @property
    def worth(self) -> float:
        """`value` with the sign that makes larger better; NaN if it was not evaluated."""
        return self.metric.worth(self.value)

    @property
    def validation_loss(self) -> float | None:
        return self.observations[-1].validation_loss if self.observations else None

    @property
    def reason(self) -> str | None:
        """Why training ended."""
        return self.observations[-1].reason if self.observations else None


def dense_of(records: Sequence[LevelRecord]) -> LevelRecord | None:
    """The dense level, otherwise the control."""
    dense = [r for r in records if r.role == "level" and r.kept == r.total]
    dense = dense or [r for r in records if r.role == "control"]
    return dense[0] if dense else None


PARTS = ("prune", "train", "validate", "measure", "store")
"""What the seconds of a level are split into."""


@dataclass(frozen=True)
class LevelTimes:
    """The seconds of a level, over all sessions that trained it."""

    level: int
    role: Literal["level", "control"]
    prune: float = 0.0  # scoring, allocating, restarting
    train: float = 0.0
    validate: float = 0.0
    measure: float = 0.0  # by the stopping rule
    store: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(**{part: getattr(self, part) for part in PARTS})

    @property
    def total(self) -> float:
        """All seconds of the level."""
        return sum(getattr(self, part) for part in PARTS)


@dataclass(frozen=True)
class Evaluated:
    """One stored network on the test split."""

    level: int
    role: Literal["level", "control"]
    id: str
    test_accuracy: float | None
    test_loss: float | None
    samples: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # besides loss and accuracy

    def value(self, metric: Metric) -> float | None:
        """The value of a metric; None if it was not measured."""
        here = {"accuracy": self.test_accuracy, "loss": self.test_loss}
        return here[metric.name] if metric.name in here else self.metrics.get(metric.name)


@dataclass(frozen=True)
class Evaluation:
    """The results on the test split, read once after the run. `entries` follow the stored levels."""

    entries: tuple[Evaluated, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Choice:
    """The chosen level, and why."""

    level: int
    id: str
    why: str
    missed: str | None = None  # if it misses the target: by how much, and what to try


@dataclass(frozen=True)
class RunRecord:
    """The run as a whole: everything needed to repeat it."""

    recipe: str
    arguments: Mapping[str, Any]  # of the recipe function
    description: Mapping[str, Any]  # the recipe, by `describe`
    seed: int
    data: Mapping[str, Any]  # name, facts and fingerprint
    model: Mapping[str, Any]  # type, parameter counts, prunable tensors, fingerprint of the initial weights
    environment: Mapping[str, Any]  # versions, platform, device, precision, threads, world size
    keep: Keep
    status: Literal["running", "interrupted", "failed", "finished"]
    started: str  # ISO 8601, UTC
    ended: str | None = None
    resumed: int = 0  # how often the run was resumed
    chosen: Choice | None = None
    why_ended: str | None = None  # why no further level was pruned
    command: str | None = None  # the command line of the run
    left_out: tuple[LeftOut, ...] | None = None  # not prunable, though matrix-shaped; None: not recorded
    most_frequent: float | None = None  # share of the most frequent validation label; None: unknown
    schema: int = SCHEMA


# -- JSON ------------------------------------------------------------------------------------------------------


def to_json(record: Any) -> Any:
    """JSON values of a record. NaN and infinities become the strings "nan", "inf" and "-inf", tuples become lists.

    Raises: ValueError for keys that become equal strings; TypeError for other types.
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
            raise ValueError(f"cannot record {record!r:.80}: two of its keys are the same as text")
        return found
    if isinstance(record, (list, tuple)):
        return [to_json(item) for item in record]
    expected = "None, bool, int, float, str, or lists, tuples, mappings and dataclasses of them"
    raise TypeError(f"cannot record {record!r:.80} of type {type(record).__qualname__}: expected {expected}")


def dumps(record: Any) -> str:
    """One line of JSON with sorted keys and without spaces: equal records give equal bytes."""
    return json.dumps(to_json(record), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(kind: type[T], value: Any, where: str = "record") -> T:
    """The record of `kind` from JSON values, called `where` in errors.

    Converts lists to tuples, and whole numbers, "nan", "inf" and "-inf" to floats, but nothing else.

    Raises: ValueError with the first wrong field, also for unknown and missing keys.
    """
    from pydantic import ValidationError

    versioned = isinstance(value, dict) and "schema" in getattr(kind, "__dataclass_fields__", ())
    if versioned and value.get("schema") != SCHEMA:  # first: in another version anything may differ
        expected = f"{SCHEMA} (written by another version of sparsight?)"
        raise ValueError(f"{where}.schema: got {value.get('schema')!r:.80}, expected {expected}")
    try:
        return _reader(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(where + _wrong(error)) from None


@functools.cache
def _reader(kind: Any) -> SchemaValidator:
    """Pydantic's strict schema of `kind`, but with objects for dataclasses and lists for tuples."""
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator, core_schema

    def of_json(schema: Any) -> Any:
        if isinstance(schema, list):
            return [of_json(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        found = {key: of_json(part) for key, part in schema.items()}
        if found.get("type") == "float":
            return core_schema.no_info_plain_validator_function(_number)
        if found.get("type") == "tuple":
            found["strict"] = False
        if found.get("type") == "dataclass":
            found |= {"strict": False, "config": {"strict": True, "extra_fields_behavior": "forbid"}}
        return found

    return SchemaValidator(of_json(TypeAdapter(kind).core_schema))


def _number(value: Any) -> float:
    if isinstance(value, float):
        return value
    if value in ("nan", "inf", "-inf") or (type(value) is int and abs(value) < 2**1023):
        return float(value)
    raise ValueError("must be a number")


_MUST = {
    "int_type": "must be a whole number", "string_type": "must be text", "dict_type": "must be a mapping",
    "model_type": "must be a mapping", "dataclass_type": "must be a mapping", "list_type": "must be a list",
    "tuple_type": "must be a list", "bool_type": "must be true or false", "float_type": "must be a number",
    "too_short": "must have at least one entry", "string_too_short": "must not be empty",
    "none_required": "must be null", "missing": "is missing", "unexpected_keyword_argument": "is unknown",
}  # fmt: skip


def must(error: ErrorDetails) -> str:
    """What pydantic says about a value, in a few words: "must be a whole number"."""
    said = error["msg"].removeprefix("Value error, ")
    return _MUST.get(error["type"], re.sub("^(Input|Tuple) should", "must", said))


def _wrong(error: ValidationError) -> str:
    """The first wrong field, what it must be, and its value."""
    first = error.errors(include_url=False)[0]
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    got = "" if first["type"] == "missing" else f", got {first['input']!r:.80}"
    return f"{at}: {must(first)}{got}"
