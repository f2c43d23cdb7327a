"""`sparsight ledger WHAT`: the size of a pruned network on disk and in memory, and its speed."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sparsight.analysis.tensor_kinds import judge
from sparsight.checkpoint import open_checkpoint
from sparsight.cli.certify_inputs import level_of, named_network
from sparsight.cli.errors import Misuse, NotFound, checked, refusing
from sparsight.cli.network_options import LedgerOptions
from sparsight.cli.output import check_outputs, give
from sparsight.cli.show import opened
from sparsight.deploy.bench import RIVALS
from sparsight.deploy.ledger import Ledger, Request, Roles, ledger
from sparsight.deploy.ledger.of_run import of_run
from sparsight.deploy.ledger.records import CODE
from sparsight.numerics.checks import check_known, check_whole
from sparsight.report.ledger import document, rows, text
from sparsight.report.table import as_csv

_OF_TIMES = ("batch", "threads", "runtimes", "rounds")


def main(asked: LedgerOptions) -> int:
    check_outputs(asked)
    found = _found(asked, _request(asked))
    if asked.measure and found.missing.get("latency") == CODE:
        raise Misuse(f"--measure {CODE}: give --model package.module:attribute and --shape")
    return give(asked, lambda: text(found), lambda: document(found), csv=lambda: as_csv(rows(found)))


def _request(asked: LedgerOptions) -> Request | None:
    """What to measure. Raises: Misuse for bad numbers, unknown runtimes, and options of --measure without it."""
    checked(check_whole, 1, shape=asked.shape)
    given = [f"--{name}" for name in _OF_TIMES if getattr(asked, name) != getattr(LedgerOptions(""), name)]
    if not asked.measure:
        if given:
            raise Misuse(f"{given[0]} needs --measure")
        return None
    checked(check_known, tuple(RIVALS), runtimes=asked.runtimes)
    with refusing(form="--{}"):
        return Request(asked.batch, asked.threads, asked.runtimes, asked.rounds)


def _found(asked: LedgerOptions, measure: Request | None) -> Ledger:
    """The ledger of a run, a file or a network."""
    if os.path.exists(os.path.join(asked.what, "run.json")):
        return _of_run(asked, measure)
    if asked.level is not None:
        raise Misuse(f"--level is for runs: {asked.what} is not a run folder")
    inputs = torch.zeros(1, *asked.shape) if asked.shape else None
    if not os.path.exists(asked.what):
        module = named_network(asked.what, asked.shape)
        if asked.model is not None:
            raise Misuse(f"--model is for files and runs: {asked.what} is a network")
        return ledger(module, inputs, measure=measure)
    model = named_network(asked.model, asked.shape) if asked.model else None
    roles = Roles() if model is not None else _roles(Path(asked.what))
    return ledger(Path(asked.what), inputs, model=model, roles=roles, measure=measure)


def _of_run(asked: LedgerOptions, measure: Request | None) -> Ledger:
    with opened(Path(asked.what)) as folder:
        facts = folder.record.data.get("facts", {})
        shape = asked.shape or tuple(facts.get("input_shape", ()))
        model = named_network(asked.model, shape) if asked.model else None
        record = None if asked.level is None else level_of(folder, asked.level)
        with refusing(FileNotFoundError, make=NotFound):
            return of_run(folder, record, model=model, shape=shape, measure=measure)


def _roles(path: Path) -> Roles:
    """The roles of the tensors in a file, judged as by `analyze`."""
    verdicts = judge(open_checkpoint(path).entries, (), ())
    beside = ("buffer", "mask", "average", "optimizer", "other")
    chosen = [name for name, verdict in verdicts.items() if verdict.why is None]
    return Roles(chosen, [name for name, verdict in verdicts.items() if verdict.kind in beside])
