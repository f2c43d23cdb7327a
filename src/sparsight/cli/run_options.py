"""What a command line of `sparsight run` asks for: a recipe, its arguments, and where it is run."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, near
from sparsight.cli.options import about, keywords, parse
from sparsight.records.folder import RunFolder
from sparsight.records.new_folder import next_folder
from sparsight.records.record import RunRecord
from sparsight.runs.recipe import Prunable, Recipe
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo
from sparsight.zoo.resolve import resolve

NOTES = """\
Writes a run folder (records, weights, masks, report.html) and prints its table. Ctrl-C stops the run; it goes
on later with --resume, bit for bit as if it had never stopped.

examples:
  sparsight run {name}
  sparsight run {name} --data digits --epochs 5 --seed 1 --out runs/first
  sparsight run {name} --model my_pkg.models:build --data my_pkg.data:build
  sparsight run {name} --resume

exit codes: 0 done, 1 failed, 2 wrong use, 3 damaged, foreign or locked run, 4 data or network not found, 130
interrupted."""


@dataclass(frozen=True)
class RunSettings:
    """What a run is made with, beside its recipe."""

    model: str
    data: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    out: Path | None
    resume: bool
    keep: Literal["all", "chosen", "last"]
    device: str
    precision: Literal["no", "bf16", "fp16"]
    threads: int | None
    json: bool


@dataclass(frozen=True)
class RunRequest:
    """A command line, understood."""

    recipe: Recipe
    arguments: Mapping[str, Any]
    settings: RunSettings
    folder: Path  # where the run is, or will be
    made: bool  # the folder was made for it
    stored: RunRecord | None = None  # of the run to go on with


def _find(name: str) -> Callable[..., Recipe]:
    """The recipe function of that name: one of the package, or package.module:function. Misuse if there is none."""
    if ":" not in name:
        stem = name.replace("-", "_")
        return getattr(importlib.import_module(f"sparsight.recipes.{stem}"), stem)
    found: Any = _resolved(name, Misuse)
    if callable(found):
        return cast(Callable[..., Recipe], found)  # what it returns is seen when it is called
    raise Misuse(f"{name!r} is of type {type(found).__name__}: allowed is a function that returns a Recipe")


def _resolved(spec: str, error: type[Exception]) -> Any:
    """What `spec` names; `error` where there is no such thing."""
    try:
        return resolve(spec)
    except ValueError as cause:
        raise error(str(cause)) from cause


def _settings(
    *,
    model: str = "mlp",
    data: str = "fashion-mnist",
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    out: Annotated[Path | None, conf.arg(metavar="DIR")] = None,
    resume: conf.FlagCreatePairsOff[bool] = False,
    keep: Literal["all", "chosen", "last"] = "all",
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: Literal["no", "bf16", "fp16"] = "no",
    threads: Annotated[int | None, conf.arg(metavar="N")] = None,
    json: conf.FlagCreatePairsOff[bool] = False,
) -> RunSettings:
    """What it is run on, and where it is kept.

    Args:
        model: The network: mlp, lenet-300-100, lenet5, cnn, vanilla-cnn, resnet8, resnet18, resnet20, resnet32,
            stable-resnet8, stable-resnet18, stable-resnet20, stable-resnet32, linear, or package.module:attribute (a
            module or a function that makes one), looked for in the current folder too.
        data: The data: fashion-mnist, mnist, digits, or package.module:attribute (a sparsight.Data or a function that
            makes one).
        include: Also prune parameters of these names; shell-style patterns.
        exclude: Leave parameters of these names dense, without a word about them.
        out: The run folder. Default: the next free runs/RECIPE-001. An existing run is never overwritten.
        resume: Resume the run in --out. Default: the newest unfinished run of the recipe. Options that are not given
            again stay as they were.
        keep: Which levels' weights to keep on disk once the run is finished; masks and records always stay.
        device: Where to compute; auto takes an accelerator if there is one.
        precision: Mixed precision for training, or no.
        threads: CPU threads, for torch and the compiled kernels alike. Default: as many as torch takes. The bits of a
            run depend on it.
        json: Print one JSON document instead of the table; progress goes to standard error.
    """
    return RunSettings(model, data, include, exclude, out, resume, keep, device, precision, threads, json)


def understand(name: str, given: Sequence[str]) -> RunRequest:
    """What `sparsight run NAME GIVEN...` asks for. A folder is made for a new run where none is named.

    Misuse, NotFound, DamagedFile; SystemExit after help, or after a bad value was explained.
    """
    function = _find(name)
    arguments, settings = _parse(name, function, given)
    folder, stored = settings.out, None
    if settings.resume:
        folder, stored = _taken_up(name, function, settings.out)
        arguments, settings = _as_it_was(name, function, given, settings, stored)
    recipe = _build(name, function, arguments)
    if settings.include or settings.exclude:
        own = recipe.prunable
        both = Prunable((*own.include, *settings.include), (*own.exclude, *settings.exclude))
        recipe = replace(recipe, prunable=both)
    _look_for(settings)
    made = folder is None
    return RunRequest(recipe, arguments, settings, folder or next_folder(Path("runs"), recipe.name), made, stored)


def _parse(name: str, function: Callable[..., Recipe], given: Sequence[str]) -> tuple[dict[str, Any], RunSettings]:
    prog = f"sparsight run {name}"
    description = f"{about(function).partition(chr(10))[0]}\n\n{NOTES.format(name=name)}"
    found = parse({"recipe": keywords(function), "run": _settings}, given, prog, description)
    return found["recipe"], found["run"]


def _build(name: str, function: Callable[..., Recipe], arguments: Mapping[str, Any]) -> Recipe:
    try:
        recipe = function(**arguments)
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from error
    if not isinstance(recipe, Recipe):
        raise Misuse(f"{name!r} returned a {type(recipe).__name__}: allowed is a sparsight Recipe")
    return recipe


def _look_for(settings: RunSettings) -> None:
    """NotFound, with close matches, if the data or the model that is named is not there."""
    look_for("data", settings.data, readers.KNOWN)
    look_for("model", settings.model, zoo.KNOWN)
    if settings.threads is not None and settings.threads < 1:
        raise Misuse(f"--threads must be at least 1: got {settings.threads}")


def look_for(what: str, spec: str, known: Collection[str]) -> None:
    """NotFound, with close matches, if there is no `what` of that name, nor package.module:attribute."""
    if ":" in spec:
        _resolved(spec, NotFound)
    elif spec.lower().replace("_", "-") not in known:
        hint = near(spec, known) or f"; there are {', '.join(known)}, or package.module:attribute of your own"
        raise NotFound(f"unknown {what} {spec!r}{hint}")


# -- resuming --------------------------------------------------------------------------------------------------


def _taken_up(name: str, function: Callable[..., Recipe], out: Path | None) -> tuple[Path, RunRecord]:
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
            if folder.record.recipe == function.__name__ or _command(folder.record)[:1] == [name]:
                if folder.record.status != "finished":
                    return path.parent, folder.record
                done += 1
    raise Misuse(f"there is no unfinished run of {name!r} under runs/ ({done} finished); name it with --out")


def _command(record: RunRecord) -> list[str]:
    """The words after `sparsight run` of the command line that made the run; none if Python made it."""
    words = shlex.split(record.command or "")
    return words[2:] if words[:2] == ["sparsight", "run"] else []


def _as_it_was(
    name: str, function: Callable[..., Recipe], given: Sequence[str], settings: RunSettings, stored: RunRecord
) -> tuple[dict[str, Any], RunSettings]:
    """The first command line with the present one's words after it, so that these win where both speak.

    A word that changes what the run is makes it another run, which `execute` refuses.
    """
    first = _command(stored)
    same = first[:1] == [name]
    arguments, then = _parse(name, function, [*first[1:], *given]) if same else _parse(name, function, given)
    threads = then.threads or stored.environment.get("threads")
    now = replace(then, out=settings.out, resume=True, json=settings.json, threads=threads)
    return arguments, now
