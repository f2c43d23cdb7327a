"""`sparsight ledger WHAT`: the size of a pruned network on disk and in memory, and its speed."""

from __future__ import annotations

import json as json_
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, check_outputs, checked
from sparsight.cli.options import Json, LevelNumber, ModelName, Switch, options

if TYPE_CHECKING:
    from torch import nn

    from sparsight.deploy.ledger import Ledger, Request, Roles


@dataclass(frozen=True)
class LedgerOptions:
    """Count the parameters, bytes and multiplications of a pruned network; with --measure, also time and memory.

    Every number is counted or measured, never derived from another, and one sentence sums them up. Zeros in the file
    count as pruned.
    """

    what: Annotated[
        conf.Positional[str],
        Doc("A run folder, a checkpoint of any kind, a network of the zoo, or package.module:attribute."),
    ]
    level: LevelNumber = None
    model: ModelName = None
    shape: Annotated[
        tuple[int, ...], Doc("Shape of the network's input without the batch. Default: that of the run's data.")
    ] = ()
    measure: Annotated[Switch, Doc("Also measure time and peak memory, next to the same network without zeros.")] = (
        False
    )
    batch: Annotated[tuple[int, ...], Doc("Inputs per call; each of several is timed.")] = (1,)
    threads: Annotated[
        tuple[int, ...], Doc("CPU threads; each of several is timed. Default: as many as torch uses.")
    ] = ()
    runtimes: Annotated[
        tuple[str, ...],
        Doc("Runtimes to time besides Sparsight's: torch, torch-bf16, onnxruntime, openvino, openvino-bf16."),
    ] = ("torch", "onnxruntime", "openvino")
    rounds: Annotated[int, Doc("Timed calls of each runtime.")] = 25
    json: Json = False
    csv: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write a row per number to this file; - is standard output.")
    ] = None


_OF_TIMES = ("batch", "threads", "runtimes", "rounds")


def main(argv: list[str]) -> int:
    asked = options(LedgerOptions, argv, "sparsight ledger")
    quiet = check_outputs(asked.json, csv=asked.csv)

    from sparsight.records.outputs import write_output
    from sparsight.report.escape import plain
    from sparsight.report.ledger import document, rows, text
    from sparsight.report.table import as_csv

    found = _found(asked, _request(asked))
    if asked.csv is not None:
        write_output(asked.csv, [as_csv(rows(found)).encode()])
    if asked.json:
        sys.stdout.write(json_.dumps(document(found), indent=2, allow_nan=False) + "\n")
    elif not quiet:
        sys.stdout.write(plain(text(found)) + "\n")
    return 0


def _request(asked: LedgerOptions) -> Request | None:
    """What to measure. Raises: Misuse for bad numbers, unknown runtimes, and options of --measure without it."""
    from sparsight.deploy.ledger import Request
    from sparsight.numerics.checks import check_known, check_whole

    for size in asked.shape:
        checked(lambda value: check_whole(1, shape=value), size)
    given = [f"--{name}" for name in _OF_TIMES if getattr(asked, name) != getattr(LedgerOptions(""), name)]
    if not asked.measure:
        if given:
            raise Misuse(f"{given[0]} needs --measure")
        return None
    from sparsight.deploy.bench import RIVALS

    for name in asked.runtimes:
        checked(lambda value: check_known(tuple(RIVALS), runtimes=value), name)
    try:
        return Request(asked.batch, asked.threads, asked.runtimes, asked.rounds)
    except ValueError as error:
        raise Misuse(f"--{error}") from error


def _found(asked: LedgerOptions, measure: Request | None) -> Ledger:
    """The ledger of a run, a file or a network."""
    if os.path.exists(os.path.join(asked.what, "run.json")):
        return _of_run(asked, measure)
    if asked.level is not None:
        raise Misuse(f"--level is for runs: {asked.what} is not a run folder")
    import torch

    from sparsight.deploy.ledger import Roles, ledger

    inputs = torch.zeros(1, *asked.shape) if asked.shape else None
    if not os.path.exists(asked.what):
        module = _network(asked.what, asked.shape)
        if asked.model is not None:
            raise Misuse(f"--model is for files and runs: {asked.what} is a network")
        return _measurable(ledger(module, inputs, measure=measure), asked)
    model = _network(asked.model, asked.shape) if asked.model else None
    roles = Roles() if model is not None else _roles(Path(asked.what))
    return _measurable(ledger(Path(asked.what), inputs, model=model, roles=roles, measure=measure), asked)


def _measurable(found: Ledger, asked: LedgerOptions) -> Ledger:
    """Raise Misuse if a network without code should be timed."""
    from sparsight.deploy.ledger.records import CODE

    if asked.measure and found.missing.get("latency") == CODE:
        raise Misuse(f"--measure {CODE}: give --model package.module:attribute and --shape")
    return found


def _of_run(asked: LedgerOptions, measure: Request | None) -> Ledger:
    from sparsight.cli.certify_inputs import level_of
    from sparsight.cli.show import opened
    from sparsight.deploy.ledger.of_run import of_run

    with opened(Path(asked.what)) as folder:
        facts = folder.record.data.get("facts", {})
        shape = asked.shape or tuple(facts.get("input_shape", ()))
        model = _network(asked.model, shape) if asked.model else None
        record = None if asked.level is None else level_of(folder, asked.level)
        try:
            return _measurable(of_run(folder, record, model=model, shape=shape, measure=measure), asked)
        except FileNotFoundError as error:
            raise NotFound(str(error)) from error


def _network(spec: str, shape: tuple[int, ...]) -> nn.Module:
    from sparsight.cli.run_options import look_for
    from sparsight.zoo.networks.build import KNOWN, own

    known = spec.lower().replace("_", "-")
    if known in KNOWN:
        return KNOWN[known](shape or (1, 28, 28), seed=0)
    look_for("network", spec, KNOWN)
    try:
        return own(spec, 0)
    except TypeError as error:
        raise Misuse(str(error)) from error


def _roles(path: Path) -> Roles:
    """The roles of the tensors in a file, judged as by `analyze`."""
    from sparsight.analysis.tensor_kinds import judge
    from sparsight.checkpoint import open_checkpoint
    from sparsight.deploy.ledger import Roles

    verdicts = judge(open_checkpoint(path).entries, (), ())
    beside = ("buffer", "mask", "average", "optimizer", "other")
    chosen = [name for name, verdict in verdicts.items() if verdict.why is None]
    return Roles(chosen, [name for name, verdict in verdicts.items() if verdict.kind in beside])
