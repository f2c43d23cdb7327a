"""`sparsight unpack PATH -o OUT`: a packed file as plain safetensors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import NotFound, printable
from sparsight.cli.options import options


@dataclass(frozen=True)
class UnpackOptions:
    """Write a packed file as a plain safetensors file. A damaged file is refused, and nothing is written."""

    path: Annotated[conf.Positional[Path], Doc("A packed file, or a folder of packed shards.")]
    out: Annotated[Path, conf.arg(aliases=("-o",), metavar="OUT"), Doc("The safetensors file; for shards, the folder.")]


def main(argv: list[str]) -> int:
    asked = options(UnpackOptions, argv, "sparsight unpack")

    from sparsight.checkpoint import unpack
    from sparsight.records.files import there

    if not there(asked.path):
        raise NotFound(f"{asked.path} does not exist")
    unpack(asked.path, asked.out)
    sys.stdout.write(printable(f"written: {asked.out}") + "\n")
    return 0
