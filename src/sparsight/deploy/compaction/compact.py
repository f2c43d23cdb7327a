"""Removes units that pruning has left without inputs or outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.deploy.compaction.operations import HANDLERS
from sparsight.deploy.compaction.shrink import Shrunk, shrunk
from sparsight.deploy.compaction.walk import Walk
from sparsight.deploy.comparing import copied, difference, drawn, first_line

_TOLERANCE = 1e-5  # of the largest output, or of 1
_RESHAPING = frozenset({"view", "reshape", "flatten", "squeeze", "unsqueeze"})


@dataclass(frozen=True)
class Left:
    """Units of a layer that are constant or without effect, and stay."""

    layer: str
    units: int
    why: str


@dataclass(frozen=True, eq=False)
class Compacted:
    """A smaller network, what remains of each tensor, and what could not be removed.

    Index i of a smaller tensor was index `kept[name][dimension][i]` of the old one. Unchanged tensors and dimensions
    are not in `kept`.
    """

    module: nn.Module
    kept: Mapping[str, Mapping[int, Tensor]]
    left: tuple[Left, ...]
    before: int  # parameters
    after: int
    difference: float  # largest between outputs of the two, over the largest output or 1


def compact(model: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> Compacted:
    """A copy of a pruned network without units that have no effect: same class, smaller tensors, same outputs.

    A unit (a neuron or channel) is removed if no nonzero weight leads from it to an output, or if it is constant and
    the next layers' biases can absorb it; constants are followed through activations, BatchNorm, pooling and
    flattening. A zero-padded convolution's bias can only absorb 0: one constant unit stays there and stands for all.
    Units that are summed, multiplied or grouped are removed together or not at all. Outputs keep their shape. Layers
    may get a bias. Unknown operations keep all channels that they read.

    Compares the copy with the model on the example and on random inputs.

    Args:
        model: a module in evaluation mode with zeros for pruned weights. It is not changed.
        example_inputs: a tensor, or a tuple of positional arguments; real inputs are best.

    Raises:
        ValueError: the model is in training mode, fails on the example, cannot be traced by `torch.export`, or its code
            fails or computes something else with fewer channels.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    program = _exported(copied(model), inputs)  # running a network may change what it holds
    failed = ""
    for refused in (frozenset(), _RESHAPING):
        made = shrunk(model, _walked(model, program, refused))
        try:
            compared = (inputs, drawn(inputs), drawn(inputs, 3.0))
            far = difference(copied(model), copied(made.module), compared, _TOLERANCE, "its code with fewer channels")
        except ValueError as error:
            failed = failed or str(error)
            continue
        before, after = (sum(p.numel() for p in module.parameters()) for module in (model, made.module))
        return Compacted(made.module, made.kept, tuple(_left(made)), before, after, far)
    raise ValueError(f"this network cannot be compacted: {failed}")


def _exported(model: nn.Module, inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        raise ValueError(f"the model fails on the example: {error}") from error
    try:
        with torch.no_grad():
            return torch.export.export(model, inputs)
    except Exception as error:
        raise ValueError(f"torch.export cannot trace this model: {first_line(error)}") from error


def _walked(model: nn.Module, program: torch.export.ExportedProgram, refused: frozenset[str]) -> Walk:
    signature, state = program.graph_signature, dict(model.state_dict(keep_vars=True))
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    uses = Counter(id(value) for value in state.values())
    tensors = {
        node: (name, state[name]) for node, name in names.items() if name in state and uses[id(state[name])] == 1
    }
    walk = Walk(model, tensors, HANDLERS, refused)
    walk.run(program.graph)
    return walk


def _left(made: Shrunk) -> Iterator[Left]:
    """The units of each layer that could not be removed, and why."""
    atoms = made.walk.atoms
    stay = {atoms.root(atom): why for atom, why in reversed(atoms.stay.items())}
    held = {atoms.root(atom): why for atom, why in reversed(atoms.held.items())}
    for layer in made.walk.layers:
        spare = np.isfinite(layer.out.constant) | ~layer.out.needed
        roots = [root for root in atoms.roots(layer.out.atoms[spare]).tolist() if root not in made.removed]
        together = "summed or grouped with units that are in use, or the last of its layer"
        reasons = Counter(stay.get(root) or held.get(root) or together for root in roots)
        for why, units in reasons.items():
            yield Left(layer.names[0].rpartition(".")[0] or layer.names[0], units, why)
