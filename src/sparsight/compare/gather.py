"""Gathers the networks of runs: their settings, quality, cost and origin."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sparsight.compare.evaluation import stored
from sparsight.numerics import format as words
from sparsight.records.files import there
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord, to_json
from sparsight.records.trials import read_study
from sparsight.report.run_view import Story, key, name, story

Kind = Literal["text", "share", "number", "count", "bytes", "seconds"]
MANY = 1000
"""With more networks, "auto" shows only chosen and dense ones."""


@dataclass(frozen=True)
class Column:
    """A fact about networks: its name, its format, and which values are better: 1 higher, -1 lower, 0 neither."""

    name: str
    kind: Kind = "text"
    better: int = 0


@dataclass(frozen=True)
class Network:
    """One network. `parts` holds values by layer, class, ..., by their name ("density by layer", ...)."""

    key: str  # run and level, unique
    id: str  # content id: equal networks of several runs share it
    parent: str | None  # id of the network that it was pruned from
    made: str  # how it was pruned and trained, in words
    name: str  # short, unique on its page
    group: str  # shared by levels and seeds; in a study, by all densities of a method
    setting: str  # shared by the same level of other seeds
    values: Mapping[str, Any]  # by column name
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of its run's recipe
    run: str = ""  # the folder of its run


@dataclass(frozen=True)
class Comparison:
    networks: tuple[Network, ...]
    columns: tuple[Column, ...]  # with values that differ
    same: Mapping[str, Any]  # values that all networks share
    left_out: int  # networks that are not shown


_COLUMNS = {
    column.name: column
    for column in (
        Column("run"), Column("label"), Column("recipe"), Column("level", "count"), Column("role"), Column("chosen"),
        Column("seed", "count"), Column("status"), Column("density", "share", -1), Column("kept", "count", -1),
        Column("validation accuracy", "share", 1), Column("test accuracy", "share", 1),
        Column("worst class accuracy", "share", 1), Column("robust accuracy", "share", 1), Column("ece", "share", -1),
        Column("brier", "number", -1), Column("nll", "number", -1), Column("agreement", "share", 1),
        Column("churn", "share", -1), Column("lost", "share", -1), Column("mce", "number", -1),
        Column("excess error", "share", -1), Column("validation loss", "number", -1), Column("test loss", "number", -1),
        Column("dead outputs", "count", -1), Column("packed bytes", "bytes", -1),
        Column("effective macs", "count", -1), Column("latency", "seconds", -1), Column("speedup", "number", 1),
        Column("epochs so far", "number", -1), Column("steps so far", "count", -1),
        Column("seconds so far", "seconds", -1), Column("content id"), Column("came from"), Column("made by"),
        Column("model"), Column("data"), Column("device"), Column("sparsight"),
    )
}  # fmt: skip
_PARTS = {"class_accuracy": "accuracy by class", "corrupted_accuracy": "accuracy under corruption"}


def gather(runs: Iterable[Path], levels: Literal["auto", "all", "chosen"] = "auto") -> Comparison:
    """The networks of the runs in these folders, from their records and what `evaluate` stored.

    "chosen" takes each run's chosen network (otherwise its last level) and the dense one, which runs may share; "auto"
    does so if there are more than 1,000 networks. Raises: as `RunFolder.open`.
    """
    paths = [Path(path) for path in dict.fromkeys(map(str, runs))]
    studies = {study for path in paths if there((study := path.parent.parent) / "study.json")}
    labels = {study / "trials" / key: trial.label for study in studies for key, trial in read_study(study)[0].items()}
    found = [_run(path, labels.get(path, "")) for path in paths]
    every = sum(map(len, found))
    if levels == "chosen" or (levels == "auto" and every > MANY):
        found = [_ends(networks) for networks in found]
        first = {n.id: n.key for networks in reversed(found) for n in networks if not n.values["chosen"]}
        found = [[n for n in of if first.get(n.id, n.key) == n.key] for of in found]  # dense ones that runs share
    networks = [n for of in found for n in of]
    keys = dict.fromkeys(k for n in networks for k in n.arguments)
    seen = {k: {json.dumps(to_json(n.arguments.get(k))) for n in networks} for k in keys}
    differ = [k for k in seen if len(seen[k]) > 1 and k != "seed"]
    networks = _named(networks, differ)
    names = list(dict.fromkeys(name for n in networks for name in n.values))
    names.sort(key=lambda x: [*_COLUMNS].index(x) if x in _COLUMNS else len(_COLUMNS))
    same: dict[str, Any] = {_argument(k, networks[0]): json.loads(*v) for k, v in seen.items() if len(v) == 1}
    columns = []
    for one in names:
        values = {repr(n.values.get(one)) for n in networks}
        if len(values) > 1:
            columns.append(_COLUMNS.get(one, _column(one, networks)))
        elif networks:
            same[one] = networks[0].values.get(one)
    return Comparison(tuple(networks), tuple(columns), same, every - len(networks))


def _column(name: str, networks: Sequence[Network]) -> Column:
    """The column of a recipe's argument, a PQ index, or another metric."""
    values = [n.values.get(name) for n in networks]
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values if v is not None)
    return Column(name, "number" if numbers and any(v is not None for v in values) else "text")


def _argument(name: str, network: Network) -> str:
    """The column name of a recipe's argument, which may clash with a fact such as density."""
    return f"argument {name}" if name in network.values else name


def _named(networks: Sequence[Network], differ: Sequence[str]) -> list[Network]:
    """The networks with differing arguments among their values, and names that distinguish them."""
    several = [k for k in ("model", "data") if len({n.values[k] for n in networks}) > 1]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for n in networks:
        kinds.setdefault(n.values["label"] or n.values["recipe"], []).append(n.arguments)
    shown = {kind: _distinguishing(differ, of) for kind, of in kinds.items()}
    found = []
    for n in networks:
        label, level = n.values["label"], n.name.rpartition(", ")[2]
        kind = label or n.values["recipe"]
        group = ", ".join([kind, *(str(n.values[k]).rpartition(":")[2] for k in several)])
        told = (f"{k.removeprefix('target_').replace('_', ' ')} {_short(n.arguments.get(k))}" for k in shown[kind])
        setting = ", ".join([group, *told])
        short = f"{setting}, seed {n.values['seed']}, {level}" if label else n.name
        own = {_argument(k, n): n.arguments.get(k) for k in differ}
        given = {k: v if isinstance(v, (int, float)) else _short(v) for k, v in own.items()}
        called = replace(n, name=short, values={**n.values, **given})
        found.append(replace(called, group=group if label else setting, setting=f"{setting}, {level}"))
    names = Counter(n.name for n in found)
    return [n if names[n.name] == 1 else replace(n, name=old.name) for n, old in zip(found, networks, strict=True)]


def _distinguishing(names: Sequence[str], of: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arguments that distinguish settings, densities first, without redundant ones."""
    found: list[str] = []
    for k in sorted(names, key=lambda k: "density" not in k):
        few, more = ({tuple(_short(x.get(j)) for j in of_them) for x in of} for of_them in (found, [*found, k]))
        if len(more) > len(few):
            found.append(k)
    return found


def _short(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(to_json(value))


def _ends(networks: Sequence[Network]) -> list[Network]:
    """The chosen network (otherwise the last level) and the first level; parents are the nearest of these."""
    levels = [n for n in networks if n.values["role"] == "level"]
    chosen = next((n for n in levels if n.values["chosen"] == "yes"), levels[-1] if levels else None)
    kept = [n for n in networks if n is chosen or n is (levels[0] if levels else None)]
    parents, left = {n.id: n.parent for n in networks}, {n.id for n in kept}

    def nearest(parent: str | None) -> str | None:
        return parent if parent is None or parent in left else nearest(parents.get(parent))

    return [replace(n, parent=nearest(n.parent)) for n in kept]


def _run(path: Path, label: str) -> list[Network]:
    with RunFolder.open(path) as folder:
        s = story(folder.record, folder.levels(), folder.times(), folder.evaluation())
    measured: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    if (path / "rows.json").exists():
        for row in stored(path).rows:
            if row["level"] is not None:
                measured.setdefault((row["role"], row["level"]), []).append(row)
    run = s.run
    about = {"run": path.name, "label": label, "recipe": run.recipe, "seed": run.seed, "status": run.status}
    about |= {"model": str(run.model.get("spec") or run.model.get("type", "")), "data": str(run.data.get("name", ""))}
    about |= {name: str(run.environment.get(name, "")) for name in ("device", "sparsight")}
    before, found = (0.0, 0.0, 0.0), []
    for x in s.records:
        took = x.epochs, x.steps, s.times[key(x)].total if key(x) in s.times else 0.0
        if x.role == "level":
            took = before = before[0] + took[0], before[1] + took[1], before[2] + took[2]
        cost = {"epochs so far": took[0], "steps so far": took[1], "seconds so far": took[2] or None}
        values = {**about, **_facts(s, x), **cost}
        parts: dict[str, dict[str, float]] = {"density by layer": {layer.name: layer.density for layer in x.layers}}
        if x.pq_pairs:
            parts["PQ index by layer"] = {layer.name: layer.pq[0] for layer in x.layers if layer.pq and layer.kept}
        _evaluated(measured.get((x.role, x.level), ()), values, parts)
        called = f"{path.name}, {name(x)}"
        of = (_made(x), called, "", "", values, parts, run.arguments, str(path))
        found.append(Network(f"{path} {name(x)}", x.id, x.parent, *of))
    return found


def _facts(s: Story, x: LevelRecord) -> dict[str, Any]:
    facts = {"level": x.level, "role": x.role, "density": x.density, "kept": x.kept}
    facts |= {"chosen": "yes" if x is s.chosen else "", "content id": x.id[:12], "came from": (x.parent or "")[:12]}
    facts |= {"made by": _made(x), "validation loss": x.validation_loss}
    facts |= {f"validation {x.metric.name}": x.value, f"test {x.metric.name}": s.test_value(x)}
    return facts | {f"PQ index ({p:g}, {q:g})": v for (p, q), v in zip(x.pq_pairs, x.pq, strict=False)}


def _evaluated(rows: Iterable[Mapping[str, Any]], values: dict[str, Any], parts: dict[str, dict[str, float]]) -> None:
    """Add a network's measurements to its values or its parts."""
    severe: dict[str, list[float]] = {}
    for row in rows:
        metric = row["metric"].replace("_", " ")
        if row["metric"] == "corrupted_accuracy":
            severe.setdefault(row["group"], []).append(row["value"])
        elif row["metric"] in _PARTS:
            parts.setdefault(_PARTS[row["metric"]], {})[row["group"]] = row["value"]
        elif row["metric"] in ("latency", "speedup"):
            values[metric if row["group"] == "sparsight" else f"{metric}, {row['group']}"] = row["value"]
        elif metric in _COLUMNS and (not row["group"] or row["metric"] == "worst_class_accuracy"):
            values["test accuracy" if metric == "accuracy" else metric] = row["value"]
    if severe:
        parts[_PARTS["corrupted_accuracy"]] = {group: sum(of) / len(of) for group, of in severe.items()}


def _made(x: LevelRecord) -> str:
    """How a network was made: pruning, restart, epochs."""
    rounds = [r.get("type", "") for r in x.operation.get("rounds", ()) if isinstance(r, Mapping)]
    pruned = f"{' and '.join(dict.fromkeys(rounds))} to {words.exactly(x.density)}" if rounds else "not pruned"
    times = f", {len(rounds)} rounds" if len(rounds) > 1 else ""
    start = str(x.operation.get("restart", "")).removeprefix("sparsight:") if rounds else ""
    return f"{pruned}{times}{f', {start}' if start else ''}, {x.epochs:g} epochs"


def rows(found: Comparison) -> list[dict[str, Any]]:
    """A row per network with all its values, None if unknown."""
    names = list(dict.fromkeys(name for n in found.networks for name in n.values))
    names += [name for name in dict.fromkeys(k for n in found.networks for k in n.arguments) if name not in names]
    every = []
    for n in found.networks:
        own = {k: v if isinstance(v, (int, float, str)) or v is None else _short(v) for k, v in n.arguments.items()}
        values = {**own, **n.values}
        which = {"key": n.key, "id": n.id, "parent": n.parent, "made": n.made}
        every.append(which | {name: values.get(name) for name in names})
    return every
