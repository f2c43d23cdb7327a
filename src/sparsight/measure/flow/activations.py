"""Reads activations, one value per unit, after layers in execution order."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparsight.model.batch import batch_size
from sparsight.model.functional import tapped
from sparsight.model.linearised import ACTIVATIONS, every
from sparsight.model.names import modules_of
from sparsight.model.weights import layout_of
from sparsight.types import Batch

Site = Literal["pre", "post_norm", "post_act"]

_CONVOLUTION = nn.modules.conv._ConvNd
_IS_ACTIVATION = every(ACTIVATIONS)
_IS_NORM = every("batch_norm instance_norm group_norm layer_norm rms_norm local_response_norm")


def measured_layers(model: nn.Module, skip: Sequence[str]) -> dict[str, nn.Module]:
    """Linear and convolution layers by plain name, in registration order, without matches of `skip`.

    Attention layers of torch compute their output projection themselves, and are listed as "<name>.out_proj".
    """
    found: dict[str, nn.Module] = {}
    taken: set[int] = set()
    for name, module in modules_of(model):
        attention = isinstance(module, nn.MultiheadAttention)
        if id(module) in taken or not (attention or layout_of(module)[0]):
            continue
        taken.add(id(module))
        if attention:
            taken.add(id(module.out_proj))
            name = f"{name}.out_proj" if name else "out_proj"
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in skip):
            found[name] = module
    return found


@dataclass
class Reading:
    """The values of one forward pass so far, in execution order."""

    samples: int
    site: Site
    measured: Collection[str]  # layers to read
    shortcuts: Collection[str]  # layers on shortcuts
    values: dict[str, Tensor] = field(default_factory=dict)
    current: str = ""  # the layer that ran last
    axis: int = -1  # the dimension of its units
    units: int = 0  # the number of its units
    reached: int = 0  # the site of its value: 0 its output, 1 a norm, 2 an activation
    beside: bool = False  # whether a shortcut's layer has run since

    def layer(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Take the output of a layer; another layer, unless on a shortcut, ends the one before it."""
        if name in self.shortcuts:
            self.beside = True
            return
        if name not in self.measured:
            self.current = ""
            return
        if name in self.values:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass: give `pairs` without it")
        out = output[0] if isinstance(output, tuple) else output
        if out.dim() < 2 or len(out) != self.samples:
            raise ValueError(
                f"the first dimension of layer {name!r}'s output must be the {self.samples} samples, got shape "
                f"{tuple(out.shape)}: give `pairs` without it"
            )
        self.axis = 1 if isinstance(module, _CONVOLUTION) else -1
        self.current, self.units, self.reached, self.beside = name, out.shape[self.axis], 0, False
        self.values[name] = self._pooled(out)

    def function(self, func: Any, out: Any) -> None:
        """Take the first norm and the first activation after a layer, if they have its units."""
        rank = 2 if func in _IS_ACTIVATION else 1 if func in _IS_NORM else 0
        shortcut = rank == 1 and self.beside  # its norm; the activation after the sum belongs to the layer
        if not self.current or shortcut or rank <= self.reached or (rank == 2 and self.site == "post_norm"):
            return
        fits = isinstance(out, Tensor) and out.dim() >= 2 and len(out) == self.samples
        if fits and out.shape[self.axis] == self.units:
            self.values[self.current], self.reached = self._pooled(out), rank

    def _pooled(self, out: Tensor) -> Tensor:
        """(samples, units): the mean over positions or tokens, by value. A later step may write to `out` in place."""
        out = out.detach()
        if out.dim() == 2:
            return out.clone()
        wide = torch.promote_types(out.dtype, torch.float32)
        return out.mean(tuple(d for d in range(1, out.dim()) if d != self.axis % out.dim()), dtype=wide)


class _Watching(TorchFunctionMode):
    """Calls `see` with every torch function called inside, and its result."""

    def __init__(self, see: Callable[[Any, Any], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._see(func, out)
        return out


def read(
    run: Callable[[Batch], Any],
    batch: Batch,
    layers: Mapping[str, nn.Module],
    measured: Collection[str],
    shortcuts: Collection[str],
    site: Site,
) -> Mapping[str, Tensor]:
    """Pooled values of the `measured` layers at the site for one batch, in execution order: (samples, units) each.

    Without a norm or activation before the next of the model's `layers`, a layer is read at the site before. Norms of
    `shortcuts` do not count.
    """
    reading = Reading(batch_size(batch), site, measured, shortcuts)
    with tapped(layers, reading.layer), nullcontext() if site == "pre" else _Watching(reading.function):
        run(batch)
    return reading.values
