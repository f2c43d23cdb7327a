"""`sparsight pack`, `unpack`, `compact` and `export`: a network in another file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sparsight import checkpoint, deploy
from sparsight.cli.certify_inputs import check_exists, level_of, network_of
from sparsight.cli.errors import Misuse, NotFound, print_lines, refusing
from sparsight.cli.network_options import CompactOptions, ExportOptions, PackOptions, UnpackOptions
from sparsight.cli.output import check_file, check_outputs, quiet
from sparsight.deploy.network_of_run import default_level, level_file
from sparsight.numerics.format import bytes_of, count, plural, smaller
from sparsight.records.folder import RunFolder
from sparsight.records.outputs import is_standard, write_output
from sparsight.records.tensors import write_tensors


def pack(asked: PackOptions) -> int:
    check_exists(asked.path)
    check_file(asked.out)
    done = checkpoint.pack(_file(asked), asked.out, lossy=asked.lossy)
    before, after = bytes_of(done.dense), bytes_of(done.size)
    gain = smaller(done.size, done.dense)
    print_lines(f"{asked.out}: {plural(done.tensors, 'tensor')}, {before} dense, {after} packed ({gain})")
    if done.left_out:
        more = f" and {len(done.left_out) - 4:,} more" if len(done.left_out) > 4 else ""
        print_lines(f"Not packed, not part of the network: {', '.join(done.left_out[:4])}{more}")
    return 0


def _file(asked: PackOptions) -> Path:
    """The checkpoint to pack; for a run, that of a level."""
    if not (asked.path / "run.json").exists():
        if asked.level is not None:
            raise Misuse(f"--level is for runs: {asked.path} is not a run folder")
        return asked.path
    with RunFolder.open(asked.path) as folder, refusing(FileNotFoundError, make=NotFound):
        return level_file(folder, default_level(folder) if asked.level is None else level_of(folder, asked.level))


def unpack(asked: UnpackOptions) -> int:
    check_exists(asked.path)
    check_file(asked.out)
    checkpoint.unpack(asked.path, asked.out)
    print_lines(f"written: {asked.out}")
    return 0


def compact(asked: CompactOptions) -> int:
    if is_standard(asked.out) and asked.maps is None:
        raise Misuse("--out - needs --maps FILE, for the indices that each tensor keeps")
    maps = asked.maps or asked.out.with_suffix(".json")
    check_outputs(replace(asked, maps=maps))
    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    done = deploy.compact(network, x)
    write_tensors(asked.out, done.module.state_dict(), {}, write_output)
    write_output(maps, [(json.dumps(_maps(done), indent=1) + "\n").encode()])
    if quiet(asked):
        return 0
    print_lines(
        f"{asked.out}: {where}, {count(done.before)} parameters, {count(done.after)} left "
        f"({smaller(done.after, done.before)}), outputs differ by at most {done.difference:.1g}",
        *(f"not removed: {plural(one.units, 'unit')} of {one.layer}: {one.why}" for one in done.left),
    )
    return 0


def _maps(done: deploy.Compacted) -> dict[str, Any]:
    """As JSON: sizes, the indices that each tensor keeps, and units that stay, with the reason."""
    kept = {name: {str(d): i.tolist() for d, i in sorted(dims.items())} for name, dims in done.kept.items()}
    left = [asdict(one) for one in done.left]
    return {"before": done.before, "after": done.after, "difference": done.difference, "kept": kept, "left": left}


def export(asked: ExportOptions) -> int:
    check_outputs(asked)
    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    said = [where]
    if asked.compact:
        small = deploy.compact(network, x)
        network = small.module
        said.append(f"compacted from {count(small.before)} to {count(small.after)} parameters")
    with refusing(ModuleNotFoundError):
        done = deploy.export(network, x, asked.out, to=asked.to)
    said.append(bytes_of(done.size))
    if done.to != "state-dict":
        said.append(f"outputs differ by at most {done.difference:.1g}")
    if not quiet(asked):
        print_lines(f"{done.path}: {', '.join(said)}")
    return 0
