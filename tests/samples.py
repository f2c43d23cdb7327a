"""Synthetic records that agree with themselves: what a run of SAP (1, 2) would write, in closed form."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from sparsight.records.record import Choice, Evaluated, Evaluation, Layer, LevelRecord, LevelTimes, RunRecord
from sparsight.train.observation import Observation
from sparsight.types import GroupRecord, Scope

PAIRS = ((1.0, 2.0), (0.5, 1.0))
MLP = (("fc1.weight", (128, 784)), ("fc2.weight", (256, 128)), ("fc3.weight", (10, 256)))


@dataclass(frozen=True)
class Sample:
    run: RunRecord
    levels: tuple[LevelRecord, ...]
    times: tuple[LevelTimes, ...]
    evaluation: Evaluation | None

    @property
    def page_arguments(self) -> tuple[Any, ...]:
        return self.run, self.levels, self.times, self.evaluation


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def deep(count: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of a network with `count` convolutions."""
    names = []
    for i in range(count):
        width = 16 * 2 ** (4 * i // count)
        names.append((f"backbone.stage{4 * i // count}.block{i}.conv.weight", (width, width, 3, 3)))
    return tuple(names)


def _spread(total: int, weights: list[float], limits: list[int]) -> list[int]:
    """`total` split by `weights` into whole numbers, none above its limit."""
    shares = [min(int(total * w / sum(weights)), limit) for w, limit in zip(weights, limits, strict=True)]
    for i in range(len(shares)):
        more = min(total - sum(shares), limits[i] - shares[i])
        shares[i] += max(more, 0)
    assert sum(shares) == total
    return shares


def _accuracy(density: float) -> float:
    drop = 0.004 * max(0.0, -math.log10(density) - 0.6) ** 2 * 4
    return round(0.883 + 0.006 * math.sin(3 * math.log10(density) * -1) - drop, 4)


def _observations(level: int, density: float, epochs: int) -> tuple[Observation, ...]:
    final = _accuracy(density)
    return tuple(
        Observation(
            epoch=float(e),
            step=215 * e,
            learning_rate=0.003 / e,
            train_loss=0.6 / e + 0.01 * level,
            validation_loss=round(1.2 * (1 - final) * 2.4 + 0.2 / e, 4),
            validation_accuracy=round(final - 0.03 * (epochs - e) / e, 4),
            reason=f"{epochs} epochs" if e == epochs else None,
        )
        for e in range(1, epochs + 1)
    )


def _groups(scope: Scope, layers: tuple[Layer, ...], now: tuple[Layer, ...]) -> tuple[GroupRecord, ...]:
    def group(name: str, d: int, keep: int) -> GroupRecord:
        index = 1 - math.sqrt(keep / d) if d else 0.0
        return GroupRecord(name, d, d - keep, index, d * (1 - index) ** 2, defined=d > 0)

    if scope == "global":
        d = sum(x.kept for x in layers)
        keep = sum(x.kept for x in now)
        return (group("global", d, keep),)
    if scope == "layer":
        return tuple(group(x.name, x.kept, y.kept) for x, y in zip(layers, now, strict=True))
    rows = []
    for x, y in zip(layers, now, strict=True):
        n = x.shape[0]
        before = _spread(x.kept, [1.0] * n, [x.kept] * n)
        removed = _spread(x.kept - y.kept, [1.0] * n, before)
        rows += [
            GroupRecord(f"{x.name}[{i}]", d, c, 0.1, d * 0.81, defined=d > 0)
            for i, (d, c) in enumerate(zip(before, removed, strict=True))
        ]
    return tuple(rows)


def _layers(
    network: tuple[tuple[str, tuple[int, ...]], ...], before: tuple[Layer, ...], rate: float, level: int
) -> tuple[Layer, ...]:
    if not before:
        totals = [math.prod(shape) for _, shape in network]
        kept = totals
    else:
        totals = [x.total for x in before]
        alive = [x.kept for x in before]
        target = max(sum(alive) - int(sum(alive) * rate), 1)
        weights = [n * (0.8 + 0.5 * (i + 1) / len(alive)) for i, n in enumerate(alive)]
        kept = _spread(target, weights, alive)
    return tuple(
        Layer(
            name,
            shape,
            kept[i],
            totals[i],
            (round(0.12 + 0.02 * math.cos(i) + 0.004 * level, 4), round(0.09 + 0.01 * math.cos(i), 4)),
        )
        for i, (name, shape) in enumerate(network)
    )


def _level(
    level: int, layers: tuple[Layer, ...], before: tuple[Layer, ...], epochs: int, scope: Scope, model: str
) -> LevelRecord:
    kept, total = sum(x.kept for x in layers), sum(x.total for x in layers)
    rounds = [{"type": "SAP", "p": 1.0, "q": 2.0, "scope": scope}] if before else []
    return LevelRecord(
        level=level,
        role="level",
        id=digest(model, level, kept),
        parent=digest(model, level - 1, sum(x.kept for x in before)) if before else None,
        operation={"rounds": rounds, "restart": "rewind", "stop": {"type": "FixedEpochs", "epochs": epochs}},
        kept=kept,
        total=total,
        layers=layers,
        pq_pairs=PAIRS,
        pq=(round(0.118 + 0.0042 * level, 6), round(0.087 + 0.0021 * level, 6)),
        groups=_groups(scope, before, layers) if before else (),
        floors=(),
        collapsed=tuple(x.name for x in layers if not x.kept),
        observations=_observations(level, kept / total, epochs),
        epochs=float(epochs),
        steps=215 * epochs,
        files={f"levels/{level:03d}/model.safetensors": digest("model", level)},
    )


def _control(dense: LevelRecord, epochs: int) -> LevelRecord:
    last = replace(dense.observations[-1], epoch=float(epochs), step=215 * epochs, validation_accuracy=0.8894)
    return replace(
        dense,
        role="control",
        id=digest("control"),
        operation={"rounds": [], "restart": "none", "stop": {"type": "FixedEpochs", "epochs": epochs}},
        observations=(*dense.observations[:-1], replace(last, reason=f"{epochs} epochs")),
        epochs=float(epochs),
        steps=215 * epochs,
        pq=(0.1713, 0.1204),
    )


def _run(levels: tuple[LevelRecord, ...], recipe: str, data: str, model: str, chosen: int | None) -> RunRecord:
    choice = None
    if chosen is not None:
        why = "sparsest level within 0.5 points of the dense level's validation accuracy"
        choice = Choice(chosen, levels[chosen].id, why)
    return RunRecord(
        recipe=recipe,
        arguments={"p": 1.0, "q": 2.0, "scope": "global", "epochs": 3, "target_density": 0.1, "seed": 0},
        description={"type": "Recipe", "score": {"type": "Magnitude"}, "restart": "sparsight:rewind"},
        seed=0,
        data={"name": data, "facts": {"classes": 10, "mean": 0.286}, "fingerprint": digest(data)},
        model={"type": model, "parameters": 136074, "prunable": levels[0].total if levels else 0},
        environment={"sparsight": "0.2.0", "torch": "2.13.0", "device": "cpu", "threads": 2, "precision": "no"},
        keep="all",
        status="finished",
        started="2030-01-02T03:04:05Z",
        ended="2030-01-02T03:05:17Z",
        chosen=choice,
        why_ended="density 0.1 reached",
        command=f"sparsight run {recipe}",
    )


def sample(
    count: int = 11,
    *,
    network: tuple[tuple[str, tuple[int, ...]], ...] = MLP,
    rate: float = 0.214,
    epochs: int = 3,
    scope: Scope = "global",
    control: bool = True,
    evaluated: bool = True,
    chosen: int | Literal["sparsest"] | None = "sparsest",
    recipe: str = "sap",
    data: str = "fashion-mnist",
    model: str = "sparsight:MLP",
) -> Sample:
    """A run of `count` levels over `network`, pruning `rate` of the alive weights at each."""
    levels: list[LevelRecord] = []
    before: tuple[Layer, ...] = ()
    for level in range(count):
        layers = _layers(network, before, rate, level)
        levels.append(_level(level, layers, before, epochs, scope, model))
        before = layers
    good = [x.level for x in levels if (x.validation_accuracy or 0) >= (levels[0].validation_accuracy or 0) - 0.005]
    pick = max(good, default=None) if chosen == "sparsest" else chosen
    run = _run(tuple(levels), recipe, data, model, pick)
    if control and levels:
        levels.append(_control(levels[0], epochs * count))
    times = tuple(
        LevelTimes(x.level, x.role, 0.031 * (x.level > 0), 0.71 * x.epochs, 0.05 * x.epochs, 0.012, 0.04)
        for x in levels
    )
    entries = tuple(
        Evaluated(x.level, x.role, x.id, round((x.validation_accuracy or 0.0) - 0.005, 4), 0.4, 10_000) for x in levels
    )
    return Sample(run, tuple(levels), times, Evaluation(entries) if evaluated else None)
