"""A model as a function of its parameters; eval mode, and forward hooks, for a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from sparsight.model.names import named
from sparsight.numerics.checks import check_gathered
from sparsight.types import Batch


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a block; restores every module's train/eval flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


See = Callable[[str, nn.Module, tuple[Any, ...], Any], None]
"""Called as `see(name, module, inputs, output)` after each forward of a tapped layer."""


@contextmanager
def tapped(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Call `see` after every forward of the given layers, in execution order, for a block.

    `inputs` are the positional arguments. As in torch, a result of `see` other than None would replace the output.
    """
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(see, name)).remove)
        yield


@contextmanager
def _computed(model: nn.Module) -> Iterator[None]:
    """Restore tensors that are plain module attributes, such as the weights computed by `torch.nn.utils.prune`."""
    plain = [(m.__dict__, key, x) for m in model.modules() for key, x in m.__dict__.items() if isinstance(x, Tensor)]
    try:
        yield
    finally:
        for attributes, key, x in plain:
            attributes[key] = x


@dataclass(frozen=True)
class Pure:
    """The forward of a model for given parameters, with its own buffers. Made by `pure`.

    `params` are the model's parameters by plain name, detached, sharing its memory: never write to them. A call may
    replace any of them. Buffers are copies, because the forward may write to them. Train and eval flags are the
    model's: see `evaluating`.
    """

    module: nn.Module
    params: Mapping[str, Tensor]
    names: Mapping[str, str]  # plain name -> name inside `module`
    buffers: Mapping[str, Tensor]  # by the names inside `module`

    def __call__(self, params: Mapping[str, Tensor], *args: Any, **keywords: Any) -> Any:
        """The model's output at `params`."""
        with _computed(self.module):
            return functional_call(self.module, (self._given(params), dict(self.buffers)), args, keywords)

    def loss(self, params: Mapping[str, Tensor], loss: Callable[[nn.Module, Batch], Tensor], batch: Batch) -> Tensor:
        """`loss(model, batch)` at `params`."""
        state = {f"model.{name}": value for name, value in (self._given(params) | dict(self.buffers)).items()}
        with _computed(self.module):
            return functional_call(_Loss(self.module, loss), state, (batch,))

    def _given(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unknown = next((name for name in params if name not in self.params), None)
        if unknown is not None:
            raise ValueError(f"the model has no parameter {unknown!r}: its parameters are {', '.join(self.params)}")
        return {self.names[name]: value for name, value in {**self.params, **params}.items()}


def pure(model: nn.Module) -> Pure:
    """The model as a function of its parameters; calls do not change the model.

    Compiled and DDP-wrapped models use their plain names. Raises: TypeError for a sharded model (FSDP2), which must be
    gathered first.
    """
    inside = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = named(model)
    check_gathered(parameters)
    return Pure(
        model,
        {name: parameter.detach() for name, parameter in parameters.items()},
        {name: inside[id(parameter)] for name, parameter in parameters.items()},
        {name: buffer.detach().clone() for name, buffer in model.named_buffers()},
    )


class _Loss(nn.Module):
    """A loss as the forward of a module, for functional calls of the model inside it."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)
