"""`sparsight run RECIPE`: prune a network and keep the results in a run folder."""

from __future__ import annotations

import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsight.cli.errors import Misuse, near, printable, say
from sparsight.cli.processes import last_word, main_process
from sparsight.cli.recipes import names, table

if TYPE_CHECKING:
    from sparsight.cli.run_options import RunRequest
    from sparsight.records.record import LevelRecord
    from sparsight.runs.execute import Outcome

HELP = """\
usage: sparsight run RECIPE [options]

Prune a network with a recipe, level by level, and keep the results in a run folder.

recipes:
{recipes}
Your own recipe: package.module:function, a function that returns a Recipe.

  sparsight run RECIPE --help   options of a recipe
"""


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        (sys.stdout if argv else sys.stderr).write(HELP.format(recipes=textwrap.indent(table(names()), "  ")))
        return 0 if argv else 2
    name, given = argv[0], argv[1:]
    if name.startswith("-"):
        raise Misuse(f"the recipe must come before the options: sparsight run RECIPE {shlex.join(argv)}")
    known = names()
    if ":" not in name and name.replace("_", "-") not in known:
        hint = near(name, known) or f"; expected one of {', '.join(known)}, or package.module:function"
        raise Misuse(f"unknown recipe {name!r}{hint}")

    from sparsight.cli.progress import discard_output
    from sparsight.cli.run_options import understand
    from sparsight.train.parallel import LostProcess

    asked = understand(name, given)
    try:
        outcome = _execute(asked, shlex.join(["sparsight", "run", *argv]))
    except KeyboardInterrupt:
        return last_word(_interrupted("interrupted", name, asked), 130, before="\n")
    except LostProcess as error:
        return last_word(_interrupted(str(error), name, asked), 1)
    finally:
        if asked.made and not any(asked.folder.iterdir()):
            asked.folder.rmdir()  # the run never began
    try:
        _tell(outcome, asked)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads the output any more
        discard_output()
        say(f"the run is finished; see it with: sparsight show {shlex.quote(str(asked.folder))}")
    return 0


def _interrupted(how: str, name: str, asked: RunRequest) -> str:
    from sparsight.cli.run_options import resume_line

    if not (asked.folder / "run.json").exists():
        return f"{how} before the run began; nothing was written"
    return f"{how}; resume with: {resume_line(name, asked.folder, asked.arguments, asked.settings)}"


# -- running and telling ---------------------------------------------------------------------------------------


def _execute(asked: RunRequest, command: str) -> Outcome:
    from sparsight.checkpoint import CheckpointError
    from sparsight.cli.progress import Watcher
    from sparsight.records.files import DamagedFile
    from sparsight.records.folder import RunFolder
    from sparsight.records.identity import ForeignRun
    from sparsight.runs.execute import execute

    settings = asked.settings
    stream = sys.stderr if settings.json and main_process() else sys.stdout
    done: tuple[LevelRecord, ...] = ()
    if asked.stored is not None:
        with RunFolder.open(asked.folder) as folder:
            done = folder.levels()
    with Watcher(stream, asked.recipe, done) as watcher, _left_out_to(watcher.say):
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
            raise Misuse(f"{asked.folder} is in use: add --resume, or give another --out ({error})") from error
        except (ValueError, TypeError) as error:
            if watcher.began:
                raise
            raise Misuse(str(error)) from error


@contextmanager
def _left_out_to(say: Callable[[str], None]) -> Iterator[None]:
    """Print notes about parameters that are not pruned, and about data and weights, as lines."""
    from sparsight.model.left_out import LeftOutWarning
    from sparsight.model.pretrained import WeightsNote
    from sparsight.runs.run import ResumeNote
    from sparsight.zoo.data import DataNote

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
    from sparsight.runs.choose import Question

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


def _tell(outcome: Outcome, asked: RunRequest) -> None:
    from sparsight.cli.output import give
    from sparsight.cli.show import document, tell

    parts = outcome.record, outcome.levels, outcome.evaluation
    give(asked.settings, None, lambda: document(outcome.path, *parts))
    if not asked.settings.json:
        tell(*parts, outcome.report)
