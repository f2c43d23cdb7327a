"""`sparsight unpack PATH -o OUT`: a packed file as plain safetensors."""

from __future__ import annotations

import sys

from sparsight.checkpoint import unpack
from sparsight.cli.certify_inputs import check_exists
from sparsight.cli.errors import printable
from sparsight.cli.network_options import UnpackOptions
from sparsight.cli.output import check_file


def main(asked: UnpackOptions) -> int:
    check_exists(asked.path)
    check_file(asked.out)
    unpack(asked.path, asked.out)
    sys.stdout.write(printable(f"written: {asked.out}") + "\n")
    return 0
