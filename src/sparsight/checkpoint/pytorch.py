"""Files of torch.save: where their tensors lie, by the restricted unpickler and without reading their values."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsight.checkpoint.entry import (
    Checkpoint,
    CheckpointError,
    Entry,
    Part,
    in_order,
    read_bytes,
    row_major,
    size_of,
)
from sparsight.checkpoint.memory import entries
from sparsight.checkpoint.safetensors import check_name
from sparsight.checkpoint.stand_ins import VALUES, OddTensor, OddTensors, spelled

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "generator", "params")
"""Names under which training scripts put the weights beside other things."""
_OPTIMIZERS = ("optim", "sched", "scaler")
_MOST_TENSORS = 1_000_000
_DEEPEST = 16
_LARGEST_PICKLE = 256 << 20
_CODE = re.compile(r"GLOBAL ([^\s]+)|(?:function|class|module|from) ([\w.]+\.[\w.]+)")


def read_torch(path: Path, budget: int) -> Checkpoint:
    """The tensors of a file written by torch.save, by their dotted names. No code in it is run, no value of it read.

    What lies in a dictionary of `WRAPPERS` has no name of it before its own. What stands beside tensors and is none is
    an entry too. An entry's part says whether it is of that dictionary, of another, or of an optimiser.

    Files of the old format (before PyTorch 1.6) say where tensors lie only to one who loads them; they are loaded
    if they fit `budget` bytes. CheckpointError: a damaged file, one whose pickle asks for code, no tensors.
    """
    size = size_of(path)
    if read_bytes(path, 0, min(size, 4)) == b"PK\x03\x04":
        records = _records(path, size)
        found = [_placed(path, item, records) for item in _items(path, _loaded(path, fake=True))]
        return Checkpoint(str(path), "torch", tuple(_once(found)), (path,))
    if size > budget:
        what = f"it is of PyTorch's old format, which must be loaded whole: {size:,} bytes, the budget is {budget:,}"
        raise CheckpointError(path, f"{what}; save it again with a PyTorch of today, or raise the budget")
    items = {item.name: item for item in _items(path, _loaded(path, fake=False))}
    tensors = {name: item.value for name, item in items.items() if isinstance(item.value, Tensor)}
    others = [_odd(path, item) for name, item in items.items() if name not in tensors]
    found = [replace(e, part=items[e.name].part) for e in entries(tensors.items(), tensors)]
    return Checkpoint(str(path), "torch, old format", (*found, *others), (path,))


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
    _check_kind(path, names)
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
            raise CheckpointError(
                path, f"its pickle has {info.file_size:,} bytes, expected at most {_LARGEST_PICKLE:,}"
            )
        if leaf == "byteorder" and read_bytes(path, start, min(info.file_size, 8)) == b"big":
            raise CheckpointError(path, "it was written on a big-endian machine")
        spans[start] = start + info.file_size
    return spans


def _check_kind(path: Path, names: Sequence[str]) -> None:
    """CheckpointError unless the archive is one of torch.save."""
    leaves = {name.rpartition("/")[2] for name in names}
    if any("/code/" in name for name in names):
        what = "it is a TorchScript archive, which holds code; save the model's state_dict() instead"
    elif leaves & {"archive_format", "serialized_exported_program.json"}:
        what = "it is an archive of torch.export, which holds a program; save the model's state_dict() instead"
    elif "data.pkl" not in leaves:
        what = "it is a zip archive, but not one of torch.save: it has no data.pkl"
    else:
        return
    raise CheckpointError(path, what)


def _loaded(path: Path, *, fake: bool) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([*VALUES]):
            warnings.simplefilter("ignore")
            if not fake:
                return torch.load(path, map_location="cpu", weights_only=True)
            with FakeTensorMode(), OddTensors():
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


@dataclass(frozen=True, eq=False)
class _Item:
    """A tensor, or what stands beside one, by its dotted name."""

    name: str
    value: Any
    part: Part


def _items(path: Path, loaded: Any) -> list[_Item]:
    """Everything that is a tensor or stands beside one; the network's without the name of the dictionary it lies in."""
    walked: list[tuple[tuple[str, ...], Any, bool]] = []
    for found in _walk(loaded, (), set(), False):
        if len(walked) >= _MOST_TENSORS:
            raise CheckpointError(path, f"it has more than {_MOST_TENSORS:,} tensors")
        walked.append(found)
    if not any(isinstance(value, (Tensor, OddTensor)) for _, value, _ in walked):
        raise CheckpointError(path, f"it holds no tensors but a {type(loaded).__name__}")
    main = _main(walked)
    items = []
    for keys, value, of_optimizer in walked:
        mine = main is not None and keys[0] == main and not of_optimizer
        part: Part = "optimizer" if of_optimizer else "network" if mine or main is None else "beside"
        items.append(_Item(".".join(keys[1:] if mine else keys) or "tensor", value, part))
    names = set()
    for item in items:
        if item.name in names:
            raise CheckpointError(path, f"two tensors are called {item.name!r:.80}")
        names.add(item.name)
    return items


def _main(walked: Sequence[tuple[tuple[str, ...], Any, bool]]) -> str | None:
    """The dictionary of the network, if the file names one and no weight lies beside all dictionaries."""
    dictionaries = {keys[0] for keys, value, of_optimizer in walked if len(keys) > 1 and not of_optimizer}
    if any(len(keys) == 1 and isinstance(value, Tensor) and value.ndim > 1 for keys, value, _ in walked):
        return None
    found = next((key for key in WRAPPERS if key in dictionaries), None)
    return None if found == "generator" and len(dictionaries) > 1 else found


def _walk(
    thing: Any, keys: tuple[str, ...], above: set[int], of_optimizer: bool
) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """(keys, value, whether of an optimiser) in nested containers; each once, so that shared ones do not multiply."""
    if isinstance(thing, (Tensor, OddTensor)):
        yield keys, thing, of_optimizer
        return
    if not isinstance(thing, (Mapping, list, tuple)) or id(thing) in above or len(keys) > _DEEPEST:
        return
    above.add(id(thing))
    items = list(thing.items() if isinstance(thing, Mapping) else enumerate(thing))
    of_optimizer = of_optimizer or _is_optimizer(thing)
    tensors = isinstance(thing, Mapping) and any(isinstance(value, (Tensor, OddTensor)) for _, value in items)
    for key, value in items:
        if not isinstance(key, (str, int)):
            continue
        inner = (*keys, str(key))
        if tensors and not of_optimizer and not isinstance(value, (Tensor, OddTensor, Mapping, list, tuple)):
            yield inner, value, False
        named = not keys and any(part in str(key).lower() for part in _OPTIMIZERS) and not isinstance(value, Tensor)
        yield from _walk(value, inner, above, of_optimizer or named)


def _is_optimizer(thing: Any) -> bool:
    """Whether it is what the `state_dict` of an optimiser is."""
    return isinstance(thing, Mapping) and isinstance(thing.get("state"), Mapping) and "param_groups" in thing


def _odd(path: Path, item: _Item) -> Entry:
    if isinstance(item.value, OddTensor):
        odd = item.value
        return Entry(item.name, odd.dtype, odd.shape, path, obstacle=f"it is {odd.what}", part=item.part)
    return Entry(item.name, "", (), path, obstacle=f"not a tensor but a {type(item.value).__name__}", part=item.part)


def _placed(path: Path, item: _Item, records: Mapping[int, int]) -> Entry:
    name, tensor, part = item.name, item.value, item.part
    check_name(path, name)
    if not isinstance(tensor, Tensor):
        return _odd(path, item)
    dtype, shape, strides = spelled(tensor.dtype), tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))
    if 0 in shape:
        return Entry(name, dtype, shape, path, part=part)
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if not isinstance(start, int) or start not in records:
        return Entry(name, dtype, shape, path, obstacle="the file does not say where it lies", part=part)
    size = tensor.dtype.itemsize
    first = int(tensor.storage_offset())
    last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min(first, *strides, 0) < 0 or start + (last + 1) * size > records[start]:
        raise CheckpointError(path, f"tensor {name!r:.80} of {dtype} {shape} reaches beyond its storage")
    odd = None if in_order(shape, strides) else strides
    if math.prod(shape) * size > records[start] - start:
        return Entry(name, dtype, shape, path, obstacle="it is a view that shows its storage more than once", part=part)
    return Entry(name, dtype, shape, path, start + first * size, odd, part=part)


def _once(entries: list[Entry]) -> list[Entry]:
    """Tied tensors, transposed or not, under their first name."""
    found: dict[tuple, list[Entry]] = {}
    for entry in entries:
        strides = entry.strides or row_major(entry.shape)
        lay = tuple(sorted((s, n) for n, s in zip(entry.shape, strides, strict=True) if n != 1))
        place = (entry.path, entry.offset, lay, entry.dtype) if entry.offset else (entry.name,)
        found.setdefault(place, []).append(entry)
    return [replace(entry, aliases=tuple(other.name for other in others)) for entry, *others in found.values()]
