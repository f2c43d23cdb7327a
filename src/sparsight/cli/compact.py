"""`sparsight compact PATH -o FILE`: remove the dead units of a pruned network."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import check_outputs, printable
from sparsight.cli.options import OfNetwork, options

if TYPE_CHECKING:
    from sparsight.deploy import Compacted


@dataclass(frozen=True, kw_only=True)
class CompactOptions(OfNetwork):
    """Remove the units of a pruned network that have no effect: smaller dense tensors, the same outputs.

    Units without inputs are folded into the next layer's biases. The outputs of both networks are compared on
    validation inputs and on random inputs. Units that could not be removed are listed.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder, or a checkpoint of a pruned network.")]
    out: Annotated[Path, conf.arg(aliases=("-o",), metavar="FILE"), Doc("The safetensors file of the smaller network.")]
    maps: Annotated[
        Path | None,
        conf.arg(metavar="FILE"),
        Doc("JSON file of the indices that each tensor keeps. Default: --out with the suffix .json."),
    ] = None


def main(argv: list[str]) -> int:
    asked = options(CompactOptions, argv, "sparsight compact")
    maps = asked.maps or asked.out.with_suffix(".json")
    check_outputs(False, out=asked.out, maps=maps)

    from sparsight.cli.certify_inputs import network_of
    from sparsight.deploy import compact
    from sparsight.numerics.format import compression, count, plural
    from sparsight.records.outputs import write_output
    from sparsight.records.tensors import write_tensors

    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    done = compact(network, x)
    write_tensors(asked.out, done.module.state_dict(), {}, write_output)
    write_output(maps, [(json.dumps(document(done), indent=1) + "\n").encode()])
    said = [
        f"{asked.out}: {where}, {count(done.before)} parameters, {count(done.after)} left "
        f"({compression(done.after, done.before)} smaller), outputs differ by at most {done.difference:.1g}",
        *(f"not removed: {plural(one.units, 'unit')} of {one.layer}: {one.why}" for one in done.left),
    ]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in said))
    return 0


def document(done: Compacted) -> dict[str, Any]:
    """As JSON: sizes, the indices that each tensor keeps, and units that stay, with the reason."""
    kept = {name: {str(d): i.tolist() for d, i in sorted(dims.items())} for name, dims in done.kept.items()}
    left = [asdict(one) for one in done.left]
    return {"before": done.before, "after": done.after, "difference": done.difference, "kept": kept, "left": left}
