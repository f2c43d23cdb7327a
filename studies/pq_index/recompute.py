"""Compute the PQ indices, counts and masks of a run again, from its folder alone, and compare them with its records.

    python studies/pq_index/recompute.py RUN

Independent of the package: numpy in float64, safetensors and json, written from the formulas. RUN is the folder of a
finished run with `--keep all`. For every level and the control: pruned weights are exactly +0.0, kept and prunable
weights are counted, and the PQ index of every tensor and of all alive weights is computed at every recorded (p, q). For
every pruned level of SAP and of the fixed-rate recipes: what each group was measured at and what was decided is
computed from the weights that were scored, and so is which weights go (lower index first among equals); the masks have
to be the stored ones, bit for bit. Prints a line for each level; exit code 1 if anything differs, 2 if files are
missing. Indices may differ by what float32 powers lose (`slack`); counts and masks may not differ at all.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

Arrays = dict[str, np.ndarray]
Groups = list[tuple[str, np.ndarray]]  # name, and the places of its weights in the vector of all

EXACT, POWER = 1e-12, 2.0**-23
"""What may differ: of float64 sums, and of a power |w|^e that the package rounds to float32 (e not 1 or 2)."""


# -- reading ---------------------------------------------------------------------------------------------------


def records(run: Path) -> list[dict[str, Any]]:
    """The levels and the control. The last line seals the others."""
    lines = [json.loads(line) for line in (run / "levels.jsonl").read_text().splitlines()]
    return [line for line in lines if "role" in line]


def folder(run: Path, record: Mapping[str, Any]) -> Path:
    return run / "levels" / ("control" if record["role"] == "control" else f"{record['level']:03d}")


def network(run: Path, record: Mapping[str, Any]) -> tuple[Arrays, Arrays]:
    """Prunable weights and masks of a level, in the order of its record. A mask is one bit a weight, row-major."""
    weights, masks = {}, {}
    with (
        safe_open(folder(run, record) / "model.safetensors", "numpy") as model,
        safe_open(folder(run, record) / "masks.safetensors", "numpy") as bits,
    ):
        for layer in record["layers"]:
            name, shape = layer["name"], layer["shape"]
            weights[name] = model.get_tensor(name)
            masks[name] = np.unpackbits(bits.get_tensor(name))[: math.prod(shape)].astype(bool).reshape(shape)
    return weights, masks


# -- the formulas ----------------------------------------------------------------------------------------------


def pq_index(alive: np.ndarray, p: float, q: float) -> float:
    """1 - M_p / M_q of the magnitudes, M_e = (mean |w|^e)^(1/e); 0 where it is undefined or all are equal."""
    w = np.abs(alive.astype(np.float64))
    if not len(w) or w.max() == w.min():
        return 0.0
    w = w / w.max()
    low, high = (float(np.mean(w**e)) ** (1 / e) for e in (p, q))
    return max(0.0, 1 - low / high)


def slack(p: float, q: float) -> float:
    """How far a recorded PQ index may be off."""
    return EXACT + sum(POWER / e for e in (p, q) if e not in (1, 2))


def whole(value: float, count: int) -> int:
    """floor, but the nearest whole number within 1e-9 of the count."""
    near = round(value)
    return near if abs(value - near) <= 1e-9 * max(1, count) else math.floor(value)


def decide(alive: np.ndarray, rule: Mapping[str, Any]) -> dict[str, Any]:
    """What a group is measured at, and how many of its weights should go."""
    d = len(alive)
    if rule["type"] == "Shrink":
        return {"d": d, "index": None, "r": None, "c": whole(rule["rate"] * d, d)}
    p, q = rule["p"], rule["q"]
    index = pq_index(alive, p, q)
    r = d * (1 + rule["eta"]) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p))
    keep = r if rule["rounding"] == "paper" else -whole(-r, d)
    c = whole(min(rule["gamma"] * (d - keep), rule["beta"] * d), d)
    return {"d": d, "index": index, "r": r, "c": min(max(c, 0), d) if np.any(alive != 0) else 0}


def limit(counts: list[int], spare: int) -> list[int]:
    """The counts scaled down to a sum of `spare`, in proportion; largest remainders first, then the first group."""
    total = sum(counts)
    if total <= spare:
        return counts
    shares = [Fraction(c * max(spare, 0), total) for c in counts]
    after = [math.floor(s) for s in shares]
    order = sorted(range(len(counts)), key=lambda i: after[i] - shares[i])
    for i in order[: max(spare, 0) - sum(after)]:
        after[i] += 1
    return after


def floored(d: list[int], counts: list[int], least: int) -> list[int]:
    """Every group keeps at least min(least, d); what is missing goes from those that keep most, first group first."""
    room = [n - min(least, n) for n in d]
    after = [min(c, r) for c, r in zip(counts, room, strict=True)]
    for _ in range(sum(counts) - sum(after)):
        free = [i for i in range(len(d)) if after[i] < room[i]]
        after[max(free, key=lambda i: (d[i] - after[i], -i))] += 1
    return after


def grouped(masks: Arrays, scope: str) -> Groups:
    """The places of all, alive or not, that are ranked together."""
    found, start = [], 0
    for name, mask in masks.items():
        places = np.arange(start, start + mask.size)
        start += mask.size
        if scope == "neuron":
            found += [(f"{name}[{i}]", row) for i, row in enumerate(places.reshape(len(mask), -1))]
        else:
            found.append((name, places))
    return [("global", np.arange(start))] if scope == "global" else found


def prune(weights: Arrays, masks: Arrays, rule: Mapping[str, Any]) -> tuple[Arrays, list[dict[str, Any]]]:
    """The masks after a round, and what each group was measured at and lost."""
    size = np.concatenate([np.abs(weights[name]).ravel() for name in masks])
    on = np.concatenate([mask.ravel() for mask in masks.values()])
    groups, least = grouped(masks, rule["scope"]), rule["min_keep"]
    found = [decide(size[places[on[places]]], rule) for _, places in groups]
    counts, d = [g["c"] for g in found], [g["d"] for g in found]
    if rule.get("target_density") is not None:
        aim = math.floor(Fraction(str(rule["target_density"])) * len(on) + Fraction(1, 2))
        left = [n - c for n, c in zip(d, counts, strict=True)]
        if rule.get("exact") and sum(left) > aim:
            counts = [n - c for n, c in zip(d, limit(left, aim), strict=True)]
        else:
            counts = limit(counts, sum(d) - aim)
    rows = grouped(masks, "neuron" if rule["scope"] == "neuron" else "layer")
    counts = limit(counts, sum(max(0, int(on[places].sum()) - least) for _, places in rows))
    spared = np.zeros(len(on), bool)
    if rule["scope"] == "global":
        for _, places in grouped(masks, "layer"):  # the largest of every tensor stay
            alive = places[on[places]]
            spared[alive[np.argsort(size[alive], kind="stable")][max(0, len(alive) - least) :]] = True
    else:
        counts = floored(d, counts, least)
    after = on.copy()
    for (_, places), c in zip(groups, counts, strict=True):
        alive = places[on[places] & ~spared[places]]
        after[alive[np.argsort(size[alive], kind="stable")[:c]]] = False
    cuts = np.cumsum([mask.size for mask in masks.values()])[:-1]
    pieces = zip(masks.items(), np.split(after, cuts), strict=True)
    named = [{**g, "name": name, "c": c} for (name, _), g, c in zip(groups, found, counts, strict=True)]
    return {name: piece.reshape(mask.shape) for (name, mask), piece in pieces}, named


# -- comparing -------------------------------------------------------------------------------------------------


def state_of(record: Mapping[str, Any], weights: Arrays, masks: Arrays) -> Iterator[str]:
    """Differences between a level's files and its record."""
    for name, mask in masks.items():
        pruned = weights[name][~mask]
        if np.any(pruned != 0) or np.any(np.signbit(pruned)):
            yield f"{name}: a pruned weight is not +0.0"
    alive = {name: weights[name][mask] for name, mask in masks.items()}
    together = np.concatenate(list(alive.values()))
    yield from different("kept", record["kept"], len(together))
    yield from different("total", record["total"], sum(mask.size for mask in masks.values()))
    yield from different("collapsed", record["collapsed"], [name for name, w in alive.items() if not len(w)])
    for layer in record["layers"]:
        name = layer["name"]
        yield from different(f"kept of {name}", layer["kept"], len(alive[name]))
        yield from different(f"total of {name}", layer["total"], masks[name].size)
    for where, w, recorded in [
        ("all weights", together, record["pq"]),
        *((layer["name"], alive[layer["name"]], layer["pq"]) for layer in record["layers"]),
    ]:
        for (p, q), value in zip(record["pq_pairs"], recorded, strict=True):
            yield from different(f"PQ index ({p:g}, {q:g}) of {where}", value, pq_index(w, p, q), slack(p, q))


def rounds_of(record: Mapping[str, Any], scored: Arrays, before: Arrays, masks: Arrays) -> Iterator[str]:
    """Differences between what the level's rounds decide, computed again, and what is stored."""
    groups: list[dict[str, Any]] = []
    for rule in record["operation"]["rounds"]:
        before, groups = prune(scored, before, rule)
    for name, mask in masks.items():
        wrong = int(np.sum(mask != before[name]))
        if wrong:
            yield f"mask of {name}: {wrong} of {mask.size} bits differ from those computed again"
    yield from different("groups", [g["name"] for g in record["groups"]], [g["name"] for g in groups])
    rule = record["operation"]["rounds"][-1]
    p, q = rule.get("p", 1), rule.get("q", 2)
    for there, here in zip(record["groups"], groups, strict=False):
        r_slack = 2 * here["d"] * slack(p, q) * p * q / (q - p) / (1 - (here["index"] or 0.0))
        for what, tolerance in (("d", 0.0), ("c", 0.0), ("index", slack(p, q)), ("r", r_slack)):
            yield from different(f"{what} of {here['name']}", there[what], here[what], tolerance)


def different(what: str, recorded: Any, found: Any, tolerance: float = 0.0) -> Iterator[str]:
    same = recorded == found if tolerance == 0 or found is None else abs(float(recorded) - found) <= tolerance
    if not same:
        yield f"{what}: {recorded} on record, {found} computed again"


def derivable(operation: Mapping[str, Any]) -> bool:
    """Whether the masks follow from stored weights by a rule that is written down here."""
    known = all(rule["type"] in ("SAP", "Shrink") for rule in operation["rounds"])
    return known and operation["score"] == {"type": "Magnitude"} and operation["score_from"] in ("current", "dense")


def check(run: Path) -> Iterator[tuple[str, list[str]]]:
    """What was checked of each level, and what differs."""
    dense: tuple[Arrays, Arrays] | None = None
    parent: tuple[dict[str, Any], Arrays, Arrays] | None = None
    for record in records(run):
        weights, masks = network(run, record)
        wrong, rounds = list(state_of(record, weights, masks)), record["operation"].get("rounds") or []
        said = f"{record['role']} {record['level']}: {record['kept']} of {record['total']} weights"
        if record["role"] == "level" and parent is not None:
            wrong += different("parent", record["parent"], parent[0]["id"])
        if rounds and parent is not None and dense is not None and derivable(record["operation"]):
            scored = dense[0] if record["operation"]["score_from"] == "dense" else parent[1]
            wrong += rounds_of(record, scored, parent[2], masks)
            said += f", masks computed again from level {parent[0]['level']}"
        elif rounds:
            said += ", masks NOT computed again: the rule is not known here"
        if record["role"] == "level":
            dense, parent = dense or (weights, masks), (record, weights, masks)
        yield said, wrong


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    run, failed = parser.parse_args(argv).run, 0
    try:
        for said, wrong in check(run):
            print(f"{said}: {'all as recorded' if not wrong else f'{len(wrong)} differences'}")
            for line in wrong:
                print(f"  {line}")
            failed += bool(wrong)
    except FileNotFoundError as error:
        print(f"{error}: needed is the folder of a run with --keep all", file=sys.stderr)
        return 2
    print("everything as recorded" if not failed else f"{failed} levels differ from their records")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
