"""Draw the README's picture from a run folder: accuracy and PQ index against density.

    python docs/pictures/make_picture.py runs/sap-001 docs/pictures/sap-fashion-mnist.png

Everything drawn is read from the run's records (run.json, levels.jsonl, evaluation.json). Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullLocator

from sparsight.records.folder import RunFolder

TEAL, ORANGE = "#00796b", "#d9822b"


def draw(folder: RunFolder, target: Path) -> None:
    levels = [r for r in folder.levels() if r.role == "level"]
    control = next((r for r in folder.levels() if r.role == "control"), None)
    evaluation, chosen = folder.evaluation(), folder.record.chosen
    test = {(e.role, e.level): e.test_accuracy for e in evaluation.entries} if evaluation else {}
    density = [100 * r.density for r in levels]

    settings = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(settings):
        figure, (top, bottom) = plt.subplots(
            2, 1, sharex=True, figsize=(8, 5), height_ratios=(3, 2), layout="constrained"
        )
        top.plot(density, [100 * r.validation_accuracy for r in levels], "o-", color=TEAL, label="validation")
        tested = [
            (d, 100 * test["level", r.level])
            for d, r in zip(density, levels, strict=True)
            if ("level", r.level) in test
        ]
        if tested:
            top.plot(*zip(*tested, strict=True), "D--", color=ORANGE, markersize=4, label="test")
        if control is not None and control.validation_accuracy is not None:
            label = f"dense for {control.epochs:g} epochs"
            top.axhline(100 * control.validation_accuracy, color=TEAL, linestyle=":", label=f"{label}, validation")
            if ("control", control.level) in test:
                top.axhline(100 * test["control", control.level], color=ORANGE, linestyle=":", label=f"{label}, test")
        low, high = top.get_ylim()
        top.set_ylim(low - 0.3 * (high - low), high)  # room for the legend
        top.set_ylabel("accuracy (%)")
        for p, q in levels[0].pq_pairs:
            at = levels[0].pq_pairs.index((p, q))
            style = "o-" if at == 0 else "s--"
            bottom.plot(
                density, [r.pq[at] for r in levels], style, color=TEAL, markersize=5, label=f"p, q = {p:g}, {q:g}"
            )
        bottom.set_ylabel("PQ index")
        bottom.set_xlabel("weights left (%)")
        bottom.set_xscale("log")
        bottom.invert_xaxis()
        bottom.set_xticks(density)
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
        if chosen is not None:
            where = next(d for d, r in zip(density, levels, strict=True) if r.id == chosen.id)
            for panel in (top, bottom):
                panel.axvline(where, color=TEAL, alpha=0.15, linewidth=12, label="_")
            top.annotate("chosen", (where, 0.03), xycoords=("data", "axes fraction"), ha="center", color=TEAL)
        top.legend(frameon=False, loc="lower center", ncols=2)
        bottom.legend(frameon=False, loc="upper center", ncols=2)
        data = folder.record.data.get("name", "data")
        top.set_title(
            f"{folder.record.recipe} on {data}, {folder.record.model['prunable']:,} prunable weights", loc="left"
        )
        figure.savefig(target, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    with RunFolder.open(args.run) as folder:
        draw(folder, args.target)


if __name__ == "__main__":
    main()
