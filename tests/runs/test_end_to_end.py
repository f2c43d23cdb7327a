"""Every recipe on real data: a stated accuracy at a stated density, chosen on validation and read from test once."""

from __future__ import annotations

import math

import pytest

from sparsight.recipes.lottery import lottery
from sparsight.recipes.oneshot import oneshot
from sparsight.recipes.sap import sap
from sparsight.records.folder import RunFolder
from sparsight.runs.execute import execute
from sparsight.zoo.data import digits, fashion_mnist, find_fashion_mnist

SMALL = {"epochs": 10, "batch_size": 64, "target_density": 0.1, "control": False}


@pytest.mark.parametrize(
    ("recipe", "density"),
    [
        (sap(**SMALL, levels=6, within=2.0), 0.4),
        (sap(**SMALL, p=0.5, q=1.0, levels=6, within=2.0), 0.65),
        (lottery(**SMALL, rate=0.5, within=2.0), 0.13),
        (oneshot(**SMALL, rate=0.5, within=2.0), 0.13),
    ],
    ids=["sap", "sap-half-one", "lottery", "oneshot"],
)
def test_digits(tmp_path, recipe, density):
    outcome = execute(recipe, model="mlp", data="digits", out=tmp_path / "run", device="cpu")
    chosen = next(r for r in outcome.levels if r.id == outcome.record.chosen.id)
    tested = {e.id: e.test_accuracy for e in outcome.evaluation.entries}
    dense = outcome.levels[0]
    assert dense.validation_accuracy > 0.94
    assert chosen.density <= density
    assert tested[chosen.id] > 0.92
    assert tested[dense.id] > 0.94
    assert sum(r.epochs for r in outcome.levels) == 10 * len(outcome.levels)
    with RunFolder.open(tmp_path / "run") as folder:
        for record in folder.levels():
            masks, weights = folder.masks(record), folder.weights(record)
            assert sum(int(m.sum()) for m in masks.values()) == record.kept
            assert all(float(weights[n][~m].abs().sum()) == 0 for n, m in masks.items())
            for group in record.groups:
                assert (group.index is None) == (recipe.name != "sap")
                if group.index is not None:
                    assert group.r == pytest.approx(_bound(group, recipe), rel=1e-9)


def _bound(group, recipe) -> float:
    (allocator,) = recipe.levels.level.prune
    p, q = allocator.p, allocator.q
    return group.d * math.pow(1 - group.index, p * q / (q - p))


@pytest.mark.fashion
@pytest.mark.skipif(find_fashion_mnist() is None, reason="Fashion-MNIST is not here")
def test_the_main_job_on_fashion_mnist(tmp_path):
    """At most 10 % of the weights alive at the dense network's validation accuracy within 0.5 points."""
    outcome = execute(sap(control=False), model="mlp", data=fashion_mnist(), out=tmp_path / "run", device="cpu")
    chosen = next(r for r in outcome.levels if r.id == outcome.record.chosen.id)
    dense = outcome.levels[0]
    assert chosen.density <= 0.1
    assert chosen.validation_accuracy >= dense.validation_accuracy - 0.005
    tested = {e.id: e.test_accuracy for e in outcome.evaluation.entries}
    assert tested[chosen.id] >= tested[dense.id] - 0.01
    assert dense.validation_accuracy > 0.87


def test_a_dead_end_ends_the_run(tmp_path):
    """In neuron scope with equal magnitudes SAP removes nothing: the run must not go on forever."""
    outcome = execute(
        sap(epochs=1, beta=0.0, levels=9, control=False), model="mlp", data=digits(), out=tmp_path / "run", device="cpu"
    )
    assert "removed nothing" in outcome.record.why_ended
    assert len(outcome.levels) == 3
