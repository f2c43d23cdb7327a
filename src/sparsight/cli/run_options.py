"""The command line of `sparsight run`: a recipe, its arguments, and the options of every run, perhaps a stored one.

A run folder never chooses which code runs.
"""

from __future__ import annotations

import importlib
import inspect
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, checked, near, refusing, resolved
from sparsight.cli.options import Device, Precision, Switch, WhichLevels, as_typed, parse, why_no_maker
from sparsight.cli.processes import launched, main_process, tell_folder, told_folder
from sparsight.numerics.checks import check_threads
from sparsight.records.files import DamagedFile, there
from sparsight.records.folder import RunFolder
from sparsight.records.new_folder import next_folder
from sparsight.records.record import RunRecord
from sparsight.runs.adapt import adapted
from sparsight.runs.budget import budgeted
from sparsight.runs.recipe import Prunable, Recipe
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo

NOTES = """\
Writes a run folder (records, weights, masks, report.html) and prints its table. Ctrl-C stops the run; --resume
continues it later with identical results.

examples:
  sparsight run {name}
  sparsight run {name} --data digits --epochs 5 --seed 1 --out runs/first
  sparsight run {name} --model my_pkg.models:build --data my_pkg.data:build
  sparsight run {name} --resume

exit codes: 0 done, 1 failed, 2 wrong use, 3 damaged, foreign or locked run, 4 data or network not found, 130
interrupted."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every run: network, data, training, and output."""

    model: str = "mlp"
    """The network: mlp, lenet-300-100, lenet5, cnn, vanilla-cnn, resnet8, resnet18, resnet20, resnet32, stable-resnet8,
    stable-resnet18, stable-resnet20, stable-resnet32, linear, or package.module:attribute (a module or a function that
    returns one; the current folder is searched too)."""
    data: str = "fashion-mnist"
    """The data: fashion-mnist, mnist, digits; a path to a .npz file, a folder of images by class, or a folder of
    CIFAR's binary files; or package.module:attribute (a sparsight.Data or a function that returns one)."""
    weights: Annotated[Path | None, conf.arg(metavar="FILE")] = None
    """Load the network's weights from this file or folder (safetensors, .pt, .bin); implies --pretrained."""
    pretrained: Switch = False
    """The network is already trained: evaluate it as level 0 instead of training it, and fine-tune pruned levels at a
    lower learning rate."""
    loss: str | None = None
    """The loss to minimise: task (the model's own, otherwise cross-entropy), cross-entropy, binary-cross-entropy, mse,
    mae, or package.module:function, called with a model and a batch. Default: the recipe's."""
    optimizer: str | None = None
    """sgd, adam, adamw, or package.module:function, called with the parameters. Default: the recipe's, SGD."""
    metric: str | None = None
    """The metric that chooses a level: auto (accuracy, or whatever the outputs allow), accuracy, loss, perplexity, mse,
    rmse, mae, or package.module:attribute (a judge or a torchmetrics metric). Default: the recipe's."""
    relative: Annotated[Switch, Doc("Read --within as percent of the dense network's value, not as points.")] = False
    include: Annotated[tuple[str, ...], Doc("Also prune parameters with these names; shell-style patterns.")] = ()
    exclude: Annotated[tuple[str, ...], Doc("Keep parameters with these names dense, and do not warn of them.")] = ()
    total_epochs: int | None = None
    """Train for exactly this many epochs in total: the last level takes those that are left."""
    share: Annotated[Path | None, conf.arg(metavar="DIR")] = None
    """Share the training of the dense network through this folder: reuse it if a run with the same start left it there,
    otherwise leave it there. The results are identical without it."""
    out: Annotated[Path | None, conf.arg(metavar="DIR")] = None
    """The run folder. Default: the next free runs/RECIPE-001. Existing runs are never overwritten."""
    resume: Switch = False
    """Resume the run in --out, otherwise the newest unfinished run of the recipe. Options keep their values, but
    package.module:attribute names must be given again."""
    keep: WhichLevels = "all"
    device: Device = "auto"
    precision: Precision = "no"
    threads: int | None = None
    """CPU threads, which change the last bits of results. Default: as many as torch uses."""
    json: Annotated[Switch, Doc("Print one JSON document instead; progress goes to standard error.")] = False


@dataclass(frozen=True)
class RunRequest:
    """A parsed command line."""

    recipe: Recipe
    arguments: Mapping[str, Any]
    settings: RunOptions
    folder: Path
    made: bool  # whether the folder was created for this run
    stored: RunRecord | None = None  # of the run to resume


def find(name: str) -> Callable[..., Recipe]:
    """The recipe function of that name, or of package.module:function. Raises: Misuse."""
    if ":" not in name:
        stem = name.replace("-", "_")
        return getattr(importlib.import_module(f"sparsight.recipes.{stem}"), stem)
    found = resolved(name, Misuse)
    if (why := why_no_maker(found, Recipe)) is not None:
        raise Misuse(f"{name!r} {why}: expected a function that returns a Recipe and whose parameters are options")
    return cast(Callable[..., Recipe], found)  # checked when it is called


def understand(name: str, given: Sequence[str]) -> RunRequest:
    """Parse `sparsight run NAME GIVEN...`. Creates a run folder if --out is missing.

    Raises: Misuse, NotFound, DamagedFile; SystemExit after --help.
    """
    function = find(name)
    told = told_folder()
    arguments, settings = _parse(name, function, given)
    folder, stored, made = settings.out or told, None, False
    if folder is None and not main_process():
        raise Misuse("several processes need a common run folder: give --out, or start them with torchrun")
    if settings.resume:
        folder, stored = taken_up(name, function.__name__, folder)
        arguments, settings = as_it_was(name, function, given, folder, stored)
    recipe = adapted_recipe(built(name, function, arguments), settings)
    if settings.include or settings.exclude:
        own = recipe.prunable
        both = Prunable((*own.include, *settings.include), (*own.exclude, *settings.exclude))
        recipe = replace(recipe, prunable=both)
    look_for_all(settings)
    if folder is None:
        folder, made = next_folder(Path("runs"), recipe.name), True
    if main_process():
        tell_folder(folder)
    return RunRequest(recipe, arguments, settings, folder, made, stored)


def _parse(name: str, function: Callable[..., Recipe], given: Sequence[str]) -> tuple[dict[str, Any], RunOptions]:
    prog = f"sparsight run {name}"
    first, _, _ = (inspect.getdoc(function) or "").partition("\n")
    found = parse({"recipe": function, "run": RunOptions}, given, prog, f"{first}\n\n{NOTES.format(name=name)}")
    return found["recipe"], RunOptions(**found["run"])


def built(name: str, function: Callable[..., Recipe], arguments: Mapping[str, Any]) -> Recipe:
    try:
        recipe = function(**arguments)
    except (ValueError, TypeError) as error:
        raise Misuse(as_typed(str(error), arguments)) from error
    if not isinstance(recipe, Recipe):
        raise Misuse(f"{name!r} must return a sparsight Recipe, got {type(recipe).__name__}")
    return recipe


def adapted_recipe(recipe: Recipe, settings: RunOptions) -> Recipe:
    """The recipe with the loss, optimiser, metric and total epochs of the options."""

    def named(spec: str | None) -> Any:
        return resolved(spec) if spec is not None and ":" in spec else spec

    with refusing(ValueError, TypeError):
        judge = named(settings.metric)
        if inspect.isclass(judge) or (inspect.isfunction(judge) and not inspect.signature(judge).parameters):
            judge = judge()
        trained = settings.pretrained or settings.weights is not None
        loss, optimizer = named(settings.loss), named(settings.optimizer)
        recipe = adapted(
            recipe, loss=loss, optimizer=optimizer, metric=judge, pretrained=trained, relative=settings.relative
        )
        return recipe if settings.total_epochs is None else budgeted(recipe, settings.total_epochs)


def look_for_all(settings: RunOptions) -> None:
    """Raise NotFound if data, model or weights do not exist."""
    if not readers.is_path(settings.data):
        look_for("data", settings.data, readers.KNOWN)
    elif not there(Path(settings.data)):
        raise NotFound(f"--data {settings.data} does not exist")
    look_for("model", settings.model, zoo.KNOWN)
    if settings.weights is not None and not there(settings.weights):
        raise NotFound(f"--weights {settings.weights} does not exist")
    checked(check_threads, threads=settings.threads)


def look_for(what: str, spec: str, known: Collection[str]) -> None:
    """Raise NotFound, with close matches, for an unknown name or package.module:attribute."""
    if ":" in spec:
        resolved(spec)
    elif spec.lower().replace("_", "-") not in known:
        some = ", ".join(dict.fromkeys(known))
        hint = near(spec, known) or f"; expected one of {some}, or package.module:attribute"
        raise NotFound(f"unknown {what} {spec!r}{hint}")


# -- resuming ----------------------------------------------------------------------------------------------------


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
    name: str, function: Callable[..., Recipe], given: Sequence[str], folder: Path, stored: RunRecord
) -> tuple[dict[str, Any], RunOptions]:
    """The arguments of the first command line, with `given` appended, which wins.

    `execute` refuses arguments that change the run. Raises: Misuse if the first command line names code that `given`
    does not: names in a run folder are compared, never imported.
    """
    first, (own, now) = _command(folder, stored), _parse(name, function, given)
    arguments, then = _parse(name, function, [*first[1:], *given]) if first[:1] == [name] else (own, now)
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
