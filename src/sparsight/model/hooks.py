"""What goes into layers and what comes out: the only forward hooks of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

See = Callable[[str, nn.Module, tuple[Any, ...], Any], None]
"""Called as `see(name, module, inputs, output)` after each forward of a tapped layer."""


@contextmanager
def tapped(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Show `see` every call of the given layers, in execution order, for one block.

    `inputs` are the positional arguments. What `see` returns is ignored: the outputs stay as they are. The hooks
    are gone after the block, also when it raises.
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
