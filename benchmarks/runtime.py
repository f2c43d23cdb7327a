"""Sparse layers and a sparse ResNet-18 on the runtime, beside the fastest dense ways, with the bars to reach.

    python benchmarks/runtime.py --json benchmarks/results/runtime.json [--rounds 25] [--only 3×3]
    python benchmarks/runtime.py --json benchmarks/results/runtime.json --docs   (the tables of the docs; no measuring)

Layers are timed on one thread (least process time), ResNet-18 at 224 × 224 on two (least wall time) and one; all ways
take turns.
A layer's time is that of its operation in the runtime's own layout; rivals get the layout that they are fastest in. A
network's is that of the whole call. Every result is checked against float64.

Each comparison is written as it comes: the same command goes on after Ctrl-C, and refuses a file that was measured on
another machine, with other versions or rounds. Bars compare with dense rivals: once with the fastest in fp32, once
with the fastest of all, which is bf16. A machine with AMX has no bars of the second kind. Linear layers are compared
with torch's CSR, which skips zeros too, in a column of its own; another one has the runtime with weights in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.deploy.bench import BFLOAT16, Case, chosen, compare, conv, linear, machine, network, prune_at_random_
from sparsight.deploy.runtime.program import compiled
from sparsight.deploy.runtime.trace import traced
from sparsight.records.outputs import write_output
from sparsight.report.timings import document

PAGE = Path(__file__).parents[1] / "docs" / "runtime-speed.md"
DENSITIES = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
AT = 0.1  # density at which layers have their bars
FEWER = 3  # so many times fewer rounds at other densities
FIRST, AGAIN = 20.0, 2.0  # seconds of ResNet-18's first call: nothing compiled yet, and from the cache

STEPS = {64: 56, 128: 28, 256: 14, 512: 7}  # channels of a stage of ResNet-18, and its images


def layers() -> dict[str, dict[str, Callable[[float], Case]]]:
    """Kinds of layers, and of each the layers by name: what makes one at a density."""
    return {
        "3×3, batch 1": {f"{c}@{s}": _conv(c, s) for c, s in STEPS.items()},
        "3×3, stride 2, batch 1": {
            f"{c}→{2 * c}@{s}": lambda d, c=c, s=s: conv((c, 2 * c), s, 3, 2, d) for c, s in list(STEPS.items())[:3]
        },
        "1×1, batch 1": {f"{c}@{STEPS[c]}": _conv(c, STEPS[c], 1) for c in (64, 256, 512)},
        "3×3, batch 16": {f"{c}@{s}": _conv(c, s, 3, 16) for c, s in STEPS.items()},
        "1×1, batch 16": {f"{c}@{STEPS[c]}": _conv(c, STEPS[c], 1, 16) for c in (64, 256, 512)},
        "linear, batch 16": {"1024→1024": _linear(1024, 1024, 16), "768→3072": _linear(768, 3072, 16)},
        "linear, batch 64 and more": {
            **{f"{i}→{o}, batch {n}": _linear(i, o, n) for i, o in ((1024, 1024), (768, 3072)) for n in (64, 256)},
            "4096→4096, batch 64": _linear(4096, 4096, 64),
        },
        "matrix-vector": {"1024→1024": _linear(1024, 1024, 1), "4096→4096": _linear(4096, 4096, 1)},
    }


def _conv(channels: int, size: int, kernel: int = 3, batch: int = 1) -> Callable[[float], Case]:
    return lambda density: conv((channels, channels), size, kernel, 1, density, batch)


def _linear(inputs: int, outputs: int, batch: int) -> Callable[[float], Case]:
    return lambda density: linear((inputs, outputs), density, batch)


@dataclass(frozen=True)
class Bar:
    """Ratios that the worst of some layers of a kind must reach, to the fastest dense rival in fp32 and of all."""

    kind: str
    layers: tuple[str, ...]  # () is all of the kind
    fp32: float
    whole: float


BARS = (
    Bar("3×3, batch 1", ("64@56", "128@28", "256@14"), 5.5, 2.8),
    Bar("3×3, batch 1", ("512@7",), 4.3, 2.1),
    Bar("3×3, stride 2, batch 1", (), 4.0, 2.0),
    Bar("1×1, batch 1", (), 2.6, 1.5),
    Bar("3×3, batch 16", (), 4.5, 2.2),
    Bar("linear, batch 16", (), 4.5, 2.2),
    Bar("linear, batch 64 and more", (), 6.5, 3.0),
    Bar("matrix-vector", ("1024→1024",), 2.5, 1.5),
    Bar("matrix-vector", ("4096→4096",), 9.0, 8.0),
)
NETWORKS = {  # name: (density, whether the stem is pruned too, the ratio to OpenVINO's bf16 to reach)
    "ResNet-18, 80 % zeros": (0.2, True, 1.15),
    "ResNet-18, 90 % zeros": (0.1, True, 1.8),
    "ResNet-18, 95 % zeros": (0.05, True, 2.7),
    "ResNet-18, 98 % zeros": (0.02, True, 4.5),
    "ResNet-18, dense stem, 90 % zeros": (0.1, False, 1.5),
}
RIVAL = "openvino-bf16"


# -- ResNet-18 ---------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        beside = x if self.shortcut is None else self.shortcut(x)
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + beside)


class ResNet18(nn.Module):
    """For images of 224 × 224 and 1 000 classes, its batch norms folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1)
        blocks, inputs = [], 64
        for outputs in STEPS:
            blocks += [Block(inputs, outputs, 1 + (inputs != outputs)), Block(outputs, outputs, 1)]
            inputs = outputs
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.pool(torch.relu(self.stem(x))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet(name: str) -> Case:
    density, stem, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = ResNet18().eval()
    prune_at_random_(model, density, 0, leave=() if stem else ("stem",))
    return network(name, model, (3, 224, 224))


def first_call() -> dict[str, float]:
    """Seconds from a traced ResNet-18 to its first outputs; megabytes that a call holds, as stated and as they grew.

    Loading the kernels, which compiles those that every network needs, is not in these seconds.
    """
    torch.set_num_threads(2)
    case = resnet("ResNet-18, 90 % zeros")
    start = perf_counter()
    graph = traced(case.module, case.x)
    program = compiled(graph, 1)
    program(case.x)
    seconds = perf_counter() - start
    program = compiled(graph, 1)  # its memory is not there yet
    before = resident()
    program(case.x)
    return {"seconds": seconds, "stated": program.memory() / 1e6, "grown": resident() - before}


def resident() -> float:
    """Megabytes of the process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def first_calls() -> dict[str, float]:
    """The same in processes of their own: with an empty cache of machine code, and with what the first left in it."""
    with tempfile.TemporaryDirectory() as cache:
        where = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, "-c", LOADED, str(Path(__file__).parent)]
        found = [json.loads(subprocess.check_output(command, env=where, text=True)) for _ in range(2)]
    took = [one["loading"] + one["seconds"] for one in found]
    return {"empty cache": took[0], "from the cache": took[1], **found[1]}


LOADED = """
import json, sys, time
import numba, torch, torch.export
sys.path.insert(0, sys.argv[1])
begun = time.perf_counter()
import runtime
loading = time.perf_counter() - begun
print(json.dumps({"loading": loading, **runtime.first_call()}))
"""


# -- measuring ---------------------------------------------------------------------------------------------------


def todo(rounds: int) -> Iterator[tuple[str, int, int, Callable[[], Case]]]:
    """Comparisons by name: threads, rounds, and what makes the case. Those with bars come first."""
    for name in NETWORKS:
        for threads in (2, 1):
            yield at(name, threads), threads, rounds, partial(resnet, name)
    for density in (AT, *(d for d in DENSITIES if d != AT)):
        for kind, members in layers().items():
            for name, make in members.items():
                least = rounds if density == AT else max(1, rounds // FEWER)
                yield key(kind, name, density), 1, least, partial(make, density)


def at(name: str, threads: int) -> str:
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def key(kind: str, layer: str, density: float) -> str:
    return f"{kind}: {layer}, {round(100 * (1 - density))} % zeros"


def measure(results: dict[str, Any], rounds: int, only: str, keep: Callable[[], None]) -> None:
    for name, threads, least, make in todo(rounds):
        if name in results["comparisons"] or only not in name:
            continue
        torch.set_num_threads(threads)
        found = document([compare(make(), chosen(), least)], least, {})["comparisons"][0]
        results["comparisons"][name] = {**found, "rounds": least}
        print(line(name, found), flush=True)
        keep()
    if not results["first call"] and not only:
        results["first call"] = first_calls()
        keep()


def line(name: str, found: Mapping[str, Any]) -> str:
    times = "  ".join(f"{row['name']} {1e3 * row['seconds']:.4g}" for row in found["rows"])
    return f"{name}\n    {times} ms\n    dense fp32 {ratio(found, 'dense fp32')}, dense {ratio(found, 'dense')}, " \
        f"CSR {times_of(found, 'torch-csr')}, wrong by {found['rows'][0]['error']:.0e}"  # fmt: skip


def ratio(found: Mapping[str, Any], which: str) -> str:
    value = found["ratios"][which]
    return "–" if value is None else f"{value:.2f}×"


def of(found: Mapping[str, Any], rival: str) -> float:
    """How many times the runtime's time another way takes; NaN without it."""
    seconds = {row["name"]: row["seconds"] for row in found["rows"]}
    return seconds.get(rival, math.nan) / found["rows"][0]["seconds"]


def times_of(found: Mapping[str, Any], rival: str) -> str:
    value = of(found, rival)
    return "–" if math.isnan(value) else f"{value:.2f}×"


# -- tables ------------------------------------------------------------------------------------------------------


def bars(results: Mapping[str, Any]) -> str:
    """The bars, and whether they are reached: Markdown."""
    found, amx = results["comparisons"], "amx-bf16" in results["machine"]["features"]
    lines = ["| 90 % zeros, one thread | dense fp32 | of all dense | CSR | to reach | | bf16 weights, of all dense |",
             "| --- | ---: | ---: | ---: | ---: | --- | ---: |"]  # fmt: skip
    for bar in BARS:
        names = bar.layers or tuple(layers()[bar.kind])
        members = [found.get(key(bar.kind, name, AT)) for name in names]
        what = f"{bar.kind}: {', '.join(bar.layers)}" if bar.layers else bar.kind
        what += f" (the worst of {len(names)})" if len(names) > 1 else ""
        if any(member is None for member in members):
            lines.append(f"| {what} | – | – | – | {bar.fp32:g}× / {bar.whole:g}× | not measured | – |")
            continue
        fp32, whole = (_least(m["ratios"][which] for m in members) for which in ("dense fp32", "dense"))
        csr = _least(of(m, "torch-csr") for m in members)
        wanted = f"{bar.fp32:g}×" if amx else f"{bar.fp32:g}× / {bar.whole:g}×"
        reached = fp32 >= bar.fp32 and (amx or whole >= bar.whole)
        rounded = _least(m["ratios"]["dense"] / of(m, BFLOAT16) for m in members)
        cells = (what, _x(fp32), _x(whole), _x(csr), wanted, _verdict(reached), _x(rounded))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def networks(results: Mapping[str, Any]) -> str:
    """ResNet-18, batch 1: milliseconds on two threads, and the ratios to OpenVINO's bf16: Markdown."""
    names = ["sparsight", "torch", "torch-bf16", "onnxruntime", "openvino", RIVAL]
    lines = [f"| two threads, ms | {' | '.join(names)} | times | to reach | | on one thread |"]
    lines.append("| --- |" + " ---: |" * 8 + " --- | ---: |")
    for name, (_, _, bar) in NETWORKS.items():
        alone = results["comparisons"].get(at(name, 1))
        last = "–" if alone is None else _x(of(alone, RIVAL))
        if (found := results["comparisons"].get(at(name, 2))) is None:
            lines.append(f"| {name} |" + " – |" * 7 + f" {bar:g}× | not measured | {last} |")
            continue
        times = {row["name"]: f"{1e3 * row['seconds']:.2f}" for row in found["rows"]}
        value = of(found, RIVAL)
        cells = " | ".join(times.get(one, "–") for one in names)
        lines.append(f"| {name} | {cells} | {_x(value)} | {bar:g}× | {_verdict(value >= bar)} | {last} |")
    return "\n".join(lines)


def pays(results: Mapping[str, Any]) -> str:
    """From which share of zeros on each layer beats the fastest dense rival, in fp32 and of all: Markdown."""
    heads = " | ".join(f"{round(100 * (1 - d))} %" for d in DENSITIES)
    lines = [f"| layer | {heads} | pays from: fp32 | of all |", "| --- |" + " ---: |" * (len(DENSITIES) + 2)]
    for kind, members in layers().items():
        for name in members:
            found = {d: results["comparisons"].get(key(kind, name, d)) for d in DENSITIES}
            known = {d: one["ratios"] for d, one in found.items() if one is not None}
            cells = [
                f"{_n(known[d]['dense fp32'])} / {_n(known[d]['dense'])}" if d in known else "–" for d in DENSITIES
            ]
            ends = [even({d: one[which] for d, one in known.items()}) for which in ("dense fp32", "dense")]
            lines.append(f"| {kind}: {name} | {' | '.join(cells)} | {' | '.join(ends)} |")
    return "\n".join(lines)


def even(ratios: Mapping[float, float | None]) -> str:
    """The share of zeros at which the ratio becomes 1 and stays above, between two measured ones."""
    points = sorted((1 - d, r) for d, r in ratios.items() if r is not None)
    below = [i for i, (_, r) in enumerate(points) if r < 1]
    if not points:
        return "–"
    if not below:
        return f"< {100 * points[0][0]:.0f} %"
    if below[-1] == len(points) - 1:
        return "never here"
    (a, low), (b, high) = points[below[-1]], points[below[-1] + 1]
    return f"{100 * (a + (b - a) * math.log(low) / (math.log(low) - math.log(high))):.0f} %"


def about(results: Mapping[str, Any]) -> str:
    """One sentence of Markdown: where it was measured, and the first call."""
    known = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items() if name != "sparsight")
    first = results["first call"]
    told = (
        ""
        if not first
        else (
            f" ResNet-18's first call, its kernels loaded and compiled, took {first['empty cache']:.1f} s ({FIRST:g} s "
            f"to reach), from the cache of machine code {first['from the cache']:.1f} s ({AGAIN:g} s). A call holds "
            f"{first['stated']:.1f} MB of activations and scratch; the process grew by {first['grown']:.1f} MB."
        )
    )
    about = f"Measured on {known['cores']} cores of {known['processor']}, Python {known['python']}, {versions}."
    return textwrap.fill(about + told, 118)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "about": about, "bars": bars, "networks": networks, "pays": pays
}  # fmt: skip
MARKED = re.compile(r"(<!-- runtime: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documented(page: str, results: Mapping[str, Any]) -> str:
    """The text of a page with its marked tables made anew."""
    return MARKED.sub(lambda m: f"{m[1]}\n{TABLES[m[2]](results)}\n\n{m[3]}", page)


def _least(values: Iterator[float | None]) -> float:
    known = [value for value in values if value is not None]
    return min(known) if known else math.nan


def _x(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}×"


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


# ----------------------------------------------------------------------------------------------------------------


def opened(path: Path | None, rounds: int) -> dict[str, Any]:
    """Results so far. SystemExit for those of another machine, or with other versions or rounds."""
    here = {name: value for name, value in machine().items() if name != "threads"}
    fresh = {"machine": here, "rounds": rounds, "first call": {}, "comparisons": {}}
    if path is None or not path.exists():
        return fresh
    found = json.loads(path.read_text())
    for name in ("machine", "rounds"):
        if found[name] != fresh[name]:
            sys.exit(f"{path} is of another {name.rstrip('s')}: {found[name]}, here {fresh[name]}; name another file")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", default="", help="comparisons whose names contain this")
    parser.add_argument("--json", type=Path, help="written after each comparison, and gone on with")
    parser.add_argument("--docs", action="store_true", help="write the docs' tables from that file; measure nothing")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    if args.docs:
        if args.json is None:
            parser.error("--docs needs --json, the results that it writes")
        PAGE.write_text(documented(PAGE.read_text(), json.loads(args.json.read_text())))
        return
    results = opened(args.json, args.rounds)

    def keep() -> None:
        if args.json is not None:
            write_output(args.json, [(json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode()])

    measure(results, args.rounds, args.only, keep)
    print("\n\n".join(["", *(table(results) for table in TABLES.values())]))


if __name__ == "__main__":
    main()
