"""Method against method: at equal density, at equal training epochs, and the epochs that a density takes.

Every function returns tidy rows. Accuracies are in per cent, differences in points; both come for the validation and
for the test split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compare import at_density, at_epochs, sparsest_within
from runs import BASELINES, DENSITIES, EPOCHS, METHODS, SPLITS, WITHIN, Cells, Row, Run, places, told

from sparsight.compare import Mean, mean, paired


def equal_density(grid: Cells, densities: Sequence[float] = DENSITIES) -> list[Row]:
    """Accuracy of each method at equal density, and the differences SAP - baseline, paired by seed."""
    found = []
    for network, scope in places(grid):
        cells = _by_seed(grid, network, scope)
        for density in densities:
            for split in SPLITS:
                at = {m: {seed: r.accuracy(split, density) for seed, r in runs.items()} for m, runs in cells.items()}
                row = {"network": network, "scope": scope, "density": density, "split": split}
                for method, values in at.items():
                    found.append({**row, "what": method, **told(mean(values.values()))})
                for sap, other in _contests():
                    found.append({**row, "what": f"{sap} - {other}", **told(paired(at[sap], at[other]))})
    return found


def equal_epochs(grid: Cells, epochs: Sequence[float] = EPOCHS) -> list[Row]:
    """What so many training epochs in all buy.

    `density`, `validation`, `test`: at the last level that a run reaches with them, one-shot counted as it was run.
    `sparsest`: the sparsest level within 1 point of dense on validation data, with the epochs that it needs: for
    one-shot those of the dense network and its own. Its contests are ratios of densities, SAP / baseline.
    """
    found = []
    for network, scope in places(grid):
        cells = _by_seed(grid, network, scope)
        for budget in epochs:
            row = {"network": network, "scope": scope, "epochs": budget}
            for what in ("density", *SPLITS, "sparsest"):
                by = {m: {seed: _bought(r, what, budget) for seed, r in runs.items()} for m, runs in cells.items()}
                for method, values in by.items():
                    known = [v for v in values.values() if v is not None]
                    said = told(mean(known)) if what in SPLITS else _geometric(mean(map(math.log, known)))
                    found.append({**row, "quantity": what, "what": method, **said})
                if what != "density":
                    found += [{**row, "quantity": what, **contest} for contest in _contested(by, what)]
    return found


def _bought(run: Run, what: str, budget: float) -> float | None:
    if run.levels[-1]["cumulative_epochs"] + 1e-9 < budget and "levels are done" in (run.what["why_ended"] or ""):
        return None  # the run was not given so many epochs
    if what == "sparsest":
        seen = [(x["needed_epochs"], x["density"], x["validation_accuracy"]) for x in run.levels]
        return sparsest_within(seen, budget, WITHIN)
    name, factor = ("density", 1.0) if what == "density" else (f"{what}_accuracy", 100.0)
    return at_epochs([(x["cumulative_epochs"], factor * x[name]) for x in run.levels], budget)


def _contested(by: Mapping[str, Mapping[int, float | None]], what: str) -> list[Row]:
    found = []
    for sap, other in _contests():
        if what == "sparsest":
            logs = [{s: math.log(v) for s, v in by[m].items() if v is not None} for m in (sap, other)]
            found.append({"what": f"{sap} / {other}", **_geometric(paired(*logs))})
        else:
            found.append({"what": f"{sap} - {other}", **told(paired(by[sap], by[other]))})
    return found


def _geometric(found: Mean | None) -> Row:
    """`told` of logarithms, taken back: the half-width becomes a factor, times and by which the interval reaches."""
    said = told(found)
    return said | {name: math.exp(said[name]) for name in ("mean", "half_width") if said[name] is not None}


def epochs_to(grid: Cells, densities: Sequence[float] = DENSITIES) -> list[Row]:
    """Training epochs in all that a method needs to a density, between its levels; one-shot twice a level's."""
    found = []
    for network, scope in places(grid):
        cells = _by_seed(grid, network, scope)
        for density in densities:
            row = {"network": network, "scope": scope, "density": density}
            by = {
                m: {seed: at_density(r.curve("needed_epochs"), density) for seed, r in runs.items()}
                for m, runs in cells.items()
            }
            for method, values in by.items():
                found.append({**row, "what": method, **told(mean(values.values()))})
            for sap, other in _contests():
                found.append({**row, "what": f"{sap} - {other}", **told(paired(by[sap], by[other]))})
    return found


def _contests() -> list[tuple[str, str]]:
    return [(sap, other) for sap in METHODS[:2] for other in BASELINES]


def _by_seed(grid: Cells, network: str, scope: str) -> dict[str, dict[int, Run]]:
    """The runs of every method by seed."""
    return {m: {run.what["seed"]: run for run in grid.get((network, scope, m), ())} for m in METHODS}
