"""Named tensors as checksummed safetensors files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsight.records.files import (
    SCHEMA,
    DamagedFile,
    canonical,
    check_there,
    parse_json,
    reading,
    seal,
    unseal,
    write_atomically,
)

_DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32",
    torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
    torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip


def can_store(tensor: Tensor) -> bool:
    """Whether `write_tensors` takes the tensor: dense, with values, of a type that safetensors knows."""
    return tensor.dtype in _DTYPES and tensor.layout == torch.strided and not tensor.is_meta


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The tensor in the CPU's memory, row-major; without a copy where it lies so already."""
    if name == "__metadata__":
        raise ValueError("cannot store a tensor named '__metadata__': safetensors keeps that name for itself")
    if not can_store(tensor):
        got = f"{tensor.dtype}, {tensor.layout} on {tensor.device}"
        raise ValueError(f"cannot store tensor {name!r}: expected a dense one of {sorted(_DTYPES.values())}, got {got}")
    if sys.byteorder != "little":
        raise NotImplementedError("sparsight writes tensors on little-endian machines only")
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _bytes(tensor: Tensor) -> Any:
    """The memory of a plain tensor, as a buffer; no copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _own(tensor: Tensor) -> Tensor:
    """A copy of the very bytes: `clone` would turn a bool that is neither 0 nor 1 into 1, and hide the damage."""
    return tensor.reshape(-1).view(torch.uint8).clone().view(tensor.dtype).reshape(tensor.shape)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, as hexadecimal: equal exactly for equal names, types, shapes and bits.

    Over the names in sorted order: one line of JSON [name, type, shape], then the elements in row-major order,
    little-endian. Device, memory format, sharing and the order of the mapping do not count; -0.0 and +0.0
    differ, and so do NaNs of different bits. ValueError for a tensor that is not dense or of an unknown type.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = _plain(name, tensors[name])
        sha.update(f"{json.dumps([name, _DTYPES[tensor.dtype], list(tensor.shape)])}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write a safetensors file atomically; returns `tensors_digest(tensors)`.

    `facts` are JSON values, kept with their own checksum in the header's metadata. Tensors that share memory
    are written once per name, so the file loads into a plain model with tied weights. The order of the
    mapping (parameter order decides ties) comes back.
    """
    digest = tensors_digest(tensors)
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "sparsight_schema": str(SCHEMA),
            "sha256": digest,
            "facts": canonical(seal({**facts, "order": list(tensors)})),
        }
    }
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps elements aligned
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[Any]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            yield _bytes(_plain(name, tensors[name]))

    write_atomically(path, chunks())
    return digest


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors (in memory of their own), facts and digest that `write_tensors` wrote; else DamagedFile."""
    check_there(path, remedy)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: _own(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise DamagedFile(path, f"not a whole safetensors file ({error})", remedy) from error
    if metadata.get("sparsight_schema") != str(SCHEMA):
        got = metadata.get("sparsight_schema")
        raise DamagedFile(path, f"unknown schema {got!r:.80}, expected '{SCHEMA}'", remedy)
    if set(metadata) != {"format", "sparsight_schema", "sha256", "facts"} or metadata["format"] != "pt":
        raise DamagedFile(path, f"unknown metadata: got {sorted(metadata)!s:.80}", remedy)
    with reading(path, remedy):
        digest = tensors_digest(tensors)
        facts = unseal(parse_json(metadata["facts"]))
    if digest != metadata["sha256"]:
        raise DamagedFile(path, f"checksum: its tensors have {digest}, not {metadata['sha256']:.80}", remedy)
    order = facts.pop("order", None)
    if not isinstance(order, list) or not all(isinstance(n, str) for n in order) or sorted(order) != sorted(tensors):
        raise DamagedFile(path, f"its order of tensors, {order!r:.80}, is not of those that it holds", remedy)
    return {name: tensors[name] for name in order}, facts, digest
