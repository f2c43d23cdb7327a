"""Runs in closed form, written to disk as runs are, without their weights."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from samples import MLP, digest, sample

from sparsight.records.folder import RunFolder
from sparsight.records.record import Evaluated, Evaluation

RECIPES = ("sap", "lottery", "oneshot", "snip")


def write_runs(into: Path, count: int, levels: int = 2, word: str = "", **given: float) -> list[Path]:
    """`count` runs of four recipes, five rates and as many seeds as it takes; accuracy falls by recipe."""
    noise, paths = random.Random(0), []
    for i in range(count):
        recipe, rate, seed = RECIPES[i % 4], (0.2, 0.4, 0.6, 0.8, 0.9)[i // 4 % 5], i // 20
        s = sample(levels, rate=rate, recipe=recipe + word, control=False, chosen=levels - 1,
                   network=tuple((name + word, shape) for name, shape in MLP))  # fmt: skip
        lost = 0.01 * RECIPES.index(recipe)
        made = [
            replace(x, id=digest(i, x.level) if x.level else digest(recipe, seed), files={},
                    parent=(digest(i, x.level - 1) if x.level > 1 else digest(recipe, seed)) if x.level else None,
                    observations=tuple(replace(o, validation_accuracy=(o.validation_accuracy or 0) - lost * x.level
                                               + noise.gauss(0, 0.002)) for o in x.observations))
            for x in s.levels
        ]  # fmt: skip
        chosen = s.run.chosen and replace(s.run.chosen, id=made[-1].id)
        arguments = {"rate": rate, "epochs": 3, "seed": seed, "scope": "global", **given}
        run = replace(s.run, seed=seed, arguments=arguments, chosen=chosen, keep="last", status="interrupted")
        tests = [Evaluated(x.level, x.role, x.id, (x.validation_accuracy or 0) - 0.005, 0.4, 10_000) for x in made]
        paths.append(into / f"{recipe}-{i:04d}{word}".replace("/", "-"))
        with RunFolder.create(paths[-1], run) as folder:
            folder._write_levels(made)
            folder.save_evaluation(Evaluation(tuple(tests)))
    return paths
