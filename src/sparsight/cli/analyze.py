"""`sparsight analyze PATH`: how compressible a checkpoint is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsight.analysis import Analysis, analyze
from sparsight.analysis.page import page, path_page
from sparsight.analysis.text import as_csv, headline, neuron_table, nothing, path_table, table, wrapped
from sparsight.analysis.trajectory import trajectory
from sparsight.checkpoint import CheckpointError
from sparsight.cli.errors import Misuse, NotFound, checked, printable, refusing, resolved
from sparsight.cli.network_options import AnalyzeOptions
from sparsight.cli.output import check_outputs, give
from sparsight.numerics.checks import check_threads
from sparsight.zoo.resolve import required_arguments

SHOWN = 40
"""Tensors in the table without --all."""


def main(asked: AnalyzeOptions) -> int:
    check_outputs(asked)
    return (_path if os.path.exists(Path(asked.path) / "run.json") else _network)(asked)


def _network(asked: AnalyzeOptions) -> int:
    thing = _thing(asked.path)
    if asked.threads is not None:
        checked(check_threads, threads=asked.threads)
        torch.set_num_threads(asked.threads)
    with _progress(sys.stderr) as watch, refusing():
        found = analyze(
            thing, asked.p, asked.q, asked.eta, gamma=asked.gamma, beta=asked.beta, include=asked.include,
            exclude=asked.exclude, rows=asked.neurons, exact=asked.exact, sample=asked.sample,
            budget=asked.budget << 20, watch=watch,
        )  # fmt: skip

    if not found.tensors and not (asked.csv or asked.html or asked.json):
        raise CheckpointError(found.source, nothing(found), "analyse")
    return give(
        asked,
        lambda: _text(found, asked),
        lambda: found,
        csv=lambda: as_csv(found),
        html=lambda: page(found),
        tell_files=True,
    )


def _text(found: Analysis, asked: AnalyzeOptions) -> str:
    parts = [wrapped(printable(headline(found))), table(found, asked.sort, None if asked.all else SHOWN)]
    return "\n\n".join([*parts, *(neuron_table(tensor, found) for tensor in found.tensors if asked.neurons)])


def _thing(spec: str) -> Any:
    """The path, or the module of package.module:attribute."""
    if os.path.exists(spec):
        return Path(spec)
    if ":" not in spec or "/" in spec.partition(":")[0]:
        raise NotFound(f"{spec} does not exist: expected a file, a folder or package.module:attribute")
    thing = resolved(spec)
    if not isinstance(thing, nn.Module) and callable(thing):
        missing = required_arguments(thing)
        if missing:
            raise Misuse(f"{spec} must be callable without arguments, but needs {', '.join(missing)}")
        thing = thing()
    if not isinstance(thing, (nn.Module, Mapping, str, Path)):
        kind = type(thing).__name__
        raise Misuse(f"{spec} must be a module, tensors by name, or a function that makes one, got {kind}")
    return thing


@contextmanager
def _progress(stream: Any) -> Iterator[Any]:
    """A progress bar on a terminal, otherwise None."""
    if not stream.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _path(asked: AnalyzeOptions) -> int:
    """The path of a run."""
    if asked.csv is not None:
        raise Misuse("--csv is for checkpoints: use --json for a run")
    p, q = (asked.p, asked.q) if (asked.p, asked.q) != ((0.5,), (1.0,)) else ((None,), (None,))
    if len(p) != 1 or len(q) != 1:
        raise Misuse("a run is analysed at one p and one q: give one value each")
    with refusing():
        found = trajectory(asked.path, p[0], q[0])

    head = wrapped(printable(f"{found.source}: the path of {found.recipe}"))
    return give(
        asked, lambda: f"{head}\n\n{path_table(found)}", lambda: found, html=lambda: path_page(found), tell_files=True
    )
