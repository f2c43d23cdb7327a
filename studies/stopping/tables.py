"""What the rows of the study say: every rule beside the full budget and its matched control, and the confirmation.

Every function returns tidy rows. Accuracies are in per cent, differences in points; both come for the validation and
for the test split. Choices look at validation columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arithmetic import BySeed, matched
from rules import FULL

from sparsight.compare import Mean, mean, paired

Row = dict[str, Any]
Runs = Mapping[int, Row]
"""Runs of one rule and setting in one block, by seed."""

Cells = Mapping[tuple[str, str, str], Runs]
"""Runs by block, rule and setting."""

SPLITS = ("validation", "test")
SEARCHED = (0, 1, 2)
BAR = 0.3  # points that the confirmed setting may lose against the full budget
SHARE = 1 / 3  # of the full budget's epochs, which it may take
LOOKS = {("carried-recovery", "3"): 4}
"""How often a confirmation is looked at, where more than once: at the first setting, at ten seeds of this one, at
twenty, and at sixty on the CNN. Its intervals are at 1 - 0.05 / 4."""

ONCE = ("lenet-sipp", "cnn-sipp")
"""Blocks that came after the rule was found, and are looked at once."""


def cells(rows: Iterable[Row], *, searched: bool) -> dict[tuple[str, str, str], dict[int, Row]]:
    """The runs of the search, or those of the confirmation, by block, rule and setting; seeds in order."""
    found: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if (row["seed"] in SEARCHED) == searched:
            found.setdefault((row["block"], row["rule"], row["setting"]), {})[row["seed"]] = row
    return found


def column(runs: Runs, name: str, factor: float = 1.0) -> dict[int, float]:
    """One number of every run, by seed; runs that lack it are left out."""
    return {seed: factor * row[name] for seed, row in runs.items() if row[name] is not None}


def accuracy(runs: Runs, split: str) -> dict[int, float]:
    return column(runs, f"{split}_accuracy", 100.0)


def budgets(grid: Cells, block: str) -> list[Runs]:
    """The fixed budgets of a block, the shortest first."""
    found = [(float(setting), runs) for (b, rule, setting), runs in grid.items() if (b, rule) == (block, "fixed")]
    return [runs for _, runs in sorted(found, key=lambda pair: pair[0])]


def control(grid: Cells, block: str, runs: Runs, split: str) -> dict[int, float]:
    """The matched control of a rule, by seed: the fixed budgets at its mean number of epochs in all."""
    fixed = budgets(grid, block)
    costs: list[BySeed] = [column(of, "epochs") for of in fixed]
    return matched(costs, [accuracy(of, split) for of in fixed], column(runs, "epochs"))


def table(grid: Cells) -> list[Row]:
    """A row for every setting of every block: what it costs, how good it ends, and both differences."""
    made = []
    for (block, rule, setting), runs in grid.items():
        full = grid.get((block, "fixed", FULL), {})
        row: Row = {"block": block, "rule": rule, "setting": setting, "seeds": len(runs), **_costs(runs)}
        compared = {} if (rule, setting) == ("fixed", FULL) else full
        row |= told("of_full_epochs", _ratio(runs, full))
        for split in SPLITS:
            own = accuracy(runs, split)
            row |= told(split, mean(own.values()))
            row |= told(f"{split}_minus_full", paired(own, accuracy(compared, split)))
            against = None if rule == "fixed" else paired(own, control(grid, block, runs, split))
            row |= told(f"{split}_minus_matched", against) | {f"{split}_verdict": against.verdict if against else None}
        made.append(row)
    return made


def _costs(runs: Runs) -> Row:
    row: Row = {}
    for name in ("levels", "density", "mean_middle_epochs", "epochs"):
        row |= told(name, mean(column(runs, name).values()))
    for name in ("train", "validate", "measure"):
        row |= told(f"seconds_{name}", mean(column(runs, f"seconds_{name}").values()))
    return row


def _ratio(runs: Runs, full: Runs) -> Mean | None:
    """Epochs in all, first and last level too, as a share of the full budget's of the same seed."""
    return mean([runs[seed]["epochs"] / full[seed]["epochs"] for seed in sorted(runs.keys() & full.keys())])


def told(name: str, found: Mean | None) -> Row:
    """Mean and half-width as columns."""
    if found is None:
        return {name: None, f"{name}_half_width": None}
    return {name: found.mean, f"{name}_half_width": found.half_width}


def densities(grid: Cells) -> list[Row]:
    """Whether all runs of a block end with the same number of weights; where they do not, between which."""
    blocks: dict[str, list[int]] = {}
    for (block, _, _), runs in grid.items():
        blocks.setdefault(block, []).extend(row["kept"] for row in runs.values())
    return [
        {"block": block, "runs": len(kept), "least_kept": min(kept), "most_kept": max(kept), "equal": len({*kept}) == 1}
        for block, kept in blocks.items()
    ]


def candidates(rows: Sequence[Row]) -> list[Row]:
    """The settings that were run in every block, by the mean over blocks of their difference on validation data.

    `allowed`: at most a third of the full budget's epochs in every block. The first allowed one is to be confirmed.
    """
    blocks = {row["block"] for row in rows}
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["validation_minus_full"] is not None and row["of_full_epochs"] is not None:
            found.setdefault((row["rule"], row["setting"]), []).append(row)
    made = []
    for (rule, setting), own in found.items():
        if {row["block"] for row in own} == blocks:
            most = max(row["of_full_epochs"] for row in own)
            gain = sum(row["validation_minus_full"] for row in own) / len(own)
            made.append(
                {"rule": rule, "setting": setting, "of_full_epochs_most": most, "allowed": most <= SHARE + 1e-9}
                | {"validation_minus_full": gain}
            )
    return sorted(made, key=lambda row: (not row["allowed"], -row["validation_minus_full"]))


def confirmation(grid: Cells) -> list[Row]:
    """Seeds that the search has not seen: difference with the full budget, its interval, whether the setting passes.

    It passes in a block where it takes at most a third of the full budget's epochs and the interval of the paired
    difference on test data lies above -0.3 points. `confidence` is that of the differences with the full budget.
    """
    made = []
    for (block, rule, setting), runs in grid.items():
        full = grid.get((block, "fixed", FULL), {})
        if (rule, setting) == ("fixed", FULL) or not full:
            continue
        share = _ratio(runs, full)
        row: Row = {"block": block, "rule": rule, "setting": setting, "seeds": len(runs.keys() & full.keys())}
        row |= told("epochs", mean(column(runs, "epochs").values())) | told("of_full_epochs", share)
        looks = 1 if block in ONCE else LOOKS.get((rule, setting), 1)
        confidence = 1 - 0.05 / looks
        lost = {split: paired(accuracy(runs, split), accuracy(full, split), confidence) for split in SPLITS}
        row["confidence"] = confidence
        for split, found in lost.items():
            row |= told(f"{split}_minus_full", found)
        one = paired(accuracy(runs, "test"), accuracy(grid.get((block, "fixed", "1"), {}), "test"))
        row |= told("test_minus_one_epoch", None if (rule, setting) == ("fixed", "1") else one)
        made.append(row | {"passes": _passes(share, lost["test"])})
    return made


def _passes(share: Mean | None, lost: Mean | None) -> bool | None:
    """None where there is no interval."""
    if share is None or lost is None or lost.interval is None:
        return None
    return share.mean <= SHARE + 1e-9 and lost.interval[0] > -BAR
