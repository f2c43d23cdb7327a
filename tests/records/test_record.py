from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsight.records.identity import describe
from sparsight.records.record import (
    SCHEMA,
    Choice,
    Evaluated,
    Evaluation,
    Layer,
    LevelRecord,
    LevelTimes,
    RunRecord,
    dumps,
    from_json,
    to_json,
)
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord

FLOATS = st.floats()
COUNTS = st.integers(0, 2**62)


def dictionaries(values, **sizes):
    """With sorted keys, as they are read again."""
    return st.dictionaries(st.text(), values, **sizes).map(lambda found: dict(sorted(found.items())))


JSON = dictionaries(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2), max_size=3)
ROLES = st.sampled_from(["level", "control"])


def tuples(inner):
    return st.lists(inner, max_size=2).map(tuple)


GROUPS = st.builds(
    GroupRecord,
    name=st.text(),
    d=COUNTS,
    c=COUNTS,
    index=st.none() | FLOATS,
    r=st.none() | FLOATS,
    defined=st.booleans(),
)
LAYERS = st.builds(Layer, name=st.text(), shape=tuples(COUNTS), kept=COUNTS, total=COUNTS, pq=tuples(FLOATS))
OBSERVATIONS = st.builds(
    Observation,
    epoch=FLOATS,
    step=COUNTS,
    learning_rate=st.none() | FLOATS,
    values=dictionaries(FLOATS, max_size=2),
    reason=st.none() | st.text(),
)
LEVELS = st.builds(
    LevelRecord,
    level=COUNTS,
    role=ROLES,
    id=st.text(),
    parent=st.none() | st.text(),
    operation=JSON,
    kept=COUNTS,
    total=COUNTS,
    layers=tuples(LAYERS),
    pq_pairs=tuples(st.tuples(FLOATS, FLOATS)),
    pq=tuples(FLOATS),
    groups=tuples(GROUPS),
    floors=tuples(st.text()),
    collapsed=tuples(st.text()),
    observations=tuples(OBSERVATIONS),
    epochs=FLOATS,
    steps=COUNTS,
    files=dictionaries(st.text(), max_size=2),
    schema=st.just(SCHEMA),
)
RUNS = st.builds(
    RunRecord,
    recipe=st.text(),
    arguments=JSON,
    description=JSON,
    seed=COUNTS,
    data=JSON,
    model=JSON,
    environment=JSON,
    keep=st.sampled_from(["all", "packed", "chosen", "last"]),
    status=st.sampled_from(["running", "interrupted", "failed", "finished"]),
    started=st.text(),
    ended=st.none() | st.text(),
    chosen=st.none() | st.builds(Choice, level=COUNTS, id=st.text(), why=st.text()),
    schema=st.just(SCHEMA),
)
EVALUATIONS = st.builds(
    Evaluation,
    entries=tuples(
        st.builds(
            Evaluated, level=COUNTS, role=ROLES, id=st.text(), test_accuracy=FLOATS, test_loss=FLOATS, samples=COUNTS
        )
    ),
    schema=st.just(SCHEMA),
)
SECONDS = st.floats(min_value=0, allow_infinity=False)
TIMES = st.builds(LevelTimes, level=COUNTS, role=ROLES, prune=SECONDS, train=SECONDS)


@given(st.one_of(LEVELS, RUNS, EVALUATIONS, TIMES))
@settings(max_examples=60, deadline=None)
def test_every_record_comes_back_as_it_was(record):
    text = dumps(record)
    assert "\n" not in text
    again = from_json(type(record), json.loads(text))
    assert repr(again) == repr(record)  # unlike ==, this tells NaN, -0.0, and 1 from 1.0
    assert dumps(again) == text


def test_numbers_that_json_lacks():
    seen = Observation(1.0, 1, train_loss=math.nan, validation_loss=math.inf, values={"x": -math.inf})
    assert to_json(seen)["train_loss"] == "nan"
    again = from_json(Observation, json.loads(dumps(seen)))
    assert math.isnan(again.train_loss)
    assert (again.validation_loss, again.values) == (math.inf, {"x": -math.inf})


@pytest.mark.parametrize("value", [{1}, object(), b"x", torch.ones(1)])
def test_what_json_lacks_is_refused_when_written(value):
    with pytest.raises(TypeError, match=f"of type {type(value).__qualname__}"):
        dumps(Observation(1.0, 1, values={"x": [value]}))
    with pytest.raises(ValueError, match="two of its keys"):
        dumps(Observation(1.0, 1, values={1: 0.0, "1": 1.0}))


def test_an_integer_where_a_float_is_meant_becomes_one():
    assert type(from_json(Observation, {"epoch": 3, "step": 1}).epoch) is float


def level(**changes: Any) -> dict[str, Any]:
    record = LevelRecord(
        level=1, role="level", id="x", parent=None, operation={}, kept=1, total=2,
        layers=(Layer("fc1.weight", (2, 3), 1, 6, (0.5,)),), pq_pairs=((0.5, 1.0),), pq=(0.5,),
        groups=(GroupRecord("global", 6, 5, 0.5, 2.5),), floors=(), collapsed=(),
        observations=(Observation(1.0, 10, values={"loss": 1.0}),), epochs=1.0, steps=10,
    )  # fmt: skip
    return {**to_json(record), **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"level": "1"}, r"record\.level: must be a whole number, got '1'"),
        ({"level": True}, r"record\.level: must be .*, got True"),
        ({"level": 1.0}, r"record\.level: must be .*, got 1\.0"),
        ({"role": "leader"}, r"record\.role: must be 'level' or 'control', got 'leader'"),
        ({"id": None}, r"record\.id: must be .*, got None"),
        ({"parent": 3}, r"record\.parent: must be text, got 3"),
        ({"operation": []}, r"record\.operation: must be a mapping, got \[\]"),
        ({"layers": {}}, r"record\.layers: must be a list, got \{\}"),
        ({"layers": [{"name": "a"}]}, r"record\.layers\[0\]\.shape: is missing"),
        ({"layers": ["a"]}, r"record\.layers\[0\]: must be a mapping, got 'a'"),
        ({"pq_pairs": [[1.0]]}, r"record\.pq_pairs\[0\]"),
        ({"pq_pairs": [[0.5, 1.0], []]}, r"record\.pq_pairs\[1\]"),
        ({"pq_pairs": [[1.0, 2.0, 3.0]]}, r"record\.pq_pairs\[0\]"),
        ({"pq": ["NaN"]}, r"record\.pq\[0\]: must be a number, got 'NaN'"),
        ({"epochs": "1.0"}, r"record\.epochs: must be a number, got '1\.0'"),
        ({"epochs": -(2**1023)}, r"record\.epochs: must be a number, got -8988.*"),
        ({"pq": [0.5, "much"]}, r"record\.pq\[1\]: must be a number, got 'much'"),
        ({"pq": [True]}, r"record\.pq\[0\]: must be .*, got True"),
        ({"epochs": 10**400}, r"record\.epochs: must be a number"),
        (
            {"observations": [{"epoch": 1.0, "step": 1, "values": {"x": None}}]},
            r"observations\[0\]\.values\.x: must be .*, got None",
        ),
        ({"files": {"a": 1}}, r"record\.files\.a: must be .*, got 1"),
        (
            {"layers": [{"name": "a", "shape": [1], "kept": 1, "total": 1, "colour": 1}]},
            r"record\.layers\[0\]\.colour: is unknown",
        ),
        (
            {"layers": [{"name": "a", "shape": [True], "kept": 1, "total": 1}]},
            r"record\.layers\[0\]\.shape\[0\]: must be .*, got True",
        ),
        ({"colour": "red"}, r"record\.colour: is unknown"),
        ({"schema": 2}, r"record\.schema: got 2, expected 1 \(written by another version"),
        ({"schema": None}, r"record\.schema: got None"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes, words):
    from_json(LevelRecord, level())
    with pytest.raises(ValueError, match=words) as caught:
        from_json(LevelRecord, level(**changes))
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_path_that_is_no_unicode_comes_back():
    """Python spells its bytes as lone surrogates."""
    record = Choice(1, "x", "because", missed=os.fsdecode(b"runs/\xff"))
    assert from_json(Choice, json.loads(dumps(record))) == record


@pytest.mark.parametrize("value", [None, 3, "x", [], [1]])
def test_a_record_is_an_object(value):
    with pytest.raises(ValueError, match=r"run\.json: must be a mapping, got .*"):
        from_json(RunRecord, value, "run.json")


def test_a_missing_field_is_named():
    value = level()
    del value["kept"], value["steps"]
    with pytest.raises(ValueError, match=r"record\.kept: is missing"):
        from_json(LevelRecord, value)


def test_what_a_level_says_of_itself():
    record = from_json(LevelRecord, level())
    assert (record.density, record.layers[0].density) == (0.5, 1 / 6)
    assert record.reason is None
    last = Observation(2.0, 20, validation_loss=0.3, validation_accuracy=0.9, reason="2 epochs")
    record = dataclasses.replace(record, observations=(*record.observations, last))
    assert (record.validation_accuracy, record.validation_loss, record.reason) == (0.9, 0.3, "2 epochs")


# -- describe --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Part:
    rate: float
    inside: Any = None


@dataclasses.dataclass(frozen=True)
class Other:
    rate: float
    inside: Any = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self) -> None:
        self.x = 1

    def method(self) -> None: ...


def one(x: float) -> float:
    return x


def two(x: float) -> float:
    return x


def test_describe_says_type_and_parts():
    assert describe(Part(0.2, (one, None, {"a": math.nan}))) == {
        "type": "Part",
        "rate": 0.2,
        "inside": [f"{__name__}:one", None, {"a": "nan"}],
    }
    assert describe(Part) == f"{__name__}:Part"
    assert describe(Plain()) == f"{__name__}:Plain"


def spelled(thing) -> str:
    return json.dumps(describe(thing), sort_keys=True)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Part(0.2), Part(0.3)),
        (Part(0.2), Other(0.2)),
        (Part(0.2, one), Part(0.2, two)),
        (functools.partial(one, 1.0), functools.partial(one, 2.0)),
        (functools.partial(one, x=1.0), functools.partial(one, x=2.0)),
        (functools.partial(one, args=1), functools.partial(two, args=1)),
        (functools.partial(one, partial=1), functools.partial(two, partial=1)),
        (Part(1.0).__eq__, Part(2.0).__eq__),
        (torch.float16, torch.bfloat16),
        (torch.device("cpu"), torch.device("cuda", 1)),
        (pathlib.Path("a"), pathlib.Path("b")),
        (np.float32(0.5), np.float32(0.25)),
        (np.int64(1), np.int64(2)),
        (Colour.RED, Colour.BLUE),
        (frozenset({"a"}), frozenset({"b"})),
        (torch.ones(2), torch.zeros(2)),
        (torch.ones(2), torch.ones(1, 2)),
        (np.ones(3), np.zeros(3)),
    ],
)
def test_different_things_have_different_fingerprints(a, b):
    assert spelled(a) != spelled(b)
    assert spelled(a) == spelled(a)
    json.dumps(describe([a, b]), allow_nan=False)


def test_equal_things_have_equal_fingerprints():
    assert spelled({"b": 1, "a": (1, 2)}) == spelled({"a": [1, 2], "b": 1})
    assert spelled({"x", "y", "z"}) == spelled({"z", "y", "x"})
    assert spelled(torch.ones(2, 3)) == spelled(torch.ones(3, 2).t())
    assert describe(np.float64(0.5)) == 0.5
