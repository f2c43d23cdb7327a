"""What the rows of the study say of single methods: shapes, losses at the turns, robustness, ablations, exact counts.

Every function returns tidy rows. Accuracies are in per cent, and differences in points; both come for the validation
and for the test split.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from compare import Shape, at_density, count, retained
from gather import PAIRS
from runs import OVER, SPLITS, TOLERANCES, WORTH, Cells, Row, Run, named, told

from sparsight.compare import mean

# -- the shape of the trajectories -----------------------------------------------------------------------------


def shapes(grid: Cells) -> list[Row]:
    """In how many runs the index falls, rises and falls again, by (p, q) of the index and tolerance of the rule."""
    found = []
    for cell, runs in grid.items():
        for pair in PAIRS.values():
            for tolerance in TOLERANCES:
                seen = [run.shape(pair, tolerance) for run in runs]
                words = Counter(s.word for s in seen)
                said = "; ".join(f"{word} ({n})" for word, n in words.most_common())
                tallies = {name: sum(getattr(s, name) for s in seen) for name in ("falls", "rises", "falls_again")}
                found.append(
                    {**named(cell), "index": pair, "tolerance": tolerance, "runs": len(runs), **tallies, "shapes": said}
                )
    return found


def losses(grid: Cells) -> list[Row]:
    """Points lost against the dense network at turns of the index.

    At the lowest index; at the first level within the tolerance of it, which noise moves less; at minima that a later
    rise confirms, and at peaks that a later fall confirms. `still_falling`: runs whose lowest index is their last
    level, so that a longer run might find it elsewhere.
    """
    kinds: dict[str, Callable[[Run, Shape, str], int | None]] = {
        "lowest index": lambda run, s, pair: s.minimum,
        "first near the lowest": lambda run, s, pair: _first_near(run, s, pair),
        "confirmed minimum": lambda run, s, pair: s.minimum if s.rises else None,
        "peak": lambda run, s, pair: s.peak,
    }
    found = []
    for cell, runs in grid.items():
        for pair in PAIRS.values():
            for kind, where in kinds.items():
                at = [(run, where(run, run.shape(pair), pair)) for run in runs]
                there = [(run, level) for run, level in at if level is not None]
                densities = [run.levels[level]["density"] for run, level in there]
                row = {**named(cell), "index": pair, "at": kind, "runs": len(runs), "n": len(there)}
                row |= {"still_falling": sum(run.shape(pair).minimum == len(run.levels) - 1 for run, _ in there)}
                row |= {"density_least": min(densities, default=None), "density_most": max(densities, default=None)}
                for split in SPLITS:
                    lost = mean([run.lost(split, level) for run, level in there])
                    row |= {f"{split}_{name}": x for name, x in told(lost).items() if name != "n"}
                found.append(row)
    return found


def _first_near(run: Run, turns: Shape, pair: str) -> int | None:
    if turns.minimum is None:
        return None
    most = run.levels[turns.minimum][pair] + TOLERANCES[0]
    return next(i for i, x in enumerate(run.levels) if x[pair] is not None and x[pair] <= most)


# -- robustness ------------------------------------------------------------------------------------------------


def robustness(grid: Cells) -> list[Row]:
    """Over-pruned layers, floors that acted, rows without weights, and the spread over seeds.

    A layer is over-pruned at a level if its density is below a tenth of the network's. Counted down to 1 % density,
    and over all levels (`..._all`).
    """
    found = []
    for cell, runs in grid.items():
        pruned = [(run, x) for run in runs for x in run.levels[1:] if x["density"] >= WORTH]
        over = [(run, x, _over(run, x)) for run, x in pruned]
        names = Counter(name for _, _, layers in over for name in layers)
        first = [max(x["density"] for r, x, layers in over if r is run and layers) for run in _runs_over(over)]
        row: Row = {**named(cell), "runs": len(runs), "levels": len(pruned)}
        row |= {"over_levels": sum(bool(layers) for *_, layers in over), "over_runs": len(first)}
        row |= {"over_first_density": max(first, default=None), "over_layers": _counted(names)}
        everything = [(run, x) for run in runs for x in run.levels[1:]]
        row |= {"levels_all": len(everything), "over_levels_all": sum(bool(_over(run, x)) for run, x in everything)}
        row |= {"floor_levels": sum(x["floors"] > 0 for _, x in pruned)}
        row |= {"floor_levels_all": sum(x["floors"] > 0 for _, x in everything)}
        for density in (0.1, 0.02):
            empty = [e for run in runs if (e := at_density(_empty(run), density)) is not None]
            test = mean(run.accuracy("test", density) for run in runs)
            row |= {f"empty_rows_at_{density:g}": 100 * math.fsum(empty) / len(empty) if empty else None}
            row |= {f"test_deviation_at_{density:g}": test.deviation if test else None}
        at_ten = mean([math.log(run.levels[10]["density"]) for run in runs if len(run.levels) > 10])
        row |= {"density_deviation_at_level_10": at_ten.deviation if at_ten else None}
        found.append(row)
    return found


def _over(run: Run, level: Row) -> list[str]:
    return [x["layer"] for x in run.layers[level["level"]] if x["density"] < OVER * level["density"]]


def _runs_over(over: Sequence[tuple[Run, Row, list[str]]]) -> list[Run]:
    return list({id(run): run for run, _, layers in over if layers}.values())


def _counted(names: Counter[str]) -> str | None:
    return ", ".join(f"{name} ({n})" for name, n in names.most_common()) or None


def _empty(run: Run) -> list[tuple[float, float]]:
    """(density, share of output rows without a weight) by level."""
    sums = [(x, run.layers[x["level"]]) for x in run.levels]
    return [(x["density"], sum(y["empty_rows"] for y in layers) / sum(y["rows"] for y in layers)) for x, layers in sums]


# -- ablations and exact arithmetic ----------------------------------------------------------------------------


def checks(runs: Sequence[Run], counts: Sequence[Row]) -> list[Row]:
    """Recorded prune counts against the formula at the recorded index; floors, which change counts, are set apart."""
    by_run = {run.what["run"]: run for run in runs}
    found: dict[tuple[str, str, str], Row] = {}
    for x in counts:
        what = by_run[x["run"]].what
        at = (what["kind"], what["scope"], what["method"] if what["kind"] == "grid" else "SAP, ablations")
        row = found.setdefault(at, {**dict(zip(("kind", "scope", "method"), at, strict=True)), "groups": 0})
        row.update({name: row.get(name, 0) for name in ("equal", "unequal", "floor_bound", "undefined")})
        row["groups"] += 1
        row[_verdict(what, x)] += 1
    return list(found.values())


def _verdict(what: Row, x: Row) -> str:
    if x["floor_bound"]:
        return "floor_bound"
    if not x["defined"]:
        return "undefined"
    return "equal" if predicted(what, x) == x["c"] else "unequal"


def predicted(what: Row, x: Row) -> int:
    return count(x["d"], x["index"], *(what[name] for name in ("p", "q", "eta", "gamma", "beta")))


def ablations(runs: Sequence[Run], counts: Sequence[Row]) -> list[Row]:
    """The ablations and the two runs of the grid that they start from (MLP, global, seed 0), against the formula."""
    first = {x["run"]: x for x in counts if x["level"] == 1 and x["group"] == "global"}
    found = []
    for run in runs:
        what = run.what
        base = what["kind"] == "grid" and (what["network"], what["scope"], what["seed"]) == ("mlp", "global", 0)
        if what["run"] not in first or not (base or what["kind"] == "ablation"):
            continue
        x, level = first[what["run"]], run.levels
        r = retained(x["d"], x["index"], what["p"], what["q"], what["eta"])
        row: Row = {name: what[name] for name in ("run", "kind", "p", "q", "eta", "gamma", "beta")}
        row |= {"dense_index": x["index"], "predicted_r": r, "predicted_c": predicted(what, x), "recorded_c": x["c"]}
        row |= {"capped": what["gamma"] * (x["d"] - r) > what["beta"] * x["d"], "density_1": level[1]["density"]}
        for at in (5, 10, 15):
            there = level[at] if len(level) > at else {}
            row |= {f"density_{at}": there.get("density"), f"test_{at}": _percent(there.get("test_accuracy"))}
        for density in (0.2, 0.1, 0.05, 0.02):
            row |= {f"{split}_at_{density:g}": run.accuracy(split, density) for split in SPLITS}
        seen = run.shape("pq_05_1")
        row |= {"shape": seen.word, "levels": what["levels"], "ended": what["why_ended"]}
        row |= {"minimum_density": level[seen.minimum]["density"] if seen.minimum is not None else None}
        row |= {"peak_density": level[seen.peak]["density"] if seen.peak is not None else None}
        found.append(row)
    return sorted(found, key=lambda row: tuple(row[name] for name in ("p", "q", "eta", "gamma", "beta")))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
