"""`sparsight compact PATH -o FILE`: remove the dead units of a pruned network."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from typing import Any

from sparsight.cli.certify_inputs import network_of
from sparsight.cli.errors import Misuse, printable
from sparsight.cli.network_options import CompactOptions
from sparsight.cli.output import check_outputs, quiet
from sparsight.deploy import Compacted, compact
from sparsight.numerics.format import count, plural, smaller
from sparsight.records.outputs import is_standard, write_output
from sparsight.records.tensors import write_tensors


def main(asked: CompactOptions) -> int:
    if is_standard(asked.out) and asked.maps is None:
        raise Misuse("--out - needs --maps FILE, for the indices that each tensor keeps")
    maps = asked.maps or asked.out.with_suffix(".json")
    check_outputs(replace(asked, maps=maps))
    where, network, x = network_of(asked.path, asked.level, asked.model, asked.data)
    done = compact(network, x)
    write_tensors(asked.out, done.module.state_dict(), {}, write_output)
    write_output(maps, [(json.dumps(document(done), indent=1) + "\n").encode()])
    if quiet(asked):
        return 0
    said = [
        f"{asked.out}: {where}, {count(done.before)} parameters, {count(done.after)} left "
        f"({smaller(done.after, done.before)}), outputs differ by at most {done.difference:.1g}",
        *(f"not removed: {plural(one.units, 'unit')} of {one.layer}: {one.why}" for one in done.left),
    ]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in said))
    return 0


def document(done: Compacted) -> dict[str, Any]:
    """As JSON: sizes, the indices that each tensor keeps, and units that stay, with the reason."""
    kept = {name: {str(d): i.tolist() for d, i in sorted(dims.items())} for name, dims in done.kept.items()}
    left = [asdict(one) for one in done.left]
    return {"before": done.before, "after": done.after, "difference": done.difference, "kept": kept, "left": left}
