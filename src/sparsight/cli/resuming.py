"""`sparsight run RECIPE --resume`: finds the run and its options. A run folder never chooses which code runs."""

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
    """The run to resume: the one in `out`, otherwise the newest unfinished one of the recipe under runs/."""
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
    raise Misuse(f"no unfinished run of {name!r} under runs/ ({done} finished): give the run folder with --out")


def as_it_was(
    name: str, parse: Callable[[Sequence[str]], Understood], given: Sequence[str], folder: Path, stored: RunRecord
) -> Understood:
    """The arguments of the first command line, with `given` appended, which wins.

    `execute` refuses arguments that change the run. Raises: Misuse if the first command line names code that `given`
    does not: names in a run folder are compared, never imported.
    """
    first, (own, now) = _command(folder, stored), parse(given)
    arguments, then = parse([*first[1:], *given]) if first[:1] == [name] else (own, now)
    again = code(own, now)
    missing = [word for word in code(arguments, then) if word not in again]
    if missing:
        raise Misuse(
            f"the run in {folder} uses your own code, which must be named again to resume: "
            f"{shlex.join(['sparsight', 'run', name, *given, *missing])}"
        )
    threads = then.threads or stored.environment.get("threads")
    return arguments, replace(then, out=now.out, resume=True, json=now.json, threads=threads)


def resume_line(name: str, folder: Path, arguments: Mapping[str, Any], settings: RunOptions) -> str:
    """The command that resumes a run."""
    return launched(["run", name, "--resume", "--out", str(folder), *code(arguments, settings)])


def code(arguments: Mapping[str, Any], settings: RunOptions) -> list[str]:
    """The options whose value is package.module:attribute, as words of a command line."""
    values = {**vars(settings), **arguments}
    return [
        f"--{n.replace('_', '-')}={value}" for n, value in values.items() if isinstance(value, str) and ":" in value
    ]


def _command(folder: Path, record: RunRecord) -> list[str]:
    """The words after `sparsight run` in the command line of the run; [] if it was started in Python."""
    try:
        words = shlex.split(record.command or "")
    except ValueError as error:
        what = f"its command cannot be read: {error}"
        raise DamagedFile(folder / "run.json", what, "restore it from a copy, or start a new run") from error
    return words[2:] if words[:2] == ["sparsight", "run"] else []
