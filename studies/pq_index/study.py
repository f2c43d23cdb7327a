"""Does the PQ index tell the truth? SAP, lottery ticket and one-shot on Fashion-MNIST, level by level.

    python studies/pq_index/study.py --out runs/pq-index --workers 2          all of it, about an hour and a half
    python studies/pq_index/study.py --out runs/pq-index --only mlp-global    one block (more than one may be named)
    python studies/pq_index/study.py --out runs/pq-index --list               the trials, one a line, and what they cost
    python studies/pq_index/study.py --out runs/again --key KEY               any one of them again

The same command goes on after any end of it. Seed 0 of every cell comes before seed 1 of any, so that what there is
after half the time is a smaller study and not half of one. `results.py` beside it makes the tables and pictures.

What is run, by block (methods: SAP (0.5, 1), SAP (1, 2), lottery ticket and one-shot at a rate of 0.2):

    mlp-global, mlp-layer, mlp-neuron   784-128-256-10      4 methods, 3 seeds, 30 levels of 3 epochs
    lenet                               784-300-100-10      global, 4 methods, 3 seeds, 30 levels of 3 epochs
    linear-global, linear-neuron        784-10              4 methods, 3 seeds, 20 levels of 3 epochs
    cnn                                 16-32-64-128        global, 4 methods, 2 seeds, 15 levels of 2 epochs
    ablation                            784-128-256-10      p, q, eta, gamma, beta one at a time, seed 0, 15 levels

All: pruned by magnitude, rewound to the initial weights, trained with Nesterov SGD (learning rate 0.1, momentum 0.9,
weight decay 5e-4, a cosine to 0 in every level, gradients masked and then clipped to norm 1), batch 250, eta = 0,
gamma = 1, beta = 0.9. There is no target density: a run ends after its levels, or when two levels in a row have removed
nothing, which is how a collapsed network ends. 55 000 images train, 5 000 validate; the test split is read once, after
the last level, for all levels.

What differs from the paper: epochs (200 a level there); choices are made on validation data (the test split there); at
least one weight stays in every layer (in neuron scope in every row), and where that rule acted is on record; masks go
before clipping. Smaller, to fit 90 minutes of two cores: the linear model has 20 levels and no layer scope, which
for a single layer is the global one; the CNN has a quarter of the paper's width, 15 000 training images and 15 levels;
ablations have one seed and 15 levels. The CNN is trained in float32 and channels-last: of an epoch that took 6.0 s on
one core, bfloat16 10.6 s with channels-last and 13.4 s without, float32 without it 9.0 s.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparsight.runs.study import Ended, Trial, run_study

HERE = Path(__file__).resolve().parent

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SAP (0.5, 1)": ("sap", {"p": 0.5, "q": 1.0, "eta": 0.0, "gamma": 1.0, "beta": 0.9}),
    "SAP (1, 2)": ("sap", {"p": 1.0, "q": 2.0, "eta": 0.0, "gamma": 1.0, "beta": 0.9}),
    "lottery ticket": ("lottery", {"rate": 0.2}),
    "one-shot": ("oneshot", {"rate": 0.2}),
}

NETWORKS: dict[str, tuple[str, str, int, int, float]] = {
    # model, data, levels, epochs of a level, seconds of an epoch on one quiet core, validation with it
    "mlp": ("mlp", "fashion-mnist", 30, 3, 1.0),
    "lenet": ("lenet-300-100", "fashion-mnist", 30, 3, 1.55),
    "linear": ("linear", "fashion-mnist", 20, 3, 0.55),
    "cnn": ("networks:cnn", "networks:images", 15, 2, 7.2),
}

BLOCKS: dict[str, tuple[str, str, int]] = {
    # network, scope, seeds; in the order in which they are run
    "mlp-global": ("mlp", "global", 3),
    "lenet": ("lenet", "global", 3),
    "mlp-layer": ("mlp", "layer", 3),
    "mlp-neuron": ("mlp", "neuron", 3),
    "linear-global": ("linear", "global", 3),
    "linear-neuron": ("linear", "neuron", 3),
    "cnn": ("cnn", "global", 2),
    "ablation": ("mlp", "global", 1),
}

ABLATIONS: tuple[tuple[str, str, dict[str, float]], ...] = (
    # what changes, from which method, to what
    *(("p", "SAP (0.5, 1)", {"p": p}) for p in (0.2, 0.4, 0.6, 0.8)),
    *(("q", "SAP (1, 2)", {"q": q}) for q in (1.2, 1.4, 1.6, 1.8)),
    *(("eta", "SAP (0.5, 1)", {"eta": eta}) for eta in (0.001, 0.01, 0.1, 1.0)),
    *(("gamma", "SAP (0.5, 1)", {"gamma": gamma}) for gamma in (2.0, 3.0, 5.0, 9.0)),
    *(("beta", "SAP (1, 2)", {"beta": beta}) for beta in (0.1, 0.2, 0.4)),
    ("beta", "SAP (0.5, 1)", {"gamma": 9.0, "beta": 0.5}),
)
ABLATION_LEVELS = 15
START = 7.0  # seconds of a trial that are not training: imports, data, report


def trials() -> list[tuple[str, Trial]]:
    """Every trial with its block: seed 0 of all blocks, then seed 1, then seed 2."""
    most = max(seeds for _, _, seeds in BLOCKS.values())
    return [
        (block, trial)
        for seed in range(most)
        for block, (network, scope, seeds) in BLOCKS.items()
        if seed < seeds
        for trial in (_ablations(seed) if block == "ablation" else _methods(network, scope, seed))
    ]


def _methods(network: str, scope: str, seed: int) -> Iterator[Trial]:
    for method in METHODS:
        yield _trial(network, scope, seed, method, {}, f"{network} {scope} {method}")


def _ablations(seed: int) -> Iterator[Trial]:
    for what, method, changed in ABLATIONS:
        said = ", ".join(f"{name} = {value:g}" for name, value in changed.items())
        label = f"ablation of {what}: {method}, {said}"
        yield _trial("mlp", "global", seed, method, {**changed, "levels": ABLATION_LEVELS}, label)


def _trial(network: str, scope: str, seed: int, method: str, changed: dict[str, Any], label: str) -> Trial:
    model, data, levels, epochs, _ = NETWORKS[network]
    recipe, own = METHODS[method]
    shared = {"scope": scope, "target_density": 0.0, "levels": levels, "epochs": epochs, "control": False}
    name = f"networks:{recipe}" if network == "cnn" else recipe
    return Trial(name, {**own, **shared, **changed}, seed=seed, model=model, data=data, label=label)


def cost(trial: Trial) -> float:
    """Seconds of one quiet core, with all levels; the test pass of a level is a fifth of an epoch."""
    second = next(s for model, _, _, _, s in NETWORKS.values() if model == trial.model)
    levels = trial.arguments["levels"] + 1
    return START + levels * (trial.arguments["epochs"] + 0.2) * second


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The PQ-index study.", epilog=f"Blocks: {', '.join(BLOCKS)}.")
    parser.add_argument("--out", type=Path, default=Path("runs/pq-index"), help="the folder of the study")
    parser.add_argument("--workers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--only", nargs="+", choices=list(BLOCKS), metavar="BLOCK", help="these blocks alone")
    parser.add_argument("--key", nargs="+", metavar="KEY", help="these trials alone; --list names them")
    parser.add_argument("--smoke", action="store_true", help="one level of one epoch each, to see that all runs")
    parser.add_argument("--list", action="store_true", help="name the trials and run none")
    given = parser.parse_args(argv)
    wanted = [(block, trial) for block, trial in trials() if not given.only or block in given.only]
    wanted = [(block, trial) for block, trial in wanted if not given.key or trial.key in given.key]
    if given.smoke:
        wanted = [(block, _short(trial)) for block, trial in wanted if trial.seed == 0]
    if not wanted:
        parser.error("no trial is left; --list names them all")
    if given.list:
        for block, trial in wanted:
            print(f"{trial.key}\t{block}\tseed {trial.seed}\t{trial.label}\t{cost(trial):.0f} s")
    print(_estimate(wanted, given.workers), flush=True)
    return 0 if given.list else _run([trial for _, trial in wanted], given.out, given.workers)


def _short(trial: Trial) -> Trial:
    short = {**trial.arguments, "levels": 1, "epochs": 1}
    return Trial(trial.recipe, short, trial.seed, trial.model, trial.data, trial.label)


def _estimate(wanted: Sequence[tuple[str, Trial]], workers: int) -> str:
    by_block = {block: sum(cost(t) for b, t in wanted if b == block) / 60 for block, _ in wanted}
    said = ", ".join(f"{block} {minutes:.0f}" for block, minutes in by_block.items())
    whole = sum(by_block.values())
    return (
        f"{len(wanted)} trials, at most {whole:.0f} minutes of one quiet core ({said}); "
        f"{whole / workers:.0f} minutes with {workers} workers, if each has a core"
    )


def _run(wanted: Sequence[Trial], out: Path, workers: int) -> int:
    """Run what is wanted; this folder is on the path of the trials, for `networks`."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{path}" if path else str(HERE)
    done = 0

    def tell(ended: Ended) -> None:
        nonlocal done
        done += 1
        why = f": {ended.why} (see {ended.log})" if ended.status == "failed" else ""
        print(f"{done}/{len(wanted)} {ended.status} {ended.trial.label}, seed {ended.trial.seed}{why}", flush=True)

    # all rows of a study from one kind of device: the last digits differ between kinds
    ended = run_study(wanted, out.resolve(), workers=workers, device="cpu", on_done=tell)
    return 1 if any(e.status == "failed" for e in ended) else 0


if __name__ == "__main__":
    sys.exit(main())
