"""`sparsight study FILE`: many runs, then rows and intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, printable, say
from sparsight.cli.options import Switch, options
from sparsight.cli.signals import unheard

if TYPE_CHECKING:
    from sparsight.runs.study import Ended, Trial

ABOUT = """\
Run many trials (recipes x arguments x seeds x models x data), each in its own process, then write tables.

FILE is YAML:

  model: lenet-300-100          # or a list; data likewise
  data: fashion-mnist
  seeds: 5                      # 0 to 4, or a list
  arguments: {control: false}   # for every recipe that has them
    budget: {epochs: 48}          # total epochs of every run
  densities: [0.1, 0.05]        # final densities, reached exactly
  methods:
    - recipe: sap
      label: SAP (1, 2)
      arguments: {p: 1.0, q: 2.0}
    - recipe: lottery
    - recipe: snip
      grid: {score_batches: [1, 4]}
      options: {optimizer: adam}   # of sparsight run

The file is checked before anything starts. A dense network that several trials share is trained once. Run the same
command again to resume: finished trials are skipped, unfinished ones continue where they stopped. A trial that fails
does not stop the others; the path of its log is printed.

Writes rows.csv, rows.json and rows.md (a row per trial and level), summary.csv and summary.md (mean, standard
deviation and half-width of the 95 % Student-t interval over seeds) and compare.html, next to study.json, trials/,
shared/ and logs/.

examples:
  sparsight study study.yaml --dry-run
  sparsight study study.yaml --out studies/first --workers 2

exit codes: 0 done, 1 a trial failed, 2 wrong use, 130 interrupted."""


@dataclass(frozen=True)
class StudyOptions:
    """The trials of a study file, and how to run them."""

    file: Annotated[conf.Positional[Path], Doc("The study file, in YAML.")]
    out: Annotated[Path | None, Doc("The study folder. Default: runs/NAME, after the name of the file.")] = None
    dry_run: Annotated[
        Switch, Doc("Print what would run, what is shared and about how long it would take; start nothing.")
    ] = False
    workers: Annotated[int, Doc("Trials to run at the same time, with --engine local.")] = 1
    engine: Annotated[
        Literal["local", "ray"],
        Doc("Run the trials on this machine, or on a cluster of Ray (sparsight[ray])."),
    ] = "local"
    address: Annotated[
        str | None,
        conf.arg(metavar="HOST:PORT"),
        Doc("With --engine ray, the cluster's address; auto is a cluster on this machine. Default: start one here."),
    ] = None
    print_slurm: Annotated[
        Switch, Doc("With --engine ray, print a Slurm job script that runs the study; start nothing.")
    ] = False
    threads: Annotated[
        int | None,
        conf.arg(metavar="N"),
        Doc("CPU threads of each trial. Default: cores / workers; with Ray, 1."),
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Doc("The device; auto uses an accelerator if there is one."),
    ] = "auto"
    precision: Annotated[Literal["no", "bf16", "fp16"], Doc("Mixed precision for training; no is float32.")] = "no"
    keep: Annotated[
        Literal["all", "packed", "chosen", "last"],
        Doc(
            "Which levels' weights to keep on disk after each run; packed keeps all of them in packed files. Masks and "
            "records always stay."
        ),
    ] = "chosen"


def main(argv: list[str]) -> int:
    asked = options(StudyOptions, argv, "sparsight study", ABOUT)
    if asked.workers < 1:
        raise Misuse(f"--workers must be at least 1, got {asked.workers}")
    if asked.engine == "local" and (asked.address or asked.print_slurm):
        raise Misuse(f"{'--address' if asked.address else '--print-slurm'} needs --engine ray")

    from sparsight.cli.study_trials import planned

    plans = planned(asked.file)
    out = asked.out or Path("runs") / asked.file.stem
    if asked.print_slurm:
        sys.stdout.write(_slurm(asked, out))
        return 0
    if asked.dry_run:
        from sparsight.cli.study_forecast import forecast
        from sparsight.runs.study.local import available_cores

        threads = asked.threads or max(1, available_cores() // asked.workers)
        sys.stdout.write("\n".join(map(printable, forecast(plans, out, asked.workers, threads).split("\n"))) + "\n")
        return 0
    return _run(asked, [plan.trial for plan in plans], out)


def _run(asked: StudyOptions, trials: list[Trial], out: Path) -> int:
    from sparsight.cli.study_table import write

    count, failed = 0, 0

    def tell(ended: Ended) -> None:
        nonlocal count, failed
        count, failed = count + 1, failed + (ended.status == "failed")
        why = f"; see {ended.log}: {ended.why}" if ended.status == "failed" else ""
        sys.stdout.write(printable(f"[{count}/{len(trials)}] {ended.trial.key}: {ended.status}{why}") + "\n")
        sys.stdout.flush()

    try:
        _on_engine(asked, trials, out, tell)
    except KeyboardInterrupt:
        with unheard():
            say("interrupted; run the same command again to resume", before="\n")
        return 130
    write(out)
    return 1 if failed else 0


def _on_engine(asked: StudyOptions, trials: list[Trial], out: Path, tell: Callable[[Ended], None]) -> None:
    from sparsight.runs.study import Shared, run_study

    if asked.engine == "local":
        run_study(
            trials, out, workers=asked.workers, device=asked.device, precision=asked.precision, keep=asked.keep,
            threads=asked.threads, on_done=tell,
        )  # fmt: skip
        return
    from sparsight.integrations.ray import RayEngine, run_study_on_ray

    engine, shared = RayEngine(asked.address, asked.threads or 1), Shared(asked.device, asked.precision, asked.keep)
    try:
        run_study_on_ray(trials, out, engine, shared, on_done=tell, say=say)
    except ModuleNotFoundError as error:
        raise Misuse(str(error)) from error


def _slurm(asked: StudyOptions, out: Path) -> str:
    """A Slurm job script, with the options of this command."""
    from sparsight.integrations.ray import slurm_command

    own = {"out": out.resolve(), "device": asked.device, "precision": asked.precision, "keep": asked.keep}
    own |= {} if asked.threads is None else {"threads": asked.threads}
    return slurm_command(["sparsight", "study", str(asked.file.resolve()), *(f"--{n}={v}" for n, v in own.items())])


def read(path: Path) -> list[Trial]:
    """The trials of a study file. Raises: StudyFileError."""
    from sparsight.cli.study_trials import planned

    return [plan.trial for plan in planned(path)]
