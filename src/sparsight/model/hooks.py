"""Forward hooks that show the inputs and outputs of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

See = Callable[[str, nn.Module, tuple[Any, ...], Any], None]
"""Called as `see(name, module, inputs, output)` after each forward of a tapped layer."""


@contextmanager
def tapped(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Call `see` after every forward of the given layers, in execution order, for a block.

    `inputs` are the positional arguments. The result of `see` is ignored.
    """
    handles = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def show(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            see(name, module, inputs, output)

        return show

    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(hook(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()
