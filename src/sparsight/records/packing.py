"""Nested Python state as tensors and JSON, without pickle, and masks with one bit per weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsight.records.tensors import can_store
from sparsight.types import Masks

Skeleton = Any
"""JSON values with references to tensors."""


def pack_state(state: Any) -> tuple[dict[str, Tensor], Skeleton]:
    """Split nested state, such as an optimiser's `state_dict()`, into named tensors and a JSON skeleton.

    Accepts None, bool, int, float (also NaN and infinities), str, dense tensors, and lists, tuples and mappings (with
    str or int keys) of them. Preserves shared tensors, the order of mappings and the memory format of tensors.

    Raises: TypeError for anything else, with its place.
    """
    tensors: dict[str, Tensor] = {}
    seen: dict[Any, str] = {}

    def keep(tensor: Tensor) -> Skeleton:
        tensor = tensor.detach()
        view = (tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
        place = (str(tensor.device), tensor.data_ptr(), *view)
        name = seen.get(place) if tensor.numel() else None
        if name is None:
            name = seen[place] = f"{len(tensors)}"
            tensors[name] = tensor
        if tensor.is_contiguous() or not _dense(tensor.shape, tensor.stride()):
            return {"tensor": name}
        return {"tensor": name, "stride": list(tensor.stride())}

    return tensors, _encode(state, "state", keep)


def _encode(value: Any, where: str, keep: Callable[[Tensor], Skeleton]) -> Skeleton:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, Tensor):
        if not can_store(value):
            got = f"{value.dtype}, {value.layout} on {value.device}"
            raise TypeError(f"cannot store {where}: expected a dense tensor of a common type, got {got}")
        return keep(value)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}[{i}]", keep) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, (int, str)):
                raise TypeError(f"cannot store {where}: expected str and int as keys, got {key!r:.80}")
        return {"dict": [[key, _encode(item, f"{where}[{key!r}]", keep)] for key, item in value.items()]}
    expected = "None, bool, int, float, str, tensors, or lists, tuples and mappings of them"
    raise TypeError(f"cannot store {where}: expected {expected}, got {type(value).__qualname__}")


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the strides permute row-major order without gaps, as channels-last does."""
    expected = 1
    for stride, size in sorted((st, si) for st, si in zip(strides, shape, strict=True) if si != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def unpack_state(tensors: Mapping[str, Tensor], skeleton: Skeleton) -> Any:
    """The state from `pack_state`, with tensors on the CPU. Raises: ValueError if the two do not match."""
    laid: dict[tuple[str, tuple[int, ...] | None], Tensor] = {}

    def tensor(name: str, stride: tuple[int, ...] | None) -> Tensor:
        found = laid.get((name, stride))
        if found is None:
            found = tensors[name]
            if stride is not None:
                if not _dense(found.shape, stride):  # could need any amount of memory
                    raise ValueError(f"tensor {name} of shape {tuple(found.shape)} cannot have the strides {stride}")
                found = torch.empty_strided(found.shape, stride, dtype=found.dtype).copy_(found)
            laid[name, stride] = found
        return found

    def decode(value: Skeleton) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensor(value["tensor"], tuple(value["stride"]) if "stride" in value else None)
        if "tuple" in value:
            return tuple(decode(item) for item in value["tuple"])
        if "float" in value:
            return float(value["float"])
        return {key: decode(item) for key, item in value["dict"]}

    try:
        return decode(skeleton)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"skeleton and tensors do not match: {error!r}") from error


def pack_masks(masks: Masks) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Masks with one bit per weight (row-major, first weight in the highest bit, zero padding), and their shapes."""
    packed: dict[str, Tensor] = {}
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"cannot store the mask of {name!r}: expected torch.bool, got {got}")
        packed[name] = torch.from_numpy(np.packbits(mask.detach().cpu().contiguous().numpy()))
    return packed, {name: list(mask.shape) for name, mask in masks.items()}


def unpack_masks(packed: Mapping[str, Tensor], shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """The masks from `pack_masks`. Raises: ValueError if bits and shapes do not match."""
    sizes = shapes.values() if isinstance(shapes, Mapping) else [None]
    if not all(isinstance(s, list) and all(type(n) is int and n >= 0 for n in s) for s in sizes):
        raise ValueError(f"shapes of masks must be lists of sizes by name, got {shapes!r:.80}")
    if set(packed) != set(shapes):
        raise ValueError(f"masks and shapes have different names: {sorted(packed)} and {sorted(shapes)}")
    masks: dict[str, Tensor] = {}
    for name, bits in packed.items():
        shape, count = shapes[name], math.prod(shapes[name])
        if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
            got = f"{bits.dtype} of shape {tuple(bits.shape)}"
            raise ValueError(f"mask of {name!r}: expected torch.uint8 for {count} bits, got {got}")
        flat = np.unpackbits(bits.numpy())
        if flat[count:].any():
            raise ValueError(f"mask of {name!r}: bits are set after its {count} weights")
        masks[name] = torch.from_numpy(flat[:count].view(np.bool_).reshape(shape).copy())
    return masks
