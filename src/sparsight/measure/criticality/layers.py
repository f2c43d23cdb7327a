"""The layers covered by mean-field theory."""

from __future__ import annotations

from torch import Tensor, nn

from sparsight.model.names import modules_of
from sparsight.model.weights import layout_of


def weighted_layers(model: nn.Module) -> dict[str, nn.Linear | nn.modules.conv._ConvNd]:
    """Linear and convolution layers by the plain name of their weight, tied ones once, without transposed ones.

    Includes transformers' Conv1D, with a weight [inputs, outputs]: see `rows`.
    """
    found, seen = {}, set()
    for name, module in modules_of(model):
        kind = (layout_of(module) or (None,))[0]
        if kind in ("linear", "convolution"):
            if id(module.weight) not in seen:
                found[f"{name}.weight" if name else "weight"] = module
            seen.add(id(module.weight))
    return found


def left_out(model: nn.Module) -> tuple[str, ...]:
    """The weights of transposed convolutions, which the theory does not cover."""
    kinds = {name: (layout_of(module) or (None,))[0] for name, module in modules_of(model)}
    return tuple(f"{n}.weight" if n else "weight" for n, kind in kinds.items() if kind == "transposed convolution")


def rows(layer: nn.Module, x: Tensor) -> Tensor:
    """A tensor of the shape of a weighted layer's weight as [outputs, inputs of a group, *kernel]."""
    known = layout_of(layer)
    return x if known is None else known[1].rows(x)


def fan_in(layer: nn.Module) -> int:
    """Inputs of one unit of a linear or convolution layer: channels / groups x kernel size."""
    return rows(layer, layer.weight)[0].numel()  # type: ignore[arg-type]
