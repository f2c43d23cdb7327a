"""Named tensors as checksummed safetensors files."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, in_memory
from sparsight.checkpoint.open import load_tensors
from sparsight.checkpoint.packed.head import SAFETENSORS
from sparsight.checkpoint.packed.read import read_safetensors
from sparsight.checkpoint.packed.write import Written, packed_file
from sparsight.checkpoint.writing import safetensors_header
from sparsight.records import files
from sparsight.records.files import SCHEMA, DamagedFile, reading

_STORED = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64"]
_DTYPES = {getattr(torch, dtype): SAFETENSORS[dtype] for dtype in _STORED}


def can_store(tensor: Tensor) -> bool:
    """Whether `write_tensors` accepts the tensor: dense, with values, of a safetensors type."""
    return tensor.dtype in _DTYPES and tensor.layout == torch.strided and not tensor.is_meta


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The tensor on the CPU in row-major order; copies only if necessary."""
    if name == "__metadata__":
        raise ValueError("cannot store a tensor named '__metadata__': safetensors reserves that name")
    if not can_store(tensor):
        got = f"{tensor.dtype}, {tensor.layout} on {tensor.device}"
        expected = f"a dense tensor of type {', '.join(sorted(_DTYPES.values()))}"
        raise ValueError(f"cannot store tensor {name!r}: expected {expected}, got {got}")
    if sys.byteorder != "little":
        raise NotImplementedError("sparsight writes tensors on little-endian machines only")
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _bytes(tensor: Tensor) -> Any:
    """The memory of a plain tensor as a buffer, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The hexadecimal SHA-256 of named tensors: equal exactly for equal names, types, shapes and bits.

    Over the sorted names: a line of JSON [name, type, shape], then the elements in row-major order, little-endian.
    Ignores device, memory format, sharing and the order of the mapping; distinguishes -0.0 from +0.0, and NaNs by their
    bits. Raises: ValueError for a tensor that is not dense or of an unknown type.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = _plain(name, tensors[name])
        sha.update(f"{json.dumps([name, _DTYPES[tensor.dtype], list(tensor.shape)])}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    write: Callable[[Path, Iterator[Any]], None] = files.write_atomically,
    packed: bool = False,
) -> str:
    """Write a safetensors file with `write`, by default atomically; returns `tensors_digest(tensors)`.

    `facts` are JSON values, stored with their own checksum in the header's metadata. The order of the mapping, which
    breaks ties between scores, is stored too. Tensors that share memory are written once per name, to load into a model
    with tied weights; with `packed`, which writes a packed file, only once.
    """
    digest = tensors_digest(tensors)
    metadata = {
        "format": "pt",
        "sparsight_schema": str(SCHEMA),
        "sha256": digest,
        "facts": files.canonical(files.seal({**facts, "order": list(tensors)})),
    }
    if packed:
        alone = in_memory(str(path), "tensors", tensors.items()).entries
        write(path, packed_file(Written(), alone, metadata, folder=path.parent))
        return digest
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps elements aligned
    of = ((n, _DTYPES[(t := tensors[n]).dtype], list(t.shape), t.numel() * t.element_size()) for n in order)

    def chunks() -> Iterator[Any]:
        yield safetensors_header(metadata, of)
        for name in order:
            yield _bytes(_plain(name, tensors[name]))

    write(path, chunks())
    return digest


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors (copied), facts and digest written by `write_tensors`. Raises: DamagedFile."""
    found, facts, digest = _header(path, remedy)
    tied = {alias for entry in found.entries for alias in entry.aliases}
    try:
        tensors = {name: x.clone() if name in tied else x for name, x in load_tensors(found).items()}
    except CheckpointError as error:
        raise DamagedFile(path, f"its tensors cannot be read ({error.what})", remedy) from error
    with reading(path, remedy):
        real = tensors_digest(tensors)
    if digest != real:
        raise DamagedFile(path, f"its tensors have the checksum {real}, not {digest:.80}", remedy)
    return {name: tensors[name] for name in facts.pop("order")}, facts, digest


def read_facts(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Like `read_tensors`, but without tensors: reads only the header, which must match the size of the file."""
    _, facts, digest = _header(path, remedy)
    return {}, {name: fact for name, fact in facts.items() if name != "order"}, digest


def _header(path: Path, remedy: str) -> tuple[Checkpoint, dict[str, Any], str]:
    """The entries, the facts with the order of the tensors, and the stored digest."""
    files.check_there(path, remedy)
    try:
        found = read_safetensors(path)
    except CheckpointError as error:
        raise DamagedFile(path, f"it is not a complete safetensors file ({error.what})", remedy) from error
    metadata = found.metadata
    if metadata.get("sparsight_schema") != str(SCHEMA):
        got = metadata.get("sparsight_schema")
        raise DamagedFile(path, f"unknown schema {got!r:.80}, expected '{SCHEMA}'", remedy)
    if set(metadata) != {"format", "sparsight_schema", "sha256", "facts"} or metadata["format"] != "pt":
        raise DamagedFile(path, f"unknown metadata: got {sorted(metadata)!s:.80}", remedy)
    with reading(path, remedy):
        facts = files.unseal(files.parse_json(metadata["facts"]))
        order, names = facts.get("order"), sorted(n for e in found.entries for n in (e.name, *e.aliases))
        if not isinstance(order, list) or not all(isinstance(n, str) for n in order) or sorted(order) != names:
            raise ValueError(f"its order of tensors, {order!r:.80}, does not match its tensors")
    return found, facts, metadata["sha256"]
