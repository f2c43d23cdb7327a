"""What a run remembers: frozen records, and their JSON.

Records hold numbers that the run computed and nothing that the clock says, so that a run which was killed
and resumed writes the same bytes as one that was not. Seconds live apart, in `LevelTimes`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sparsight.model.collapse import Collapse
from sparsight.model.left_out import LeftOut
from sparsight.numerics.checks import check_not_negative
from sparsight.train.metric import ACCURACY, Metric
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator, ValidationError

SCHEMA = 1
"""Version of the records below. A reader refuses a version that it does not know."""

Keep = Literal["all", "packed", "chosen", "last"]
"""Which levels' weights stay on disk."""
KEEPS_ALL: tuple[Keep, ...] = ("all", "packed")

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
    metric: Metric = ACCURACY  # what networks are chosen by
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
        """Its metric on the validation split."""
        return self.observations[-1].value(self.metric) if self.observations else None

    @property
    def worth(self) -> float:
        """The same, turned so that larger is better; NaN where it was not judged."""
        return self.metric.worth(self.value)

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

    def __post_init__(self) -> None:
        spent = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[2:]}
        check_not_negative(**spent)


@dataclass(frozen=True)
class Evaluated:
    """One stored network on the test split."""

    level: int
    role: Literal["level", "control"]
    id: str
    test_accuracy: float | None
    test_loss: float | None
    samples: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # beside loss and accuracy

    def value(self, metric: Metric) -> float | None:
        """The value of a metric; None where it was not measured."""
        here = {"accuracy": self.test_accuracy, "loss": self.test_loss}
        return here[metric.name] if metric.name in here else self.metrics.get(metric.name)


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
    most_frequent: float | None = None  # share of the most frequent label of the validation split; None: not known
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
    expected = "None, bool, int, float, str, or lists, tuples, mappings and dataclasses of them"
    raise TypeError(f"cannot record {record!r:.80} of type {type(record).__qualname__}: expected {expected}")


def dumps(record: Any) -> str:
    """One line of JSON: sorted keys, no spaces, so that equal records give equal bytes."""
    return json.dumps(to_json(record), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(kind: type[T], value: Any, where: str = "record") -> T:
    """The record of `kind` that JSON values spell; errors call it `where`.

    Strict: lists become tuples, whole numbers and "nan", "inf", "-inf" floats where these are meant; nothing else is
    converted. ValueError names the first field that is wrong, what it got and what is expected; every key must be
    known, and those without a default must be there.
    """
    from pydantic import ValidationError

    versioned = isinstance(value, dict) and "schema" in getattr(kind, "__dataclass_fields__", ())
    if versioned and value.get("schema") != SCHEMA:  # before all else: in another version anything may differ
        expected = f"{SCHEMA} (written by another version of sparsight?)"
        raise ValueError(f"{where}.schema: got {value.get('schema')!r:.80}, expected {expected}")
    try:
        return _reader(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(where + _wrong(error)) from None


@functools.cache
def _reader(kind: Any) -> SchemaValidator:
    """What reads JSON values as `kind`: pydantic's schema of it, strict, but with objects for dataclasses and lists
    for tuples."""
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
    raise ValueError


_EXPECTED = {
    "int_type": "a whole number", "string_type": "text", "bool_type": "true or false", "value_error": "a number",
    "tuple_type": "a list", "dict_type": "an object", "dataclass_type": "an object",
}  # fmt: skip


def _wrong(error: ValidationError) -> str:
    """The first thing that is wrong: which field, what it got, what is expected."""
    found: list[Any] = error.errors(include_url=False)
    kind, place, got = found[0]["type"], found[0]["loc"], found[0]["input"]
    expected = _EXPECTED.get(kind, "another value")
    if kind == "literal_error":
        expected = f"one of {found[0]['ctx']['expected']}"
    elif kind == "too_long":  # a tuple of fixed length
        expected = f"a list of {found[0]['ctx']['max_length']}"
    elif kind in ("missing", "unexpected_keyword_argument"):
        place = place[:-1]
        names = [each["loc"][-1] for each in found if (each["type"], each["loc"][:-1]) == (kind, place)]
        if isinstance(names[0], int):
            expected = f"a list of {names[-1] + 1}"
        elif kind == "missing":
            got, expected = sorted(got), f"{sorted(names)} too"
        else:
            got, expected = sorted(names), "known fields only"
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{at}: got {got!r:.80}, expected {expected}"
