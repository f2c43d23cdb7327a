"""From a module to the runtime's graph, through torch.export: BatchNorm folded, activations and sums fused."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsight.deploy.runtime.graph import Conv, Graph
from sparsight.deploy.runtime.handlers import HANDLERS
from sparsight.deploy.runtime.tracer import NotTraced, Tracer


def traced(model: nn.Module, example: Tensor) -> Graph:
    """The graph of a module that takes images (N, C, H, W) or rows (N, K), as it computes in evaluation mode.

    Raises:
        NotTraced: an operation that the runtime does not have, or that torch.export cannot trace.
    """
    if model.training:
        raise NotTraced("the model is in training mode: call model.eval() first")
    if example.dim() not in (2, 4):
        raise NotTraced(f"expected an example of 2 or 4 dimensions, got shape {tuple(example.shape)}")
    two = example[:1].expand(2, *example.shape[1:]).contiguous()  # a batch of 1 would be taken as fixed
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            model(two)
    except Exception as error:
        raise NotTraced(f"the model fails on an example of shape {tuple(example.shape)}: {error}") from error
    try:
        program = torch.export.export(model, (two,), dynamic_shapes=({0: batch},))
    except Exception as error:
        raise NotTraced(f"torch.export cannot trace this model: {str(error).splitlines()[0]}") from error
    graph = Tracer(_constants(program), HANDLERS).run(program.graph)
    graph.structure = program.call_spec.out_spec
    return graph


def single(module: nn.Module, shape: tuple[int, ...]) -> Graph | None:
    """The graph of a plain linear layer or convolution, without tracing it; None for anything else."""
    graph = Graph(ranks=[len(shape)])
    channels, rows, cols = (*shape[1:], 1, 1)[:3]
    x = graph.input((channels, rows, cols))
    if type(module) is nn.Linear:
        weight, options = module.weight.detach()[:, :, None, None], {}
    elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        weight = module.weight.detach()
        options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
    else:
        return None
    bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
    graph.outputs.append(graph.add(Conv(x, weight.double().numpy(), bias.double().numpy(), **options)))
    return graph


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Parameters and buffers by the name of their placeholder."""
    signature, state = program.graph_signature, {**program.state_dict, **program.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= dict(signature.inputs_to_lifted_tensor_constants)
    return {placeholder: state[name].detach() for placeholder, name in names.items()}
