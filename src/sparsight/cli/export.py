"""`sparsight export PATH --to onnx -o FILE`: a network for other programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, check_outputs, printable
from sparsight.cli.options import OfNetwork, Switch, options


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OfNetwork):
    """Write a pruned network as ONNX, as a torch.export program, or as a plain state dict.

    The exported network is compared with the original on validation inputs and on random inputs, and the largest
    difference is printed. Zeros are stored like other weights; --compact removes the units that have no effect.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder, or a checkpoint.")]
    out: Annotated[Path, conf.arg(aliases=("-o",), metavar="FILE"), Doc("The file to write.")]
    to: Annotated[
        Literal["onnx", "exported", "state-dict"],
        Doc("The format: ONNX, a torch.export program (.pt2), or the tensors as safetensors."),
    ] = "onnx"
    compact: Annotated[Switch, Doc("First remove the units that have no effect.")] = False


def main(argv: list[str]) -> int:
    asked = options(ExportOptions, argv, "sparsight export")
    quiet = check_outputs(False, out=asked.out)

    from sparsight.cli.certify_inputs import network_of
    from sparsight.deploy import compact, export
    from sparsight.numerics.format import bytes_of, count

    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    small = compact(network, x) if asked.compact else None
    try:
        done = export(network if small is None else small.module, x, asked.out, to=asked.to)
    except ModuleNotFoundError as error:
        raise Misuse(str(error)) from error
    if quiet:
        return 0
    said = [where]
    if small is not None:
        said.append(f"compacted from {count(small.before)} to {count(small.after)} parameters")
    said.append(bytes_of(done.size))
    if done.to != "state-dict":
        said.append(f"outputs differ by at most {done.difference:.1g}")
    sys.stdout.write(printable(f"{done.path}: {', '.join(said)}") + "\n")
    return 0
