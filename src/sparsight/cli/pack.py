"""`sparsight pack PATH -o OUT`: store a sparse checkpoint in fewer bytes."""

from __future__ import annotations

import sys
from pathlib import Path

from sparsight.checkpoint import pack
from sparsight.cli.certify_inputs import check_exists, level_of
from sparsight.cli.errors import Misuse, NotFound, printable, refusing
from sparsight.cli.network_options import PackOptions
from sparsight.cli.output import check_file
from sparsight.deploy.network_of_run import default_level, level_file
from sparsight.numerics.format import bytes_of, plural, smaller
from sparsight.records.folder import RunFolder


def main(asked: PackOptions) -> int:
    check_exists(asked.path)
    check_file(asked.out)
    done = pack(_file(asked), asked.out, lossy=asked.lossy)
    before, after = bytes_of(done.dense), bytes_of(done.size)
    gain = smaller(done.size, done.dense)
    said = [f"{asked.out}: {plural(done.tensors, 'tensor')}, {before} dense, {after} packed ({gain})"]
    if done.left_out:
        more = f" and {len(done.left_out) - 4:,} more" if len(done.left_out) > 4 else ""
        said.append(f"Not packed, not part of the network: {', '.join(done.left_out[:4])}{more}")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in said))
    return 0


def _file(asked: PackOptions) -> Path:
    """The checkpoint to pack; for a run, that of a level."""
    if not (asked.path / "run.json").exists():
        if asked.level is not None:
            raise Misuse(f"--level is for runs: {asked.path} is not a run folder")
        return asked.path
    with RunFolder.open(asked.path) as folder, refusing(FileNotFoundError, make=NotFound):
        return level_file(folder, default_level(folder) if asked.level is None else level_of(folder, asked.level))
