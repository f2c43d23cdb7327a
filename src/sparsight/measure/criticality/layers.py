"""The layers that mean-field theory speaks of."""

from __future__ import annotations

from torch import Tensor, nn

from sparsight.model.names import modules_of

_TRANSPOSED = nn.modules.conv._ConvTransposeNd


def weighted_layers(model: nn.Module) -> dict[str, nn.Linear | nn.modules.conv._ConvNd]:
    """Linear and convolution layers by the plain name of their weight, a tied one once; no transposed ones."""
    found, seen = {}, set()
    for name, module in modules_of(model):
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and not isinstance(module, _TRANSPOSED):
            if id(module.weight) not in seen:
                found[f"{name}.weight" if name else "weight"] = module
            seen.add(id(module.weight))
    return found


def left_out(model: nn.Module) -> tuple[str, ...]:
    """The weights of transposed convolutions, whose variances this theory says nothing of."""
    return tuple(f"{n}.weight" if n else "weight" for n, m in modules_of(model) if isinstance(m, _TRANSPOSED))


def fan_in(weight: Tensor) -> int:
    """Inputs of one unit of a linear or convolution layer: channels / groups x kernel size."""
    return weight[0].numel()
