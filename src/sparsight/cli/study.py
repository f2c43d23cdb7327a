"""`sparsight study FILE`: many runs, then rows and intervals."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from sparsight.cli.errors import Misuse, printable, refusing, say
from sparsight.cli.record_options import StudyOptions
from sparsight.cli.signals import unheard
from sparsight.cli.study_forecast import forecast
from sparsight.cli.study_table import write
from sparsight.cli.study_trials import planned
from sparsight.runs import study
from sparsight.runs.study import Ended, Shared, Trial
from sparsight.runs.study.local import available_cores


def main(asked: StudyOptions) -> int:
    if asked.workers < 1:
        raise Misuse(f"--workers must be at least 1, got {asked.workers}")
    if asked.engine == "local" and (asked.address or asked.print_slurm):
        raise Misuse(f"{'--address' if asked.address else '--print-slurm'} needs --engine ray")

    plans = planned(asked.file)
    out = asked.out or Path("runs") / asked.file.stem
    if asked.print_slurm:
        sys.stdout.write(_slurm(asked, out))
        return 0
    if asked.dry_run:
        threads = asked.threads or max(1, available_cores() // asked.workers)
        sys.stdout.write("\n".join(map(printable, forecast(plans, out, asked.workers, threads).split("\n"))) + "\n")
        return 0
    return _run(asked, [plan.trial for plan in plans], out)


def _run(asked: StudyOptions, trials: list[Trial], out: Path) -> int:
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
    shared = Shared(asked.device, asked.precision, asked.keep)
    if asked.engine == "local":
        study.run_study(
            trials, out, workers=asked.workers, threads=asked.threads, on_done=tell, **dataclasses.asdict(shared)
        )
        return
    from sparsight.integrations.ray import RayEngine, run_study_on_ray

    engine = RayEngine(asked.address, asked.threads or 1)
    with refusing(ModuleNotFoundError):
        run_study_on_ray(trials, out, engine, shared, on_done=tell, say=say)


def _slurm(asked: StudyOptions, out: Path) -> str:
    """A Slurm job script, with the options of this command."""
    from sparsight.integrations.ray import slurm_command

    own = {"out": out.resolve(), "device": asked.device, "precision": asked.precision, "keep": asked.keep}
    own |= {} if asked.threads is None else {"threads": asked.threads}
    return slurm_command(["sparsight", "study", str(asked.file.resolve()), *(f"--{n}={v}" for n, v in own.items())])
