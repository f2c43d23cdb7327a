"""`sparsight bench`: time a sparse layer or network on this CPU against dense runtimes."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, check_outputs, checked
from sparsight.cli.options import DataName, Json, LevelNumber, ModelName, Switch, options

if TYPE_CHECKING:
    from torch import nn

    from sparsight.deploy.bench import Case


@dataclass(frozen=True)
class BenchOptions:
    """Time a sparse layer or network on this CPU against the fastest dense runtimes.

    Layers and zoo networks get random weights at the given density; a run has its own weights. Runtimes take turns:
    the time is the shortest process time on one thread, and the shortest wall time on several. Outputs are first
    checked against float64.
    """

    what: Annotated[
        conf.Positional[str],
        Doc("conv, linear, a network of the zoo, package.module:attribute, a run folder, or a checkpoint."),
    ]
    channels: Annotated[
        tuple[int, int] | None, conf.arg(metavar="IN OUT"), Doc("Channels of a convolution. Default: 64 64.")
    ] = None
    size: Annotated[int | None, Doc("Height and width of a convolution's images. Default: 56.")] = None
    kernel: Annotated[int | None, Doc("Kernel size of a convolution, padded by half of it. Default: 3.")] = None
    stride: Annotated[int | None, Doc("Stride of a convolution. Default: 1.")] = None
    features: Annotated[
        tuple[int, int] | None, conf.arg(metavar="IN OUT"), Doc("Features of a linear layer. Default: 1024 1024.")
    ] = None
    shape: Annotated[
        tuple[int, ...],
        Doc("Shape of a network's input without the batch. Default: that of the run's data, otherwise 1 28 28."),
    ] = ()
    level: LevelNumber = None
    model: ModelName = None
    data: DataName = None
    density: Annotated[
        tuple[float, ...],
        Doc(
            "Share of nonzero weights in every layer; several densities give a table each. Default: 0.1, or the "
            "network's own weights for package.module:attribute."
        ),
    ] = ()
    batch: Annotated[tuple[int, ...], Doc("Inputs per call; several batch sizes give a table each.")] = (1,)
    layers: Annotated[
        Switch, Doc("Also show how each layer of a network runs, and why: its density and both times.")
    ] = False
    rivals: Annotated[
        tuple[str, ...],
        Doc(
            "Runtimes to compare with: torch, torch-bf16, torch-csr, onnxruntime, openvino, openvino-bf16. Default: "
            "all that are installed."
        ),
    ] = ()
    rounds: Annotated[int, Doc("Timed calls of each runtime.")] = 25
    threads: Annotated[
        tuple[int, ...],
        Doc("CPU threads; several numbers give a table each. Default: torch's number."),
    ] = ()
    seed: Annotated[int, Doc("Seed of random weights and inputs.")] = 0
    json: Json = False
    csv: Annotated[
        Path | None, conf.arg(metavar="FILE"), Doc("Write a row per runtime to this file; - is standard output.")
    ] = None


def main(argv: list[str]) -> int:
    asked = options(BenchOptions, argv, "sparsight bench")
    quiet = check_outputs(asked.json, csv=asked.csv)
    _check(asked)
    import torch

    from sparsight.deploy.bench import chosen, compare, machine
    from sparsight.records.outputs import write_output
    from sparsight.report.escape import printable
    from sparsight.report.table import as_csv
    from sparsight.report.timings import document, layers, rows, timings

    found, about = [], machine()
    makers = list(_makers(asked))
    for threads, make, batch in product(asked.threads or (torch.get_num_threads(),), makers, asked.batch):
        torch.set_num_threads(threads)
        found.append(compare(make(batch), chosen(asked.rivals), asked.rounds))
        if not asked.json and not quiet:
            text = timings(found[-1], asked.rounds, about)
            text += f"\n\n{layers(found[-1].plan)}" if asked.layers and found[-1].plan else ""
            text = "\n".join(map(printable, text.split("\n")))
            sys.stdout.write("\n" * (len(found) > 1) + text + "\n")
    if asked.csv is not None:
        write_output(asked.csv, [as_csv(rows(found)).encode()])
    if asked.json:
        sys.stdout.write(json_.dumps(document(found, asked.rounds, about), indent=2, allow_nan=False) + "\n")
    return 0


OF = {"conv": ("channels", "size", "kernel", "stride", "density"), "linear": ("features", "density")}
OF_NETWORK, OF_RUN, OF_FILE = ("shape", "density"), ("shape", "level", "model", "data"), ("shape", "model")


def _check(asked: BenchOptions) -> None:
    from sparsight.deploy.bench import RIVALS
    from sparsight.numerics.checks import check_fraction, check_known, check_seed, check_threads, check_whole

    fitting = OF.get(asked.what, OF_RUN if _is_run(asked) else OF_FILE if _is_file(asked) else OF_NETWORK)
    if asked.layers and asked.what in OF:
        raise Misuse(f"--layers is for networks: {asked.what} is one layer")
    for name in dict.fromkeys((*OF["conv"], *OF["linear"], *OF_NETWORK, *OF_RUN)):
        if getattr(asked, name) not in (None, ()) and name not in fitting:
            known = ", ".join(f"--{one}" for one in fitting)
            raise Misuse(f"--{name} does not apply to {asked.what}: its options are {known}")
    for name in ("channels", "size", "kernel", "stride", "features", "shape", "batch", "rounds"):
        value = getattr(asked, name)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            checked(partial(_named, check_whole, name, 1), number)
    for density in asked.density:
        checked(partial(_named, check_fraction, "density"), density)
    checked(check_seed, asked.seed)
    for threads in asked.threads:
        checked(check_threads, threads)
    for name in asked.rivals:
        checked(partial(_named, check_known, "rivals", tuple(RIVALS)), name)


def _named(check: Callable[..., None], name: str, *values: Any) -> None:
    *others, value = values
    check(*others, **{name: value})


# -- what is timed ---------------------------------------------------------------------------------------------


def _is_run(asked: BenchOptions) -> bool:
    return asked.what not in OF and os.path.exists(os.path.join(asked.what, "run.json"))


def _is_file(asked: BenchOptions) -> bool:
    return asked.what not in OF and os.path.lexists(asked.what) and not _is_run(asked)


def _makers(asked: BenchOptions) -> Iterator[Callable[[int], Case]]:
    """What makes each case, given how many inputs at once."""
    from sparsight.deploy.bench import conv, linear, network, prune_at_random_

    if _is_run(asked):
        from sparsight.cli.certify_inputs import trained
        from sparsight.zoo.networks import input_shape

        where, data, module = trained(Path(asked.what), asked.level, asked.model, asked.data)
        yield partial(network, where, module, asked.shape or input_shape(data), seed=asked.seed)
        return
    if _is_file(asked):
        from sparsight.model.pretrained import load_into

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
    from sparsight.cli.run_options import look_for
    from sparsight.zoo.networks.build import KNOWN, own

    known = spec.lower().replace("_", "-")
    if known in KNOWN:
        return KNOWN[known](shape or (1, 28, 28), seed=seed), shape or (1, 28, 28)
    look_for("network", spec, ("conv", "linear", *KNOWN))
    if not shape:
        raise Misuse(f"{spec} needs --shape, the shape of its input without the batch")
    try:
        return own(spec, seed), shape
    except TypeError as error:
        raise Misuse(str(error)) from error
