"""`sparsight pack PATH -o OUT`: store a sparse checkpoint in fewer bytes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, NotFound, printable
from sparsight.cli.options import LevelNumber, options


@dataclass(frozen=True)
class PackOptions:
    """Write a checkpoint as a packed file, in which weights of +0.0 take almost no space.

    Packing is lossless: `sparsight unpack`, `sparsight.load`, `analyze` and `--weights` read the same bits. A packed
    file is a safetensors file. Shards become a folder of packed shards.
    """

    path: Annotated[
        conf.Positional[Path],
        Doc(
            "A .safetensors file, a folder with model.safetensors.index.json, a PyTorch .pt, .pth or .bin file, or a "
            "run folder."
        ),
    ]
    out: Annotated[Path, conf.arg(aliases=("-o",), metavar="OUT"), Doc("The packed file; for shards, the folder.")]
    level: LevelNumber = None
    lossy: Annotated[
        Literal["bfloat16", "float16"] | None, Doc("First round wider floats to this type. Default: lossless.")
    ] = None


def main(argv: list[str]) -> int:
    asked = options(PackOptions, argv, "sparsight pack")

    from sparsight.checkpoint import pack
    from sparsight.numerics.format import bytes_of, compression, plural
    from sparsight.records.files import there

    if not there(asked.path):
        raise NotFound(f"{asked.path} does not exist")
    done = pack(_file(asked), asked.out, lossy=asked.lossy)
    before, after = bytes_of(done.dense), bytes_of(done.size)
    ratio = compression(done.size, done.dense)
    said = [f"{asked.out}: {plural(done.tensors, 'tensor')}, {before} dense, {after} packed ({ratio} smaller)"]
    if done.left_out:
        more = f" and {len(done.left_out) - 4:,} more" if len(done.left_out) > 4 else ""
        said.append(f"Not packed, not part of the network: {', '.join(done.left_out[:4])}{more}")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in said))
    return 0


def _file(asked: PackOptions) -> Path:
    """The checkpoint to pack; for a run, that of a level."""
    from sparsight.cli.certify_inputs import level_of
    from sparsight.deploy.network_of_run import default_level, level_file
    from sparsight.records.folder import RunFolder

    if not (asked.path / "run.json").exists():
        if asked.level is not None:
            raise Misuse(f"--level is for runs: {asked.path} is not a run folder")
        return asked.path
    with RunFolder.open(asked.path) as folder:
        try:
            return level_file(folder, default_level(folder) if asked.level is None else level_of(folder, asked.level))
        except FileNotFoundError as error:
            raise NotFound(str(error)) from error
