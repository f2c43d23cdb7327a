"""`sparsight export PATH --to onnx -o FILE`: a network for other programs."""

from __future__ import annotations

from sparsight.cli.certify_inputs import network_of
from sparsight.cli.errors import printable, refusing
from sparsight.cli.network_options import ExportOptions
from sparsight.cli.output import check_outputs, give
from sparsight.deploy import compact, export
from sparsight.numerics.format import bytes_of, count


def main(asked: ExportOptions) -> int:
    check_outputs(asked)
    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    small = compact(network, x) if asked.compact else None
    with refusing(ModuleNotFoundError):
        done = export(network if small is None else small.module, x, asked.out, to=asked.to)
    said = [where]
    if small is not None:
        said.append(f"compacted from {count(small.before)} to {count(small.after)} parameters")
    said.append(bytes_of(done.size))
    if done.to != "state-dict":
        said.append(f"outputs differ by at most {done.difference:.1g}")
    return give(asked, lambda: printable(f"{done.path}: {', '.join(said)}"))
