"""`sparsight run RECIPE --resume`: which run is gone on with, and as what. A run folder never chooses code."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsight.cli.errors import Misuse
from sparsight.cli.processes import launched
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.record import RunRecord

if TYPE_CHECKING:
    from sparsight.cli.run_options import RunOptions

    Understood = tuple[dict[str, Any], RunOptions]


def taken_up(name: str, function: str, out: Path | None) -> tuple[Path, RunRecord]:
    """The run to go on with: the one in `out`, or the newest unfinished one of the recipe under runs/."""
    if out is not None:
        try:
            with RunFolder.open(out) as folder:
                return out, folder.record
        except FileNotFoundError as error:
            raise Misuse(f"cannot resume: {error}") from error
    found = sorted(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    done = 0
    for path in found:
        with RunFolder.open(path.parent) as folder:
            same = folder.record.recipe.replace("-", "_") == function
            if same or _command(path.parent, folder.record)[:1] == [name]:
                if folder.record.status != "finished":
                    return path.parent, folder.record
                done += 1
    raise Misuse(f"there is no unfinished run of {name!r} under runs/ ({done} finished); name it with --out")


def as_it_was(
    name: str, parse: Callable[[Sequence[str]], Understood], given: Sequence[str], folder: Path, stored: RunRecord
) -> Understood:
    """What the first command line says with the words `given` after it, so that these win where both speak.

    A word that changes what the run is makes it another run, which `execute` refuses. Misuse, with the line to type, if
    the first names code that is not named again: what stands in a folder is compared, never imported.
    """
    first, (own, now) = _command(folder, stored), parse(given)
    arguments, then = parse([*first[1:], *given]) if first[:1] == [name] else (own, now)
    again = code(own, now)
    missing = [word for word in code(arguments, then) if word not in again]
    if missing:
        raise Misuse(
            f"the run in {folder} was begun with code of its own, which no run folder chooses: to go on, name it again "
            f"with {shlex.join(['sparsight', 'run', name, *given, *missing])}"
        )
    threads = then.threads or stored.environment.get("threads")
    return arguments, replace(then, out=now.out, resume=True, json=now.json, threads=threads)


def resume_line(name: str, folder: Path, arguments: Mapping[str, Any], settings: RunOptions) -> str:
    """The command that resumes a run."""
    return launched(["run", name, "--resume", "--out", str(folder), *code(arguments, settings)])


def code(arguments: Mapping[str, Any], settings: RunOptions) -> list[str]:
    """The options that name code, "package.module:attribute", as words of a command line."""
    values = {**vars(settings), **arguments}
    return [
        f"--{n.replace('_', '-')}={value}" for n, value in values.items() if isinstance(value, str) and ":" in value
    ]


def _command(folder: Path, record: RunRecord) -> list[str]:
    """The words after `sparsight run` of the command line that made the run; none if Python made it."""
    try:
        words = shlex.split(record.command or "")
    except ValueError as error:
        what = f"its command is none: {error}"
        raise DamagedFile(folder / "run.json", what, "restore it from a copy, or start the run anew") from error
    return words[2:] if words[:2] == ["sparsight", "run"] else []
