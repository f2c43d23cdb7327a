"""What the page says about stopping rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pages import HOSTILE, read, specs
from samples import sample

from sparsight import report
from sparsight.report.run_charts import MEMBER
from sparsight.train.observation import Observation

SHOWN = HOSTILE.replace("\u202e", "\\u202e")
FLOW, NEAR = "information flow (rms, pre)", "information flow (rms, pre), relative to dense"


def seen(level: int, ended: int, cap: int = 5) -> tuple[Observation, ...]:
    def values(epoch: int) -> dict[str, float]:
        pairs = {f"value:{FLOW}, fc1 > fc2": 0.3 + 0.01 * epoch, f"value:{FLOW}, {HOSTILE}": 0.1 * level}
        return {**pairs, f"distance:{NEAR}": 0.5 / epoch, f"threshold:{NEAR}": 0.2, "cost:forward samples": 1024.0}

    return tuple(
        Observation(
            epoch / 2,
            10 * epoch,
            None,
            0.5,
            0.5,
            0.9,
            values(epoch),
            f"it is near {HOSTILE}" if epoch == ended else None,
        )
        for epoch in range(1, ended + 1)
    )


def page(ends: tuple[int, ...] = (4, 3, 1), cap: object = 3) -> str:
    s = sample(len(ends))
    levels = []
    for x in s.levels:
        if x.role == "level":
            end = ends[x.level]
            made = x.operation if cap is None else {**x.operation, "epochs": cap}
            x = replace(x, observations=seen(x.level, end), epochs=end / 2, operation=made)
        levels.append(x)
    return report.page(s.run, levels, s.times, s.evaluation)


def test_epochs_spent_and_saved_and_why_each_level_ended():
    text = page()
    rows = read(text).rows["Epochs spent and saved by level"]
    assert rows[0] == ["level", "density", "epochs", "at most", "saved", "evaluations", "why it ended"]
    assert [row[2:6] for row in rows[1:]] == [["2", "3", "1", "4"], ["1.5", "3", "1.5", "3"], ["0.5", "3", "2.5", "1"]]
    assert "".join(rows[1][6:]).startswith("it is near <script>")
    assert (
        "took 4 of at most 9\u00a0epochs: 5 saved (55.6" in text or "took 4 of at most 9 epochs: 5 saved (55.6" in text
    )


def test_flows_and_distances_over_time():
    text = page()
    found, drawn = read(text), specs(text)
    assert f"<figcaption>{NEAR}: distance</figcaption>" in text
    assert f"<figcaption>{FLOW}</figcaption>" in text
    distances = drawn["distance-0"]["datasets"]["rows"]
    assert [x["y"] for x in distances if x["of"].startswith("level 1")] == [0.5, 0.2, 0.25, 0.2, 0.5 / 3, 0.2]
    assert {x["series"] for x in drawn["values-0"]["datasets"]["rows"]} == {"fc1 > fc2", SHOWN}
    rows = found.rows["What the stopping rules saw"]
    assert len(rows) == 1 + 4 + 3 + 1
    assert rows[1][:2] == ["0", "0.5"]
    assert "0.25" in rows[2]


def test_nothing_where_there_is_nothing_to_say():
    s = sample(3)
    assert 'id="stopping"' not in report.page(*s.page_arguments)
    assert 'id="stopping"' in page()
    for cap in (None, "three", float("nan"), True):
        assert "not on record" in page(cap=cap)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_any_number_can_be_drawn(bad):
    s = sample(2)
    wild = (Observation(0.0, 0, values={f"distance:{NEAR}": bad, "value:x": bad, HOSTILE: bad}),)
    levels = [replace(x, observations=wild, operation={"epochs": 0}) for x in s.levels]
    text = report.page(s.run, levels, s.times, s.evaluation)
    read(text)
    drawn = [
        x["y"]
        for name, x in specs(text).items()
        if name.startswith(("distance", "values"))
        for x in x["datasets"]["rows"]
    ]
    assert drawn == ([-1.0, -1.0] * 2 if bad == -1.0 else [])


def test_names_are_split_at_the_member():
    assert MEMBER.fullmatch("PQ index (0.5, 1)") is None
    found = MEMBER.fullmatch(f"{FLOW}, a, b")
    assert (found["family"], found["member"]) == (FLOW, "a, b")
