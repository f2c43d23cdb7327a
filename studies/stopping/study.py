"""Does any rule that ends levels early beat a fixed number of epochs? The evidence table of the stopping rules.

    python studies/stopping/study.py --out runs/stopping --workers 2        all of it, about 105 minutes of one core
    python studies/stopping/study.py --out runs/stopping --only cnn-lottery  one block (more than one may be named)
    python studies/stopping/study.py --out runs/stopping --list             the trials, one a line, and what they cost
    python studies/stopping/study.py --out runs/again --key KEY             any one of them again
    python studies/stopping/study.py --out runs/stopping --confirm carried 1-2    seeds 3 to 7 of one setting
    python studies/stopping/study.py --out runs/stopping --confirm carried-recovery 3    seeds 8 to 67 of another
    python studies/stopping/study.py --out runs/sipp --confirm carried-recovery 3 --only lenet-sipp cnn-sipp

The same command goes on after any end of it. Seed 0 of every block comes before seed 1 of any, so that what there is
after half the time is a smaller study and not half of one. `results.py` beside it makes the tables and the picture.

What is run, by block, on Fashion-MNIST (full budget: 9 epochs a level, a cosine to 0 over them; 3 seeds):

    lenet-lottery   LeNet-300-100, 20 000 images, lottery ticket at a rate of 0.3, 8 levels (5.77 %), initial weights
    lenet-sap       LeNet-300-100, 20 000 images, SAP (1, 2) to the same number of weights, initial weights
    cnn-lottery     12-24-48 channels with batch norm, 12 000 images, rate 0.3, 8 levels, weights of epoch 1

Level 0 and the last level train the whole budget under every rule: the first is the reference, the second makes final
accuracies comparable. Weights are rewound, so a rule acts on the final network through its masks alone. In between,
levels end by a fixed number of epochs (the full budget among them; 0.5 is one evaluation) or by a rule (`rules.py`),
asked every half epoch. A level that ends early has not come to the end of its cosine, under every rule alike; the rules
`short-levels` and `carried`, tried last, are budgets with cosines of their own, without and with rewinding, and
`carried-recovery`, tried after the first confirmation, ends such levels once they have recovered.

A rule's matched control is the curve of the fixed budgets, between two of them linear, at the rule's mean cost: a
fixed number of epochs is a whole number, or a half, and a rule's mean is not. The lottery ticket's levels, and so the
densities, are the same under every rule; SAP's are not, so it ends at a density that no level goes past, and the
number of levels, which then differs, is part of what a rule costs.

Smaller than what was planned, and why: 20 000 and 12 000 of 55 000 training images, and on the two blocks lenet-sap and
cnn-lottery four fixed budgets and one setting of each rule, chosen beforehand, for the study to fit less than two
hours of one core. Validation (5 000) and test images (10 000) are whole; with two validations an epoch a rule's
forward passes on validation data are half as many as training's on 20 000 images, and 83 % on 12 000. Seconds of
training, validating and measuring are on record apart.

Two blocks came last, for the rule that had been confirmed alone: SiPP, whose levels go on from the weights as pruned by
itself, so that the rule would be its default. Their seeds were not used before.

Choices (which setting is confirmed) are made on validation data; the test split is read once, when a run has ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules import EVERY, FULL, ONE, SETTINGS, SHORT

from sparsight.runs.study import Ended, Trial, run_study

HERE = Path(__file__).resolve().parent

KEPT, PRUNABLE = 15_347, 266_200  # weights of LeNet-300-100 after 8 levels at a rate of 0.3, and all of them
EPOCHS = int(FULL)
SEEDS = (0, 1, 2)
CONFIRMING = {("carried-recovery", "3"): tuple(range(8, 18))}
"""Seeds of a confirmation after the first, which has had 3 to 7: fresh ones, and twice as many."""
MORE = {"lenet-lottery": tuple(range(18, 28)), "cnn-lottery": tuple(range(18, 68))}
"""Ten more seeds of the two blocks whose intervals then touched the bar by hundredths of a point, and forty more (28 to
67) of the one that still did. Each number was fixed before the first of its seeds was run (`tables.LOOKS`)."""
FIRST = (3, 4, 5, 6, 7)
START = 5.0  # seconds of a trial that are not training: imports, data, report


@dataclass(frozen=True)
class Block:
    """A network and a schedule: what its trials share, and which budgets and rules it runs."""

    recipe: str
    model: str
    data: str
    arguments: dict[str, Any]
    fixed: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    levels: int  # pruned levels; of SAP the number expected with the full budget
    seconds: float  # of an epoch on one quiet core, training alone
    validating: float  # seconds of an evaluation


LENET = {"model": "lenet-300-100", "data": "networks:images", "seconds": 0.55, "validating": 0.05}
LOTTERY = {"rate": 0.3, "levels": 8}

BLOCKS: dict[str, Block] = {
    "lenet-lottery": Block(
        "networks:lottery",
        arguments={**LOTTERY, "rewind_epoch": 0, "channels_last": False},
        fixed=("0.5", "1", "2", "3", "5", FULL),
        rules=tuple(SETTINGS),
        levels=8,
        **LENET,
    ),
    "lenet-sap": Block(
        "networks:sap",
        arguments={"target_density": KEPT / PRUNABLE, "levels": 30},
        fixed=("0.5", "1", "3", FULL),
        rules=tuple(ONE.items()),
        levels=9,
        **LENET,
    ),
    "cnn-lottery": Block(
        "networks:lottery",
        model="networks:cnn",
        data="networks:few",
        arguments={**LOTTERY, "rewind_epoch": 1, "channels_last": True},
        fixed=("0.5", "1", "3", FULL),
        rules=tuple(ONE.items()),
        levels=8,
        seconds=1.0,
        validating=0.15,
    ),
}

LATER: dict[str, Block] = {
    "lenet-sipp": Block(
        "networks:sipp", arguments={**LOTTERY, "channels_last": False}, fixed=(FULL,), rules=(), levels=8, **LENET
    ),
    "cnn-sipp": Block(
        "networks:sipp",
        model="networks:cnn",
        data="networks:few",
        arguments={**LOTTERY, "channels_last": True},
        fixed=(FULL,),
        rules=(),
        levels=8,
        seconds=1.0,
        validating=0.15,
    ),
}
"""Blocks for the confirmed rule alone, run where `--only` names them."""
THEIRS = {"lenet-sipp": tuple(range(100, 120)), "cnn-sipp": tuple(range(100, 130))}
"""Their seeds."""

EXPECTED = {
    # mean epochs of a middle level, guessed from one run, for the estimate alone
    "accuracy-recovery default": 8.0,
    "mask-stable default": 9.0,
    "pqi-stable default": 3.0,
    "information-consistent default": 2.0,
    "information-consistent paper": 0.5,
    "gradient-consistent default": 4.0,
    "both-consistent default": 6.0,
    "cnn-lottery: gradient-consistent paper": 7.0,
    "cnn-lottery: both-consistent paper": 7.0,
}
USUAL = 1.5


def trials() -> list[tuple[str, Trial]]:
    """Every trial of the search with its block: seed 0 of all blocks, then seed 1, then seed 2."""
    return [
        (name, _trial(name, rule, setting, seed))
        for seed in SEEDS
        for name, block in BLOCKS.items()
        for rule, setting in (*(("fixed", budget) for budget in block.fixed), *block.rules, *SHORT)
    ]


def confirming(rule: str, setting: str) -> list[tuple[str, Trial]]:
    """On seeds of its own, in every block: the full budget and the setting to be confirmed; on 3 to 7 one epoch too."""
    seeds = CONFIRMING.get((rule, setting), FIRST)
    runs = dict.fromkeys((("fixed", FULL), (rule, setting), *([("fixed", "1")] if seeds == FIRST else [])))
    more = {} if seeds == FIRST else MORE
    if (rule, setting) in CONFIRMING:
        more = {**more, **THEIRS}
    every = [*((seed, name) for seed in seeds for name in BLOCKS), *((s, name) for name in more for s in more[name])]
    return [(name, _trial(name, *of, seed)) for seed, name in every for of in runs]


def _trial(name: str, rule: str, setting: str, seed: int) -> Trial:
    block = {**BLOCKS, **LATER}[name]
    arguments = {**block.arguments, "rule": rule, "setting": setting, "epochs": EPOCHS}
    return Trial(block.recipe, arguments, seed, block.model, block.data, label=f"{name}: {rule} {setting}")


def cost(trial: Trial) -> float:
    """Seconds of one quiet core, by a guess of when the rule ends a level; the test pass counts with the start."""
    block = {**BLOCKS, **LATER}[trial.label.partition(":")[0]]
    rule, setting = trial.arguments["rule"], trial.arguments["setting"]
    if short := SHORT.get((rule, setting)):
        epochs = (
            short.first
            + EPOCHS
            + (block.levels - 1) * min(short.middle, USUAL if rule == "carried-recovery" else EPOCHS)
        )
        return START + epochs * (block.seconds + block.validating)
    fixed, usual = rule == "fixed", EXPECTED.get(f"{rule} {setting}", USUAL)
    middle = float(setting) if fixed else EXPECTED.get(trial.label, usual)
    epochs = 2 * EPOCHS + (block.levels - 1) * middle
    evaluations = epochs if fixed and middle >= 1 else epochs / EVERY
    return START + epochs * block.seconds + evaluations * block.validating


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="The stopping study.", epilog=f"Blocks: {', '.join((*BLOCKS, *LATER))}."
    )
    parser.add_argument("--out", type=Path, default=Path("runs/stopping"), help="the folder of the study")
    parser.add_argument("--workers", type=int, default=2, help="trials at the same time")
    parser.add_argument("--only", nargs="+", choices=[*BLOCKS, *LATER], metavar="BLOCK", help="these blocks alone")
    parser.add_argument("--key", nargs="+", metavar="KEY", help="these trials alone; --list names them")
    parser.add_argument(
        "--confirm", nargs=2, metavar=("RULE", "SETTING"), help="the seeds that confirm one setting instead"
    )
    parser.add_argument("--smoke", action="store_true", help="two levels of one epoch, to see that all runs")
    parser.add_argument("--list", action="store_true", help="name the trials and run none")
    given = parser.parse_args(argv)
    if given.confirm and given.confirm[0] != "fixed" and tuple(given.confirm) not in (*SETTINGS, *SHORT):
        parser.error(f"unknown setting {' '.join(given.confirm)}: allowed are fixed N, {_named((*SETTINGS, *SHORT))}")
    everything = confirming(*given.confirm) if given.confirm else trials()
    wanted = [(block, trial) for block, trial in everything if block in (given.only or BLOCKS)]
    wanted = [(block, trial) for block, trial in wanted if not given.key or trial.key in given.key]
    if given.smoke:
        wanted = [(block, _short(trial)) for block, trial in wanted if trial.seed in (SEEDS[0], FIRST[0])]
    if not wanted:
        parser.error("no trial is left; --list names them all")
    if given.list:
        for block, trial in wanted:
            print(f"{trial.key}\t{block}\tseed {trial.seed}\t{trial.label}\t{cost(trial):.0f} s")
    print(_estimate(wanted, given.workers), flush=True)
    return 0 if given.list else _run([trial for _, trial in wanted], given.out, given.workers)


def _named(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(" ".join(names) for names in settings)


def _short(trial: Trial) -> Trial:
    short = {**trial.arguments, "levels": 2, "epochs": 1}
    return Trial(trial.recipe, short, trial.seed, trial.model, trial.data, trial.label)


def _estimate(wanted: Sequence[tuple[str, Trial]], workers: int) -> str:
    by_block = {block: sum(cost(t) for b, t in wanted if b == block) / 60 for block, _ in wanted}
    said = ", ".join(f"{block} {minutes:.0f}" for block, minutes in by_block.items())
    whole = sum(by_block.values())
    return (
        f"{len(wanted)} trials, about {whole:.0f} minutes of one quiet core ({said}); "
        f"{whole / workers:.0f} minutes with {workers} workers, if each has a core; rules end when they end"
    )


def _run(wanted: Sequence[Trial], out: Path, workers: int) -> int:
    """Run what is wanted; this folder is on the path of the trials, for `networks`."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{path}" if path else str(HERE)
    # all rows of a study from one kind of device: the last digits differ between kinds
    ended = run_study(wanted, out.resolve(), workers=workers, device="cpu", on_done=_teller(len(wanted)))
    return 1 if any(e.status == "failed" for e in ended) else 0


def _teller(planned: int) -> Callable[[Ended], None]:
    done = 0

    def tell(ended: Ended) -> None:
        nonlocal done
        done += 1
        why = f": {ended.why} (see {ended.log})" if ended.status == "failed" else ""
        print(f"{done}/{planned} {ended.status} {ended.trial.label}, seed {ended.trial.seed}{why}", flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
