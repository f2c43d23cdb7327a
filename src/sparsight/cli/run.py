"""`sparsight run RECIPE`: prune a network, print the progress, and keep the results in a run folder."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sparsight.checkpoint import CheckpointError
from sparsight.cli.errors import Misuse, printable, say
from sparsight.cli.output import give
from sparsight.cli.processes import last_word, main_process
from sparsight.cli.progress import Watcher, discard_output
from sparsight.cli.run_options import RunRequest, resume_line, understand
from sparsight.cli.show import document, tell
from sparsight.model.left_out import LeftOutWarning
from sparsight.model.pretrained import WeightsNote
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.identity import ForeignRun
from sparsight.records.record import LevelRecord
from sparsight.runs.choose import Question
from sparsight.runs.execute import Outcome, execute
from sparsight.runs.run import ResumeNote
from sparsight.train.parallel import LostProcess
from sparsight.zoo.data import DataNote


def run_and_tell(name: str, given: Sequence[str]) -> int:
    """Run a recipe with these options, print its progress and results, and return the exit code."""
    asked = understand(name, given)
    try:
        outcome = _execute(asked, shlex.join(["sparsight", "run", name, *given]))
    except KeyboardInterrupt:
        return last_word(_interrupted("interrupted", name, asked), 130, before="\n")
    except LostProcess as error:
        return last_word(_interrupted(str(error), name, asked), 1)
    finally:
        if asked.made and not any(asked.folder.iterdir()):
            asked.folder.rmdir()  # the run never began
    try:
        parts = outcome.record, outcome.levels, outcome.evaluation
        give(asked.settings, None, lambda: document(outcome.path, *parts))
        if not asked.settings.json:
            tell(*parts, outcome.report)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads the output any more
        discard_output()
        say(f"the run is finished; see it with: sparsight show {shlex.quote(str(asked.folder))}")
    return 0


def _interrupted(how: str, name: str, asked: RunRequest) -> str:
    if not (asked.folder / "run.json").exists():
        return f"{how} before the run began; nothing was written"
    return f"{how}; resume with: {resume_line(name, asked.folder, asked.arguments, asked.settings)}"


def _execute(asked: RunRequest, command: str) -> Outcome:
    settings = asked.settings
    stream = sys.stderr if settings.json and main_process() else sys.stdout
    done: tuple[LevelRecord, ...] = ()
    if asked.stored is not None:
        with RunFolder.open(asked.folder) as folder:
            done = folder.levels()
    with Watcher(stream, asked.recipe, done) as watcher, _notes_to(watcher.say):
        _announce(asked, watcher.say)
        try:
            return execute(
                asked.recipe,
                model=settings.model,
                data=settings.data,
                weights=settings.weights,
                out=asked.folder,
                resume=settings.resume,
                share=settings.share,
                keep=settings.keep,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
                arguments=asked.arguments,
                command=command,
                watch=watcher,
            )
        except (CheckpointError, DamagedFile, ForeignRun):
            raise
        except FileExistsError as error:
            what = "is in use: add --resume, or give" if asked.folder.is_dir() else "cannot be a folder: give"
            raise Misuse(f"{asked.folder} {what} another --out ({error})") from error
        except (ValueError, TypeError) as error:
            if watcher.began:
                raise
            raise Misuse(str(error)) from error


@contextmanager
def _notes_to(say: Callable[[str], None]) -> Iterator[None]:
    """Print notes about parameters that are not pruned, and about data and weights, as lines."""
    notes = LeftOutWarning, WeightsNote, DataNote, ResumeNote

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, notes):
            for line in f"Note: {message}".split("\n"):
                say(printable(line))
        else:
            usual(message, category, *where)

    with warnings.catch_warnings():
        for kind in notes:
            warnings.simplefilter("always", kind)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _announce(asked: RunRequest, say: Callable[[str], None]) -> None:
    """Print which question the run answers, then what runs in which folder."""
    choose = asked.recipe.choose
    if isinstance(choose, Question):
        say(choose.question)
    else:
        say("The recipe's own rule chooses a level.")
    if asked.stored is not None and asked.stored.status == "finished":
        say(f"{asked.folder} is already finished; nothing to train")
    else:
        verb = "resuming" if asked.stored is not None else "running"
        settings = asked.settings
        what = f"{asked.recipe.name} on {settings.data}, {settings.model}, seed {asked.recipe.seed}"
        say(f"{verb} {what} in {asked.folder}")
