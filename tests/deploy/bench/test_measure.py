"""Timing in turns, with a clock that is moved by hand."""

from __future__ import annotations

import itertools

import pytest

from sparsight.deploy.bench import measure
from sparsight.deploy.bench.measure import Timing, quickest, timed


class Clock:
    """Ways that take the seconds they are told, of the process and of the wall."""

    def __init__(self, monkeypatch) -> None:
        self.process = self.wall = 0.0
        self.called: list[str] = []
        monkeypatch.setattr(measure, "process_time", lambda: self.process)
        monkeypatch.setattr(measure, "perf_counter", lambda: self.wall)

    def way(self, name, seconds, late=(0.0,)):
        waits = itertools.cycle(late)

        def call():
            self.called.append(name)
            self.process += seconds
            self.wall += seconds + next(waits)

        return call


def test_the_least_and_the_median_of_the_rounds(monkeypatch):
    clock = Clock(monkeypatch)
    late = (0.0, 0.0, 0.0, 3.0, 1.0, 3.0, 0.0, 3.0, 2.0)  # 3 calls first, then one to warm up and one that counts
    found = timed({"a": clock.way("a", 0.01, late)}, rounds=3)["a"]
    assert found.process == pytest.approx(0.01)
    assert found.wall == pytest.approx(0.01)
    assert found.median == pytest.approx(0.01 + 1.0)


def test_short_calls_are_repeated_until_a_sample_is_long(monkeypatch):
    clock = Clock(monkeypatch)
    timed({"a": clock.way("a", 0.001)}, rounds=1, sample=0.005)
    assert len(clock.called) == 3 + 3 + 5  # to begin with, half a sample to warm up, a sample


def test_each_way_begins_a_round_in_its_turn(monkeypatch):
    clock = Clock(monkeypatch)
    found = timed({name: clock.way(name, 1.0) for name in "abc"}, rounds=3)
    turns = clock.called[9::2]
    assert "".join(turns) == "abcbcacab"
    assert found == {name: Timing(1.0, 1.0, 1.0) for name in "abc"}


def test_process_time_counts_on_one_thread_and_wall_time_on_more():
    timing = Timing(process=3.0, wall=2.0, median=4.0)
    assert (timing.counted(1), timing.counted(2)) == (3.0, 2.0)


def test_the_quickest(monkeypatch):
    clock = Clock(monkeypatch)
    assert quickest({"a": clock.way("a", 0.02), "b": clock.way("b", 0.01, (5.0,)), "c": clock.way("c", 0.03)}) == "b"
