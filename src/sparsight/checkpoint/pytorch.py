"""Files of torch.save: where their tensors lie, by the restricted unpickler and without reading their values."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry, in_order, read_bytes, row_major, size_of
from sparsight.checkpoint.memory import entries

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "generator", "params")
"""Names under which training scripts put the weights beside other things."""
_IGNORED = ("optim", "sched", "scaler")
_MOST_TENSORS = 1_000_000
_DEEPEST = 16
_LARGEST_PICKLE = 256 << 20
_CODE = re.compile(r"GLOBAL ([^\s]+)|(?:function|class|module|from) ([\w.]+\.[\w.]+)")


def read_torch(path: Path, budget: int) -> Checkpoint:
    """The tensors of a file written by torch.save. No code in it is run, no value of it read.

    Files of the old format (before PyTorch 1.6) say where tensors lie only to one who loads them; they are loaded
    if they fit `budget` bytes. CheckpointError: a damaged file, one whose pickle asks for code, no tensors.
    """
    size = size_of(path)
    if read_bytes(path, 0, min(size, 4)) == b"PK\x03\x04":
        records = _records(path, size)
        loaded = _loaded(path, fake=True)
        found = [_placed(path, name, tensor, records) for name, tensor in _tensors(path, loaded)]
        return Checkpoint(str(path), "torch", tuple(_once(found)), (path,))
    if size > budget:
        what = f"it is of PyTorch's old format, which must be loaded whole: {size:,} bytes, the budget is {budget:,}"
        raise CheckpointError(path, f"{what}; save it again with a PyTorch of today, or raise the budget")
    tensors = dict(_tensors(path, _loaded(path, fake=False)))
    return Checkpoint(str(path), "torch, old format", tuple(entries(tensors.items(), tensors)), (path,))


# -- the archive -----------------------------------------------------------------------------------------------


def _records(path: Path, size: int) -> dict[int, int]:
    """Where each record of the archive starts and ends, after checking that none claims more than is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, OSError, struct.error, NotImplementedError) as error:
        raise CheckpointError(path, f"its archive is damaged: {error}") from error
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise CheckpointError(path, "its archive names a record twice")
    if any("/code/" in name for name in names):
        raise CheckpointError(
            path, "it is a TorchScript archive, which holds code; save the model's state_dict() instead"
        )
    spans: dict[int, int] = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(path, f"the record {info.filename!r:.80} is compressed, which torch.save never does")
        if info.header_offset + 30 > size:
            raise CheckpointError(path, f"the record {info.filename!r:.80} lies outside the file")
        local = read_bytes(path, info.header_offset, 30)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30]))
        if local[:4] != b"PK\x03\x04" or start + info.file_size > size:
            raise CheckpointError(path, f"the record {info.filename!r:.80} lies outside the file")
        leaf = info.filename.rpartition("/")[2]
        if leaf == "data.pkl" and info.file_size > _LARGEST_PICKLE:
            raise CheckpointError(path, f"its pickle has {info.file_size:,} bytes, allowed are {_LARGEST_PICKLE:,}")
        if leaf == "byteorder" and read_bytes(path, start, min(info.file_size, 8)) == b"big":
            raise CheckpointError(path, "it was written on a big-endian machine")
        spans[start] = start + info.file_size
    return spans


def _loaded(path: Path, *, fake: bool) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not fake:
                return torch.load(path, map_location="cpu", weights_only=True)
            with FakeTensorMode():
                return torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, RecursionError) as error:
        raise CheckpointError(path, _reason(error)) from error


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    asked = _CODE.search(text)
    if asked:
        what = asked.group(1) or asked.group(2)
        return f"its pickle asks for code ({what:.80}), which is not run; save the model's state_dict() instead"
    text = text.partition("Weights only load failed")[2].partition("WeightsUnpickler error:")[2].strip() or text
    return f"torch.load with weights_only=True refuses it: {text.strip()[:300] or type(error).__name__}"


# -- the tensors -----------------------------------------------------------------------------------------------


def _tensors(path: Path, loaded: Any) -> list[tuple[str, Tensor]]:
    """Every tensor by its dotted name; of a training checkpoint only those of the model."""
    if isinstance(loaded, Mapping):
        inner = [k for k in WRAPPERS if isinstance(loaded.get(k), Mapping) and any(_walk(loaded[k], "", set(), 0))]
        if inner and not any(isinstance(v, Tensor) for v in loaded.values()):
            loaded = loaded[inner[0]]
        else:
            wanted = {k for k in loaded if not any(part in str(k).lower() for part in _IGNORED)}
            loaded = {k: v for k, v in loaded.items() if k in wanted or isinstance(v, Tensor)}
    found: dict[str, Tensor] = {}
    for name, tensor in _walk(loaded, "", set(), 0):
        if name in found:
            raise CheckpointError(path, f"two tensors are called {name!r:.80}")
        if len(found) >= _MOST_TENSORS:
            raise CheckpointError(path, f"it has more than {_MOST_TENSORS:,} tensors")
        found[name] = tensor
    if not found:
        raise CheckpointError(path, f"it holds no tensors but a {type(loaded).__name__}")
    return list(found.items())


def _walk(thing: Any, prefix: str, above: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors inside nested containers; each container once, so that shared ones do not multiply."""
    if isinstance(thing, Tensor):
        yield prefix or "tensor", thing
        return
    if not isinstance(thing, (Mapping, list, tuple)) or id(thing) in above or depth > _DEEPEST:
        return
    above.add(id(thing))
    items = thing.items() if isinstance(thing, Mapping) else enumerate(thing)
    for key, value in items:
        if isinstance(key, (str, int)):
            yield from _walk(value, f"{prefix}.{key}" if prefix else str(key), above, depth + 1)


def _placed(path: Path, name: str, tensor: Tensor, records: Mapping[int, int]) -> Entry:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantised" if tensor.layout == torch.strided else str(tensor.layout)
        return Entry(name, dtype, tuple(tensor.shape), path, obstacle=f"it is {kind}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(path, f"the name {name!r:.80} is not valid Unicode") from error
    shape, strides = tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))
    if 0 in shape:
        return Entry(name, dtype, shape, path)
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if not isinstance(start, int) or start not in records:
        raise CheckpointError(path, f"it does not say where tensor {name!r:.80} lies")
    item = tensor.dtype.itemsize
    first = int(tensor.storage_offset())
    last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min(first, *strides, 0) < 0 or start + (last + 1) * item > records[start]:
        raise CheckpointError(path, f"tensor {name!r:.80} of {dtype} {shape} reaches beyond its storage")
    odd = None if in_order(shape, strides) else strides
    if math.prod(shape) * item > records[start] - start:
        return Entry(name, dtype, shape, path, obstacle="it is a view that shows its storage more than once")
    return Entry(name, dtype, shape, path, start + first * item, odd)


def _once(entries: list[Entry]) -> list[Entry]:
    """Tied tensors, transposed or not, under their first name."""
    found: dict[tuple, list[Entry]] = {}
    for entry in entries:
        strides = entry.strides or row_major(entry.shape)
        lay = tuple(sorted((s, n) for n, s in zip(entry.shape, strides, strict=True) if n != 1))
        place = (entry.path, entry.offset, lay, entry.dtype) if entry.offset else (entry.name,)
        found.setdefault(place, []).append(entry)
    return [
        Entry(e.name, e.dtype, e.shape, e.path, e.offset, e.strides, None, tuple(o.name for o in others), e.obstacle)
        for e, *others in found.values()
    ]
