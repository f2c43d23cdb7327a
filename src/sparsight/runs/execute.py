"""A run in a folder, from loading data and model to choosing a level, evaluating it and writing the report."""

from __future__ import annotations

import copy
import datetime
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

import sparsight
from sparsight.model.masks import left_out, prunable
from sparsight.model.names import named
from sparsight.model.pretrained import load_into
from sparsight.numerics.checks import check_threads
from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import REMEDIES
from sparsight.records.identity import check_same, describe, fingerprint, public_name
from sparsight.records.journal import Event, Watch
from sparsight.records.new_folder import forget, next_folder
from sparsight.records.record import Evaluation, Keep, LevelRecord, LevelTimes, RunRecord
from sparsight.records.starts import Starts, start_of
from sparsight.records.tensors import tensors_digest
from sparsight.records.verify import check_whole
from sparsight.runs.recipe import Recipe
from sparsight.runs.run import judge_on_test, run
from sparsight.runs.search import Done
from sparsight.runs.several import check_alike
from sparsight.runs.training import UnfitProgress
from sparsight.train.parallel import LostProcess, Precision, runtime
from sparsight.types import Data, Split, StateDict
from sparsight.zoo import data as readers
from sparsight.zoo import networks as zoo

_Judge = Callable[[Iterable[tuple[LevelRecord, StateDict]]], Evaluation | None]


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    path: Path
    record: RunRecord
    levels: tuple[LevelRecord, ...]
    times: tuple[LevelTimes, ...]
    evaluation: Evaluation | None

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def execute(
    recipe: Recipe,
    *,
    model: str | nn.Module = "mlp",
    data: str | Data = "fashion-mnist",
    weights: Path | str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    share: Path | str | None = None,
    keep: Keep = "all",
    device: str = "auto",
    precision: Precision = "no",
    threads: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    command: str | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run a recipe into a run folder: prune level by level, choose, evaluate once on the test split, report.

    `model` is a zoo name, "package.module:attribute" (a module, or a function that returns one), or a module.
    `data` is a name, "package.module:attribute", a path (`zoo.data.from_path`) or `Data`.
    `weights` is a file to load into a copy of the model (`load_into`); see `adapted` for pretrained networks.
    `out` is the run folder, by default the next free `runs/RECIPE-001`; existing runs are never overwritten.
    `resume` continues the run in `out`, by default the newest unfinished one of the recipe under `runs/`. The results
    are identical to an uninterrupted run; a finished run is returned unchanged.
    `share` is a folder through which runs with the same start share the training of the dense network.
    `keep` chooses which weights to keep on disk. `threads` sets the threads of torch and the compiled kernels.

    Under torchrun every process calls it: all train, the main one writes and evaluates, and all get its outcome.

    A run stopped by Ctrl-C or a kill can be resumed; a new run that fails before training leaves no folder.

    Raises: `DamagedFile`, `ForeignRun`, `LockedRun`, and the errors of `run`.
    """
    if threads is not None:
        check_threads(threads)
    where = runtime(device, precision)
    if threads is not None:  # after accelerate, which may set them too
        torch.set_num_threads(threads)
    source = where.main_first(lambda: readers.prepared(readers.load(data)))
    network = zoo.build(model, source, recipe.seed) if isinstance(model, str) else model
    if weights is not None:
        network = network if isinstance(model, str) else copy.deepcopy(network)
        load_into(weights, network)
    record = RunRecord(
        recipe=recipe.name, arguments=dict(arguments or {}), description=describe(recipe), seed=recipe.seed,
        data=fingerprint(source), model=_about_model(network, recipe, model if isinstance(model, str) else None),
        environment=_about_environment(device, precision), keep=keep, status="running", started=_now(), command=command,
        left_out=left_out(network, include=recipe.prunable.include, exclude=recipe.prunable.exclude),
        most_frequent=most_frequent(source),
    )  # fmt: skip
    check_alike(record, where)
    starts = None if share is None or not isinstance(model, str) else Starts(Path(share), start_of(record))
    existed, begun = out is not None and Path(out).exists(), _Begun(watch)
    folder = where.on_main(lambda: _folder(record, out, resume))
    own = cast(RunFolder, folder)  # used in the main process only
    judge = partial(judge_on_test, recipe, network, source, device=device, precision=precision)
    with folder or nullcontext():
        if where.broadcast(lambda: own.record.status == "finished"):
            where.on_main(lambda: _evaluate(own, judge))
            where.on_main(lambda: _tidy(own))
            return where.broadcast(lambda: _outcome(own))
        try:
            how = {"device": device, "precision": precision, "journal": folder, "watch": begun}
            for _ in run(recipe, network, source, **how, starts=starts):
                pass
            where.on_main(lambda: _finish(own, recipe, judge))
            where.on_main(lambda: _tidy(own))
        except (KeyboardInterrupt, GeneratorExit, SystemExit, LostProcess):
            _stopped(folder, "interrupted")
            raise
        except Exception as error:
            if resume or begun.training:
                _stopped(folder, "failed")
            elif folder is not None:
                folder.close()
                forget(folder.path, keep_folder=existed)
            if isinstance(error, UnfitProgress):
                path = (Path() if folder is None else folder.path) / "state.safetensors"
                raise DamagedFile(path, str(error), REMEDIES[path.name]) from error
            raise
        return where.broadcast(lambda: _outcome(own))


def _stopped(folder: RunFolder | None, status: Literal["interrupted", "failed"]) -> None:
    """Record that a run has stopped, unless it is finished."""
    if folder is not None and folder.record.status != "finished":
        folder.update(status=status)


@dataclass
class _Begun:
    """Forwards the events of a run, and remembers whether training has begun."""

    watch: Watch | None
    training: bool = False

    def __call__(self, event: Event) -> None:
        self.training = True
        if self.watch is not None:
            self.watch(event)


def _folder(record: RunRecord, out: Path | str | None, resume: bool) -> RunFolder:
    """The folder of a new run, or of the run to resume."""
    if not resume:
        path = next_folder(Path("runs"), record.recipe) if out is None else Path(out)
        return RunFolder.create(path, record)
    path = _unfinished(Path("runs"), record) if out is None else Path(out)
    folder = RunFolder.open(path, write=True)
    try:
        check_same(folder.record, record)
        check_whole(folder)
        if folder.record.status != "finished":
            folder.update(status="running", resumed=folder.record.resumed + 1, keep=record.keep)
    except BaseException:
        folder.close()
        raise
    return folder


def _unfinished(root: Path, wanted: RunRecord) -> Path:
    """The newest unfinished run of the recipe under `root`."""
    names = {wanted.recipe, wanted.recipe.replace("-", "_")}
    found = sorted(path.parent for name in names for path in root.glob(f"{name}-*/run.json"))
    for path in reversed(found):
        with RunFolder.open(path) as folder:
            if folder.record.recipe in names and folder.record.status != "finished":
                return path
    raise FileNotFoundError(
        f"no unfinished run of {wanted.recipe!r} under {root}/ ({len(found)} finished): give the run folder with --out"
    )


def _finish(folder: RunFolder, recipe: Recipe, judge: _Judge) -> None:
    """Choose by validation data, read the test split once, write the report."""
    levels = folder.levels()
    if folder.record.chosen is None and levels:
        choice = recipe.choose(levels)
        chosen = next(level for level in levels if level.id == choice.id)
        folder.save_chosen(chosen, choice.why, choice.missed)
    _evaluate(folder, judge)
    end = recipe.search.next([level for level in levels if level.role == "level"])
    folder.update(status="finished", ended=_now(), why_ended=end.why if isinstance(end, Done) else None)


def _evaluate(folder: RunFolder, judge: _Judge) -> None:
    """Evaluate the stored networks on the test split, unless already done."""
    if folder.evaluation() is None:
        found = judge((level, folder.weights(level)) for level in folder.levels() if folder.keeps(level))
        if found is not None:
            folder.save_evaluation(found)


def _tidy(folder: RunFolder) -> None:
    """The last steps of a finished run, which a kill may have prevented."""
    from sparsight.compare.verdict import report

    folder.discard()
    if not (folder.path / "report.html").exists():
        report(folder)


def _outcome(folder: RunFolder) -> Outcome:
    return Outcome(folder.path, folder.record, folder.levels(), folder.times(), folder.evaluation())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# -- what is recorded of model and machine --------------------------------------------------------------------


def _about_model(model: nn.Module, recipe: Recipe, spec: str | None) -> dict[str, Any]:
    """The type, counts and prunable tensors of a model, and the fingerprint of its weights."""
    weights = prunable(model, include=recipe.prunable.include, exclude=recipe.prunable.exclude)
    return {
        "spec": spec,
        "type": public_name(type(model)),
        "parameters": sum(parameter.numel() for parameter in named(model).values()),
        "prunable": sum(weight.numel() for weight in weights.values()),
        "tensors": {name: list(weight.shape) for name, weight in weights.items()},
        "fingerprint": tensors_digest(model.state_dict()),
    }


def most_frequent(data: Data) -> float | None:
    """The share of the most frequent validation label, the accuracy of guessing; None without classes.

    Ignores labels below 0.
    """
    labels = data.validation.y if isinstance(data.validation, Split) else None
    if labels is None or labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        return None
    counted = torch.unique(labels[labels >= 0], return_counts=True)[1]
    return int(counted.max()) / int(counted.sum()) if len(counted) else None


def _about_environment(device: str, precision: Precision) -> dict[str, Any]:
    """Versions, machine, device, threads and processes."""
    packages = ("torch", "numpy", "numba", "safetensors", "accelerate")
    return {
        **runtime(device, precision).facts(),
        "sparsight": sparsight.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in packages},
    }
