"""Traces a module into the runtime's graph with torch.export; folds BatchNorm, fuses activations and sums."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeGuard

import torch
from torch import Tensor, nn

from sparsight.deploy.comparing import first_line
from sparsight.deploy.runtime.graph import Conv, Graph
from sparsight.deploy.runtime.handlers import HANDLERS
from sparsight.deploy.runtime.tracer import NotTraced, Tracer
from sparsight.deploy.runtime.weight import Weight


def traced(model: nn.Module, example: Tensor, stored: Mapping[Tensor, Weight] = MappingProxyType({})) -> Graph:
    """The graph of a module that takes images (N, C, H, W) or rows (N, K), in evaluation mode.

    `stored` holds weights by their placeholder parameters.

    Raises:
        NotTraced: an operation that the runtime lacks, or that torch.export cannot trace.
    """
    if model.training:
        raise NotTraced("the model is in training mode: call model.eval() first")
    if example.dim() not in (2, 4):
        raise NotTraced(f"expected an example of 2 or 4 dimensions, got shape {tuple(example.shape)}")
    two = example[:1].expand(2, *example.shape[1:]).contiguous()  # torch.export treats a batch of 1 as fixed
    batch = torch.export.Dim("batch", min=1)
    try:
        if not stored:  # placeholders would give NaN, at the cost of dense weights
            with torch.no_grad():
                model(two)
    except Exception as error:
        raise NotTraced(f"the model fails on an example of shape {tuple(example.shape)}: {error}") from error
    try:
        program = torch.export.export(model, (two,), dynamic_shapes=({0: batch},))
    except Exception as error:
        raise NotTraced(f"torch.export cannot trace this model: {first_line(error)}") from error
    try:
        graph = Tracer(_constants(model, program, stored), HANDLERS).run(program.graph)
    except ValueError as error:  # mismatched shapes too
        raise NotTraced(str(error)) from error
    graph.structure = program.call_spec.out_spec
    return graph


def single(
    module: nn.Module, shape: tuple[int, ...], stored: Mapping[Tensor, Weight] = MappingProxyType({})
) -> Graph | None:
    """The graph of a plain linear layer or convolution, without tracing it; None for anything else."""
    graph = Graph(ranks=[len(shape)])
    channels, rows, cols = (*shape[1:], 1, 1)[:3]
    x = graph.input((channels, rows, cols))
    if not plain(module):
        return None
    weight, options = stored.get(module.weight), {}
    weight = Weight.of(module.weight) if weight is None else weight
    if isinstance(module, nn.Linear):
        weight = weight.kernels()
    else:
        options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
    bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
    graph.outputs.append(graph.add(Conv(x, weight, bias.double().numpy(), **options)))
    return graph


def plain(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether it is a linear layer or 2-D convolution with torch's own forward."""
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) is nn.Linear


def _constants(
    model: nn.Module, program: torch.export.ExportedProgram, stored: Mapping[Tensor, Weight]
) -> dict[str, Tensor | Weight]:
    """Parameters and buffers by the name of their placeholder."""
    signature, state = program.graph_signature, {**program.state_dict, **program.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= dict(signature.inputs_to_lifted_tensor_constants)
    by_name = dict(model.named_parameters(remove_duplicate=False)) if stored else {}
    found = {placeholder: stored.get(by_name.get(name)) for placeholder, name in names.items()}  # type: ignore[arg-type]
    return {key: state[names[key]].detach() if weight is None else weight for key, weight in found.items()}
