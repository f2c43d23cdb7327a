"""The whole method from Python: a recipe, a run level by level, and a run kept in a folder.

Run it: python examples/python_api.py
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from sparsight import SAP, Level, Magnitude, NesterovSGD, Recipe, TrainingPlan, Until, execute, run
from sparsight.zoo.data import digits
from sparsight.zoo.networks import mlp

data = digits()
model = mlp((1, 8, 8), classes=10, seed=0)

plan = TrainingPlan(epochs=3, batch_size=64, optimizer=NesterovSGD(lr=0.1))
recipe = Recipe(
    name="my-sap",
    score=Magnitude(),
    levels=Until(Level((SAP(),), train=plan), density=0.5),  # train dense, then prune until half are left
)

# Level by level, nothing on disk. `model` stays as it is: a copy of it is trained.
for level in run(recipe, model, data):
    r = level.record
    print(f"level {r.level}: density {r.density:6.2%}, PQ index {r.pq[1]:.3f}, accuracy {r.validation_accuracy:.2%}")

# Into a run folder: every level stored, one chosen, the test split read once, a report written.
with tempfile.TemporaryDirectory() as folder:
    outcome = execute(replace(recipe, control=True), model=model, data=data, out=Path(folder) / "run")
    assert outcome.record.chosen is not None
    print(outcome.record.chosen.why)
    assert outcome.evaluation is not None
    for entry in outcome.evaluation.entries:
        print(f"{entry.role} {entry.level}: test accuracy {entry.test_accuracy:.2%}")
    print("report:", outcome.report.name)
