"""A device without float64, for tests: as Apple's GPUs, whose type it has, it refuses to make a tensor of that type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("mps")


class There(Tensor):
    """A tensor on that device; its numbers are those of `held`, on the CPU."""

    held: Tensor
    is_meta, is_cpu = False, False  # it has no device of its own in torch, where no such GPU is

    @property
    def device(self) -> torch.device:
        return DEVICE

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        if held.dtype is torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device="meta"
        )
        made.held = held
        return made

    def __init__(self, held: Tensor) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"There({self.held})"


class _Made(TorchDispatchMode):
    """Tensors that are made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Moved(TorchFunctionMode):
    """Tensors that are moved there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            x, *rest = args
            kept = [each for each in rest if not _means_it(each)]
            if len(kept) < len(rest) or _means_it(kwargs.get("device")):
                kwargs.pop("device", None)
                x = x.to(*kept, **kwargs) if kept or kwargs else x
                return x if isinstance(x, There) else There(x)
        return func(*args, **kwargs)


def _means_it(x: Any) -> bool:
    return isinstance(x, (str, torch.device)) and torch.device(x).type == DEVICE.type


@contextmanager
def device() -> Iterator[torch.device]:
    """A block in which tensors can be made there and moved there."""
    with _Moved(), _Made():
        yield DEVICE


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    mine: list[There] = []

    def opened(x: Any) -> Any:
        if isinstance(x, There):
            mine.append(x)
            return x.held
        return torch.device("cpu") if isinstance(x, torch.device) and x.type == DEVICE.type else x

    there = torch.device(kwargs["device"]).type == DEVICE.type if kwargs.get("device") is not None else None
    in_place = func._schema.name.endswith("_") and isinstance(args[0], There)
    plain = tree_map(opened, (args, kwargs))
    others = [x for x in args if isinstance(x, Tensor) and not isinstance(x, There) and x.dim()]
    if mine and others and not any(word in func._schema.name for word in ("copy", "index")):
        raise RuntimeError(f"{func}: expected all tensors on one device")
    out = func(*plain[0], **plain[1])
    if in_place:
        return args[0]
    if not (there if there is not None else bool(mine)):
        return out
    return tree_map(lambda x: There(x) if isinstance(x, Tensor) else x, out)


def moved(model: nn.Module) -> nn.Module:
    """The model, with parameters and buffers there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(
                    There(parameter.detach()), requires_grad=parameter.requires_grad
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = There(buffer)
    return model
