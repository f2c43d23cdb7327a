"""`sparsight bench`: time a sparse layer or network on this CPU against dense runtimes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import nn

from sparsight.cli.certify_inputs import named_network, trained
from sparsight.cli.errors import Misuse, checked
from sparsight.cli.network_options import BenchOptions
from sparsight.cli.output import check_outputs, give, quiet
from sparsight.deploy.bench import RIVALS, Case, chosen, compare, conv, linear, machine, network, prune_at_random_
from sparsight.model.pretrained import load_into
from sparsight.numerics.checks import check_fraction, check_known, check_seed, check_threads, check_whole
from sparsight.report.escape import printable
from sparsight.report.table import as_csv
from sparsight.report.timings import document, layers, rows, timings
from sparsight.zoo.networks import KNOWN, input_shape


def main(asked: BenchOptions) -> int:
    check_outputs(asked)
    _check(asked)
    found, about = [], machine()
    makers = list(_makers(asked))
    for threads, make, batch in product(asked.threads or (torch.get_num_threads(),), makers, asked.batch):
        torch.set_num_threads(threads)
        found.append(compare(make(batch), chosen(asked.rivals), asked.rounds))
        if not asked.json and not quiet(asked):
            text = timings(found[-1], asked.rounds, about)
            text += f"\n\n{layers(found[-1].plan)}" if asked.layers and found[-1].plan else ""
            text = "\n".join(map(printable, text.split("\n")))
            sys.stdout.write("\n" * (len(found) > 1) + text + "\n")
    return give(asked, None, lambda: document(found, asked.rounds, about), csv=lambda: as_csv(rows(found)))


OF = {"conv": ("channels", "size", "kernel", "stride", "density"), "linear": ("features", "density")}
OF_NETWORK, OF_RUN, OF_FILE = ("shape", "density"), ("shape", "level", "model", "data"), ("shape", "model")


def _check(asked: BenchOptions) -> None:
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
            sizes = (asked.channels or (64, 64), asked.size or 56, asked.kernel or 3, asked.stride or 1)
            yield partial(conv, *sizes, density or 0.0, seed=asked.seed)
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
