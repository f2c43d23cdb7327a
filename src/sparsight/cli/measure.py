"""`sparsight ledger` and `sparsight bench`: the size of a network on disk and in memory, and its speed on this CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import nn

from sparsight.analysis.tensor_kinds import judge
from sparsight.checkpoint import open_checkpoint
from sparsight.cli.certify_inputs import level_of, named_network, trained
from sparsight.cli.errors import Misuse, NotFound, checked, print_lines, refusing
from sparsight.cli.network_options import BenchOptions, LedgerOptions
from sparsight.cli.output import check_outputs, give, quiet
from sparsight.cli.show import opened
from sparsight.deploy import ledger as counted
from sparsight.deploy.bench import RIVALS, Case, chosen, compare, conv, linear, machine, network, prune_at_random_
from sparsight.deploy.ledger import Ledger, Request, Roles
from sparsight.deploy.ledger.of_run import of_run
from sparsight.deploy.ledger.records import CODE
from sparsight.model.pretrained import load_into
from sparsight.numerics.checks import check_fraction, check_known, check_seed, check_threads, check_whole
from sparsight.report import ledger as sizes
from sparsight.report import timings
from sparsight.report.table import as_csv
from sparsight.zoo.networks import KNOWN, input_shape

_OF_TIMES = ("batch", "threads", "runtimes", "rounds")


def ledger(asked: LedgerOptions) -> int:
    check_outputs(asked)
    found = _found(asked, _request(asked))
    if asked.measure and found.missing.get("latency") == CODE:
        raise Misuse(f"--measure {CODE}: give --model package.module:attribute and --shape")
    return give(asked, lambda: sizes.text(found), lambda: sizes.document(found), csv=lambda: as_csv(sizes.rows(found)))


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
        return counted(module, inputs, measure=measure)
    model = named_network(asked.model, asked.shape) if asked.model else None
    roles = Roles() if model is not None else _roles(Path(asked.what))
    return counted(Path(asked.what), inputs, model=model, roles=roles, measure=measure)


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


# -- speed -----------------------------------------------------------------------------------------------------


def bench(asked: BenchOptions) -> int:
    check_outputs(asked)
    _check_bench(asked)
    found, about = [], machine()
    makers = list(_makers(asked))
    for threads, make, batch in product(asked.threads or (torch.get_num_threads(),), makers, asked.batch):
        torch.set_num_threads(threads)
        found.append(compare(make(batch), chosen(asked.rivals), asked.rounds))
        if not asked.json and not quiet(asked):
            text = timings.timings(found[-1], asked.rounds, about)
            text += f"\n\n{timings.layers(found[-1].plan)}" if asked.layers and found[-1].plan else ""
            print_lines(*[""] * (len(found) > 1), *text.split("\n"))
    return give(
        asked, None, lambda: timings.document(found, asked.rounds, about), csv=lambda: as_csv(timings.rows(found))
    )


OF = {"conv": ("channels", "size", "kernel", "stride", "density"), "linear": ("features", "density")}
OF_NETWORK, OF_RUN, OF_FILE = ("shape", "density"), ("shape", "level", "model", "data"), ("shape", "model")


def _check_bench(asked: BenchOptions) -> None:
    fitting = OF.get(asked.what, OF_RUN if _is_run(asked) else OF_FILE if _is_file(asked) else OF_NETWORK)
    if asked.layers and asked.what in OF:
        raise Misuse(f"--layers is for networks: {asked.what} is one layer")
    for name in dict.fromkeys((*OF["conv"], *OF["linear"], *OF_NETWORK, *OF_RUN)):
        if getattr(asked, name) not in (None, ()) and name not in fitting:
            known = ", ".join(f"--{one}" for one in fitting)
            raise Misuse(f"--{name} does not apply to {asked.what}: its options are {known}")
    whole = ("channels", "size", "kernel", "stride", "features", "shape", "batch", "rounds")
    checked(check_whole, 1, **{name: getattr(asked, name) for name in whole})
    checked(check_fraction, density=asked.density)
    checked(check_seed, seed=asked.seed)
    checked(check_threads, threads=asked.threads)
    checked(check_known, tuple(RIVALS), rivals=asked.rivals)


# -- what is timed ---------------------------------------------------------------------------------------------


def _is_run(asked: BenchOptions) -> bool:
    return asked.what not in OF and os.path.exists(os.path.join(asked.what, "run.json"))


def _is_file(asked: BenchOptions) -> bool:
    return asked.what not in OF and os.path.lexists(asked.what) and not _is_run(asked)


def _makers(asked: BenchOptions) -> Iterator[Callable[[int], Case]]:
    """What makes each case, given how many inputs at once."""
    if _is_run(asked):
        where, data, module = trained(Path(asked.what), asked.level, asked.model, asked.data)
        yield partial(network, where, module, asked.shape or input_shape(data), seed=asked.seed)
        return
    if _is_file(asked):
        if asked.model is None:
            raise Misuse(f"--model must be given for {asked.what}: the network that the file is of")
        module, shape = _network(asked.model, asked.shape, asked.seed)
        load_into(asked.what, module)
        yield partial(network, asked.what, module, shape, seed=asked.seed)
        return
    for density in asked.density or (None if ":" in asked.what else 0.1,):
        if asked.what == "conv":
            dims = (asked.channels or (64, 64), asked.size or 56, asked.kernel or 3, asked.stride or 1)
            yield partial(conv, *dims, density or 0.0, seed=asked.seed)
        elif asked.what == "linear":
            yield partial(linear, asked.features or (1024, 1024), density or 0.0, seed=asked.seed)
        else:
            module, shape = _network(asked.what, asked.shape, asked.seed)
            if density is not None:
                prune_at_random_(module, density, asked.seed)
            yield partial(network, asked.what, module, shape, seed=asked.seed)


def _network(spec: str, shape: tuple[int, ...], seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of the zoo or of package.module:attribute, and the shape of its input."""
    found = named_network(spec, shape, seed, ("conv", "linear"))
    if not shape and spec.lower().replace("_", "-") not in KNOWN:
        raise Misuse(f"{spec} needs --shape, the shape of its input without the batch")
    return found, shape or (1, 28, 28)
