"""What a command line of `sparsight run` asks for: a recipe, its arguments, and where it is run."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, checked, near
from sparsight.cli.options import Switch, about, as_typed, keywords, parse, why_no_maker
from sparsight.cli.processes import main_process, tell_folder, told_folder
from sparsight.cli.resuming import as_it_was, taken_up
from sparsight.numerics.checks import check_threads
from sparsight.records.files import there
from sparsight.records.new_folder import next_folder
from sparsight.records.record import RunRecord
from sparsight.runs.adapt import adapted
from sparsight.runs.budget import budgeted
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


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What it is run on, and where it is kept."""

    model: Annotated[
        str,
        Doc(
            "The network: mlp, lenet-300-100, lenet5, cnn, vanilla-cnn, resnet8, resnet18, resnet20, resnet32, "
            "stable-resnet8, stable-resnet18, stable-resnet20, stable-resnet32, linear, or package.module:attribute (a "
            "module or a function that makes one), looked for in the current folder too."
        ),
    ] = "mlp"
    data: Annotated[
        str,
        Doc(
            "The data: fashion-mnist, mnist, digits; a path to a .npz of arrays, a folder of images by class, or one "
            "of CIFAR's binary files; or package.module:attribute (a sparsight.Data or a function that makes one)."
        ),
    ] = "fashion-mnist"
    weights: Annotated[
        Path | None,
        conf.arg(metavar="FILE"),
        Doc("Load the network's weights from this file (safetensors, .pt, .bin, or a folder); implies --pretrained."),
    ] = None
    pretrained: Annotated[
        Switch,
        Doc(
            "The network is trained already: judge it as it is instead of training level 0, and train pruned levels at "
            "a learning rate for fine-tuning."
        ),
    ] = False
    loss: Annotated[
        str | None,
        Doc(
            "What is minimised: task (the model's own loss, or cross-entropy), cross-entropy, binary-cross-entropy, "
            "mse, mae, or package.module:function, called with a model and a batch."
        ),
    ] = None
    optimizer: Annotated[
        str | None,
        Doc(
            "sgd, adam, adamw, or package.module:function, called with the parameters. Default: the recipe's, which "
            "is SGD."
        ),
    ] = None
    metric: Annotated[
        str | None,
        Doc(
            "What levels are chosen by: auto (accuracy, or what the outputs allow), accuracy, loss, perplexity, mse, "
            "rmse, mae, or package.module:attribute (a judge or a metric of torchmetrics)."
        ),
    ] = None
    relative: Annotated[Switch, Doc("Read `within` as percent of the dense network's value, not as points.")] = False
    include: Annotated[tuple[str, ...], Doc("Also prune parameters of these names; shell-style patterns.")] = ()
    exclude: Annotated[tuple[str, ...], Doc("Leave parameters of these names dense, without a word about them.")] = ()
    total_epochs: Annotated[
        int | None,
        conf.arg(metavar="N"),
        Doc("Train for exactly this many epochs in all: the last level takes what those before it leave."),
    ] = None
    share: Annotated[
        Path | None,
        conf.arg(metavar="DIR"),
        Doc(
            "Take the training of the dense network from this folder if a run that began alike has left it there, and "
            "leave it there otherwise. The run folder is the same with and without it, bit for bit."
        ),
    ] = None
    out: Annotated[
        Path | None,
        conf.arg(metavar="DIR"),
        Doc("The run folder. Default: the next free runs/RECIPE-001. An existing run is never overwritten."),
    ] = None
    resume: Annotated[
        Switch,
        Doc(
            "Resume the run in --out. Default: the newest unfinished run of the recipe. Options that are not given "
            "again stay as they were; package.module:attribute names must be given again."
        ),
    ] = False
    keep: Annotated[
        Literal["all", "packed", "chosen", "last"],
        Doc(
            "Which levels' weights to keep on disk once the run is finished, packed being all, in packed files; masks "
            "and records always stay."
        ),
    ] = "all"
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"],
        Doc("Where to compute; auto takes an accelerator if there is one."),
    ] = "auto"
    precision: Annotated[Literal["no", "bf16", "fp16"], Doc("Mixed precision for training, or no.")] = "no"
    threads: Annotated[
        int | None,
        conf.arg(metavar="N"),
        Doc(
            "CPU threads, for torch and the compiled kernels alike. Default: as many as torch takes. The bits of a run "
            "depend on it."
        ),
    ] = None
    json: Annotated[Switch, Doc("Print one JSON document instead of the table; progress goes to standard error.")] = (
        False
    )


@dataclass(frozen=True)
class RunRequest:
    """A command line, understood."""

    recipe: Recipe
    arguments: Mapping[str, Any]
    settings: RunOptions
    folder: Path  # where the run is, or will be
    made: bool  # the folder was made for it
    stored: RunRecord | None = None  # of the run to go on with


def find(name: str) -> Callable[..., Recipe]:
    """The recipe function of that name: one of the package, or package.module:function. Misuse if there is none."""
    if ":" not in name:
        stem = name.replace("-", "_")
        return getattr(importlib.import_module(f"sparsight.recipes.{stem}"), stem)
    found: Any = _resolved(name, Misuse)
    if (why := why_no_maker(found, Recipe)) is not None:
        raise Misuse(f"{name!r} {why}: expected a function that returns a Recipe, its parameters the options")
    return cast(Callable[..., Recipe], found)  # what it returns is seen when it is called


def _resolved(spec: str, error: type[Exception]) -> Any:
    """What `spec` names; `error` where there is no such thing."""
    try:
        return resolve(spec)
    except ValueError as cause:
        raise error(str(cause)) from cause


def understand(name: str, given: Sequence[str]) -> RunRequest:
    """What `sparsight run NAME GIVEN...` asks for. A folder is made for a new run where none is named.

    Misuse, NotFound, DamagedFile; SystemExit after help, or after a bad value was explained.
    """
    function = find(name)
    told = told_folder()
    arguments, settings = _parse(name, function, given)
    folder, stored, made = settings.out or told, None, False
    if folder is None and not main_process():
        raise Misuse("these processes cannot agree on a run folder: name it with --out, or start them with torchrun")
    if settings.resume:
        folder, stored = taken_up(name, function.__name__, folder)
        arguments, settings = as_it_was(name, partial(_parse, name, function), given, folder, stored)
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
    description = f"{about(function).partition(chr(10))[0]}\n\n{NOTES.format(name=name)}"
    found = parse({"recipe": keywords(function), "run": RunOptions}, given, prog, description)
    return found["recipe"], found["run"]


def built(name: str, function: Callable[..., Recipe], arguments: Mapping[str, Any]) -> Recipe:
    try:
        recipe = function(**arguments)
    except (ValueError, TypeError) as error:
        raise Misuse(as_typed(str(error), arguments)) from error
    if not isinstance(recipe, Recipe):
        raise Misuse(f"{name!r} returned a {type(recipe).__name__}: expected a sparsight Recipe")
    return recipe


def adapted_recipe(recipe: Recipe, settings: RunOptions) -> Recipe:
    """The recipe with the loss, the optimiser and the metric that are named, and its epochs in all."""

    def named(spec: str | None) -> Any:
        return _resolved(spec, NotFound) if spec is not None and ":" in spec else spec

    try:
        fitted = adapted(
            recipe,
            loss=named(settings.loss),
            optimizer=named(settings.optimizer),
            metric=_judge(named(settings.metric)),
            pretrained=settings.pretrained or settings.weights is not None,
            relative=settings.relative,
        )
        return fitted if settings.total_epochs is None else budgeted(fitted, settings.total_epochs)
    except (ValueError, TypeError) as error:
        raise Misuse(str(error)) from error


def _judge(found: Any) -> Any:
    """What is named as a metric; a function or class without arguments makes it."""
    makes = inspect.isclass(found) or (inspect.isfunction(found) and not inspect.signature(found).parameters)
    return found() if makes else found


def look_for_all(settings: RunOptions) -> None:
    """NotFound, with close matches, if the data or the model that is named is not there."""
    if not readers.is_path(settings.data):
        look_for("data", settings.data, readers.KNOWN)
    elif not there(Path(settings.data)):
        raise NotFound(f"there is no file or folder {settings.data} to read data from")
    look_for("model", settings.model, zoo.KNOWN)
    if settings.weights is not None and not there(settings.weights):
        raise NotFound(f"there is no file {settings.weights} to load weights from")
    if settings.threads is not None:
        checked(check_threads, settings.threads)


def look_for(what: str, spec: str, known: Collection[str]) -> None:
    """NotFound, with close matches, if there is no `what` of that name, nor package.module:attribute."""
    if ":" in spec:
        _resolved(spec, NotFound)
    elif spec.lower().replace("_", "-") not in known:
        hint = near(spec, known) or f"; there are {', '.join(known)}, or package.module:attribute of your own"
        raise NotFound(f"unknown {what} {spec!r}{hint}")
