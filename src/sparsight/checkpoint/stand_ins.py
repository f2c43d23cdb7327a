"""What stands for things in a file of torch.save that are not rebuilt: odd tensors, and values of other types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@dataclass(eq=False)
class OddTensor:
    """Stands for a tensor that is sparse, quantised or nested, with what rebuilding one calls."""

    what: str
    dtype: str
    shape: tuple[int, ...]

    def set_(self, *_: Any) -> OddTensor:
        return self

    detach = requires_grad_ = set_


class OddTensors(TorchFunctionMode):
    """Makes an `OddTensor` of each tensor that torch cannot rebuild without its values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.sparse_coo_tensor:
            return OddTensor("sparse (torch.sparse_coo)", spelled(args[1].dtype), tuple(args[2]))
        if func is torch.sparse_compressed_tensor:
            return OddTensor(f"sparse ({kwargs['layout']})", spelled(args[2].dtype), tuple(args[3]))
        if func in (torch._empty_affine_quantized, torch._empty_per_channel_affine_quantized):
            return OddTensor("quantised", spelled(kwargs["dtype"]), tuple(args[0]))
        if func is torch._nested_view_from_buffer:
            return OddTensor("nested", spelled(args[0].dtype), ())
        return func(*args, **kwargs)


def spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Value:
    """Takes what its type is built from, and does nothing with it."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _mapping(*_: Any) -> dict[Any, Any]:
    """A dictionary, to be filled."""
    return {}


_NAMES = {
    "NumPy number": ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    "NumPy array": ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray"),
    "NumPy dtype": ("numpy.dtype",),
    "Namespace": ("argparse.Namespace", "types.SimpleNamespace"),
    "path": tuple(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"))
    + tuple(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    "time": tuple(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    "number": ("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
    "built-in": tuple(f"builtins.{name}" for name in ("list", "dict", "int", "float", "slice", "range", "frozenset")),
    "version": ("torch.torch_version.TorchVersion",),
}
VALUES: list[Any] = [
    (_mapping, "collections.defaultdict"),
    *((type(kind, (_Value,), {}), name) for kind, names in _NAMES.items() for name in names),
]
"""Pairs (a stand-in, the name that a pickle has for its type) of types whose values are common beside weights."""
