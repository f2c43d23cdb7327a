"""A budget of epochs for a whole run: exactly as many as asked for, whatever the levels do."""

from __future__ import annotations

import pytest
from test_target_density import data, small

from sparsight.recipes import incop, lottery, oneshot, random_at_init, sap, sipp, snip
from sparsight.runs.budget import budgeted
from sparsight.runs.run import run
from sparsight.runs.search import Done, Search

SHORT = {"batch_size": 32, "control": False}
AT = {**SHORT, "target_density": 0.1}

EXACT = {
    "lottery, all its levels": (lottery(rate=0.5, epochs=2, **AT), 14, [2, 2, 2, 2, 6]),
    "lottery, cut short by the budget": (lottery(rate=0.2, epochs=2, **AT), 9, [2, 2, 2, 3]),
    "lottery, at most two levels": (lottery(rate=0.2, levels=2, epochs=3, **AT), 12, [3, 3, 6]),
    "lottery, dense alone": (lottery(levels=0, epochs=1, **SHORT), 7, [7]),
    "sap": (sap(levels=3, epochs=1, **AT), 8, None),
    "oneshot": (oneshot(levels=1, epochs=3, **AT), 6, [3, 3]),
    "sipp": (sipp(levels=2, epochs=2, **AT), 9, [2, 2, 5]),
    "snip": (snip(density=0.1, **SHORT), 5, [5]),
    "random": (random_at_init(density=0.1, **SHORT), 1, [1]),
    "incop": (incop(warmup=2, epochs=4, evaluate_every=1.0, levels=4, **AT), 14, None),
}


@pytest.mark.parametrize(("recipe", "total", "levels"), EXACT.values(), ids=EXACT)
def test_a_run_takes_exactly_its_epochs_and_reaches_its_density(recipe, total, levels):
    found = [result.record for result in run(budgeted(recipe, total), small(), data(), device="cpu")]
    assert sum(record.epochs for record in found) == total
    assert levels in (None, [record.epochs for record in found])
    assert found[-1].kept == (65 if "dense" in str(levels) or total == 7 else 7)  # round half up of 6.5


def test_a_rate_that_must_not_reach_its_density_ends_at_the_budget():
    recipe = budgeted(lottery(rate=0.1, levels=30, epochs=1, target_density=0, **SHORT), 5)
    found = [result.record for result in run(recipe, small(), data(), device="cpu")]
    assert [record.epochs for record in found] == [1, 1, 1, 1, 1]
    assert isinstance(end := recipe.search.next(found), Done)
    assert end.why == "all 5 epochs are spent"


class Own(Search):
    def next(self, history):
        return lottery(**SHORT).search.next(history)


CANNOT = {
    "another end": (sap(until="pq-minimum", **SHORT), 48, "sap cannot train for 48 epochs in total: any of"),
    "too few": (lottery(epochs=3, **SHORT), 5, "its levels need at least 6"),
    "too few of a list": (sipp(levels=3, epochs=2, **SHORT), 6, "its levels need at least 7"),
    "inside an epoch": (
        lottery(stop="recovered", evaluate_every=0.5, epochs=2, **SHORT),
        48,
        r"inside an epoch; set evaluate_every=0.5 to 1",
    ),
    "none": (snip(**SHORT), 0, "total_epochs must be at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "total", "said"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_share_out_a_budget_says_so(recipe, total, said):
    with pytest.raises(ValueError, match=said):
        budgeted(recipe, total)


def test_a_search_of_ones_own_knows_its_last_level_alone():
    from dataclasses import replace

    with pytest.raises(ValueError, match="only Own knows which level is the last"):
        budgeted(replace(lottery(**SHORT), levels=Own()), 48)
