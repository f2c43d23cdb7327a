"""`sparsight analyze PATH`: how compressible a checkpoint is."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, check_outputs, checked, printable, resolved
from sparsight.cli.options import Json, Switch, options

SHOWN = 40
"""Tensors in the table without --all."""

Sort = Literal["compressible", "index", "size", "zeros", "gini", "name", "file"]


@dataclass(frozen=True)
class AnalyzeOptions:
    """Measure how compressible each tensor of a network is, from its weights alone. The network's code is not needed.

    A checkpoint of any size is read once, in bounded memory. For a run folder, the path is shown: how the PQ index
    changed as weights were pruned, where it turned, and what that means.
    """

    path: Annotated[
        conf.Positional[str],
        Doc(
            "A .safetensors file, a folder with model.safetensors.index.json, a PyTorch .pt, .pth or .bin file, a run "
            "folder, or package.module:attribute (a module or a function that returns one)."
        ),
    ]
    p: Annotated[tuple[float, ...], Doc("Exponents p of the PQ index, one per q; 0 < p < q.")] = (0.5,)
    q: Annotated[tuple[float, ...], Doc("Exponents q of the PQ index.")] = (1.0,)
    eta: Annotated[tuple[float, ...], Doc("Share of the kept weights' p-mass that pruning may lose.")] = (0.0, 0.1)
    gamma: Annotated[float, Doc("SAP's factor on the number of weights that the bound removes.")] = 1.0
    beta: Annotated[float, Doc("Largest share of the weights that SAP removes in one round.")] = 0.9
    include: Annotated[tuple[str, ...], Doc("Also analyse tensors with these names; shell-style patterns.")] = ()
    exclude: Annotated[tuple[str, ...], Doc("Skip tensors with these names.")] = ()
    sort: Annotated[Sort, Doc("Sort the table by this.")] = "compressible"
    all: Annotated[Switch, Doc("Show every tensor instead of the first 40.")] = False
    neurons: Annotated[Switch, Doc("Show every neuron.")] = False
    exact: Annotated[Switch, Doc("Compute the Gini index and the answer at eta exactly; reads the file again.")] = False
    sample: Annotated[Switch, Doc("Do not estimate the Gini index and the answer at eta from sampled weights.")] = True
    budget: Annotated[int, conf.arg(metavar="MIB"), Doc("Memory to use, in MiB, in addition to Python and torch.")] = (
        256
    )
    threads: Annotated[
        int | None, Doc("CPU threads; the result does not depend on them. Default: as many as torch uses.")
    ] = None
    json: Json = False
    csv: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write a row per tensor to this file; - is standard output.")
    ] = None
    html: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write a page with charts to this file; - is standard output.")
    ] = None


def main(argv: list[str]) -> int:
    asked = options(AnalyzeOptions, argv, "sparsight analyze")
    quiet = check_outputs(asked.json, csv=asked.csv, html=asked.html)
    if os.path.exists(Path(asked.path) / "run.json"):
        return _path(asked, quiet)
    return _network(asked, quiet)


# -- a network -------------------------------------------------------------------------------------------------


def _network(asked: AnalyzeOptions, quiet: bool) -> int:
    from sparsight.analysis import analyze
    from sparsight.analysis.text import as_csv, headline, neuron_table, nothing, table, wrapped
    from sparsight.checkpoint import CheckpointError
    from sparsight.records.record import to_json
    from sparsight.report.escape import plain

    thing = _thing(asked.path)
    _set_threads(asked.threads)
    with _progress(sys.stderr) as watch:
        try:
            found = analyze(
                thing, asked.p, asked.q, asked.eta, gamma=asked.gamma, beta=asked.beta, include=asked.include,
                exclude=asked.exclude, rows=asked.neurons, exact=asked.exact, sample=asked.sample,
                budget=asked.budget << 20, watch=watch,
            )  # fmt: skip
        except ValueError as error:
            _again(error)
    if asked.csv is not None:
        _write(asked.csv, as_csv(found))
    if asked.html is not None:
        from sparsight.analysis.page import page

        _write(asked.html, page(found))
    if asked.json:
        sys.stdout.write(json_.dumps(to_json(found), indent=2, allow_nan=False) + "\n")
        return 0
    if not found.tensors and asked.csv is None and asked.html is None:
        raise CheckpointError(found.source, nothing(found), "analyse")
    if quiet:
        return 0
    sys.stdout.write(f"{wrapped(printable(headline(found)))}\n\n")
    sys.stdout.write(plain(table(found, asked.sort, None if asked.all else SHOWN)) + "\n")
    if asked.neurons:
        for tensor in found.tensors:
            sys.stdout.write(plain(f"\n{neuron_table(tensor, found)}\n"))
    _tell_files(asked)
    return 0


def _again(error: ValueError) -> NoReturn:
    """Raise errors of files as they are, others as Misuse."""
    from sparsight.checkpoint import CheckpointError
    from sparsight.records.files import DamagedFile

    if isinstance(error, (CheckpointError, DamagedFile)):
        raise error
    raise Misuse(str(error)) from error


def _thing(spec: str) -> Any:
    """The path, or the module of package.module:attribute."""
    if os.path.exists(spec):
        return Path(spec)
    if ":" not in spec or "/" in spec.partition(":")[0]:
        raise NotFound(f"{spec} does not exist: expected a file, a folder or package.module:attribute")
    from torch import nn

    from sparsight.zoo.resolve import required_arguments

    thing = resolved(spec)
    if isinstance(thing, nn.Module) or not callable(thing):
        return thing
    missing = required_arguments(thing)
    if missing:
        raise Misuse(f"{spec} must be callable without arguments, but needs {', '.join(missing)}")
    return thing()


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    import torch

    from sparsight.numerics.checks import check_threads

    checked(check_threads, threads)
    torch.set_num_threads(threads)


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


def _write(path: Path, text: str) -> None:
    from sparsight.records.outputs import write_output

    write_output(path, [text.encode("utf-8")])


def _tell_files(asked: AnalyzeOptions) -> None:
    for path in (asked.csv, asked.html):
        if path is not None:
            sys.stdout.write(printable(f"written: {path}") + "\n")


# -- a run -----------------------------------------------------------------------------------------------------


def _path(asked: AnalyzeOptions, quiet: bool) -> int:
    from sparsight.analysis.text import path_table, wrapped
    from sparsight.analysis.trajectory import trajectory
    from sparsight.records.record import to_json
    from sparsight.report.escape import plain

    if asked.csv is not None:
        raise Misuse("--csv is for checkpoints: use --json for a run")
    p, q = (asked.p, asked.q) if (asked.p, asked.q) != ((0.5,), (1.0,)) else ((None,), (None,))
    if len(p) != 1 or len(q) != 1:
        raise Misuse("a run is analysed at one p and one q: give one value each")
    try:
        found = trajectory(asked.path, p[0], q[0])
    except ValueError as error:
        _again(error)
    if asked.html is not None:
        from sparsight.analysis.page import path_page

        _write(asked.html, path_page(found))
    if asked.json:
        sys.stdout.write(json_.dumps(to_json(found), indent=2, allow_nan=False) + "\n")
        return 0
    if quiet:
        return 0
    head = wrapped(printable(f"{found.source}: the path of {found.recipe}"))
    sys.stdout.write(plain(f"{head}\n\n{path_table(found)}\n"))
    _tell_files(asked)
    return 0
