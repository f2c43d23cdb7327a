"""The tensors of a checkpoint, in memory or as places in files; functions to read bytes; the error for bad files."""

from __future__ import annotations

import math
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.checkpoint.packed.head import Head

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes per element, for the dtypes that can be analysed."""
LONGEST_HEADER = 25_000_000
"""Upper limit in bytes for a header, an index, a pickle, or the directory of an archive."""
MOST_ENTRIES = 250_000
_LONGEST_NAME = 1000  # characters
_SHOWN = 80
_MOST = 1 << 24  # most bytes to read at once when reading makes a copy
_seeking = threading.Lock()

Part = Literal["network", "beside", "optimizer"]
"""Part of a training checkpoint: the network, another dictionary, or the state of an optimiser."""


class CheckpointError(ValueError):
    """A checkpoint is damaged or cannot be read; the message names the file and the problem.

    `doing` is the verb of the message: cannot `doing` the file.
    """

    def __init__(self, path: object, what: str, doing: str = "read") -> None:
        super().__init__(path, what, doing)
        self.path, self.what, self.doing = path, what, doing

    def __str__(self) -> str:
        return f"cannot {self.doing} {self.path}: {self.what}"


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """One tensor: in a file from byte `offset` on, or in memory."""

    name: str
    dtype: str  # in torch's spelling: "float32", "int64", "float8_e4m3fn"; "" for anything but a tensor
    shape: tuple[int, ...]
    path: Path | None = None
    offset: int = 0
    strides: tuple[int, ...] | None = None  # in elements; None: row-major order
    tensor: Tensor | None = None
    aliases: tuple[str, ...] = ()  # other names of the same tensor
    turned: tuple[Entry, ...] = ()  # the aliases that show it transposed
    obstacle: str | None = None  # why its values cannot be read
    part: Part = "network"
    mask: Entry | None = None  # a tensor of the same shape; reading multiplies the values by it
    packed: Head | None = None  # the places of its chunks, if it is packed

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def reach(self) -> int:
        """Elements in the file from the first to the last, inclusive."""
        if self.strides is None or not self.count:
            return self.count
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file, a folder or a model."""

    source: str
    format: str  # "safetensors", "sharded safetensors", "torch", "module", "tensors", …
    entries: tuple[Entry, ...]
    files: tuple[Path, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)  # of a safetensors file


def size_of(path: Path) -> int:
    """The size of a regular file in bytes. Raises: CheckpointError for anything else, or if it cannot be read."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(path, "it is not a regular file")
    return found.st_size


def check_header(path: Path, what: str, size: int) -> None:
    if size > LONGEST_HEADER:
        raise CheckpointError(path, f"{what} has {size:,} bytes, expected at most {LONGEST_HEADER:,}")


def check_entries(path: Path, count: int) -> None:
    if count > MOST_ENTRIES:
        raise CheckpointError(path, f"it has more than {MOST_ENTRIES:,} entries")


def check_name(path: object, name: str) -> None:
    """Raise CheckpointError for a name that is too long or not valid Unicode."""
    if len(name) > _LONGEST_NAME:
        what = f"the name {name[:_SHOWN]!r}… has {len(name):,} characters, expected at most {_LONGEST_NAME:,}"
        raise CheckpointError(path, what)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(path, f"the name {name[:_SHOWN]!r} is not valid Unicode") from error


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading. Raises: CheckpointError if opening or reading fails."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error


def read_bytes(path: Path, offset: int, size: int) -> bytes:
    """Exactly these bytes. Raises: CheckpointError if the file has fewer or cannot be read."""
    with open_file(path) as file:
        file.seek(offset)
        found = file.read(size)
    if len(found) < size:
        raise CheckpointError(path, f"it ends after {offset + len(found):,} bytes, but needs {offset + size:,}")
    return found


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a row-major tensor of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


# -- open files that several threads read at their own offsets --------------------------------------------------


def opened(path: Path, stack: ExitStack) -> int:
    """A file descriptor that `stack` closes. Raises: CheckpointError if the file cannot be opened."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    stack.callback(os.close, file)
    return file


def read_at(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    """Read bytes into `out`, from an offset on. Raises: CheckpointError if there are fewer."""
    view = out.view(np.uint8).data
    at = 0
    while at < len(view):
        try:
            n = _read_some(file, offset + at, view[at:])
        except OSError as error:
            raise CheckpointError(entry.path, f"reading {entry.name!r}: {error.strerror}") from error
        if n == 0:
            raise CheckpointError(entry.path, f"it ends inside {entry.name!r}; it may have changed while it was read")
        at += n


def _read_some(file: int, offset: int, view: memoryview) -> int:
    """Read bytes at an offset into `view`, and return their number. Several threads may call it."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], offset)
    with _seeking:  # Windows cannot read at an offset: one thread at a time seeks and reads
        os.lseek(file, offset, os.SEEK_SET)
        found = os.read(file, min(len(view), _MOST))
    view[: len(found)] = found
    return len(found)


# -- tensors in memory -----------------------------------------------------------------------------------------


def in_memory(source: str, kind: str, items: Iterable[tuple[str, Tensor]]) -> Checkpoint:
    """A checkpoint of tensors, each once, under its first name. Raises: CheckpointError for other values."""
    tensors: dict[tuple[object, ...], Tensor] = {}
    names: dict[tuple[object, ...], dict[str, None]] = {}
    for name, tensor in items:
        if not isinstance(tensor, Tensor):
            what = f"expected tensors by name, got {type(tensor).__name__} for {name!r:.80}: give the state dict alone"
            raise CheckpointError("the tensors given", what)
        place = _place(name, tensor)
        tensors.setdefault(place, tensor)
        names.setdefault(place, {})[name] = None
    return Checkpoint(source, kind, tuple(_of(tensor, *names[place]) for place, tensor in tensors.items()))


def _of(tensor: Tensor, name: str, *aliases: str) -> Entry:
    shape = () if tensor.is_nested else tuple(tensor.shape)
    dtype, obstacle = str(tensor.dtype).removeprefix("torch."), _obstacle(tensor)
    return Entry(name, dtype, shape, tensor=tensor.detach(), aliases=aliases, obstacle=obstacle)


def _place(name: str, tensor: Tensor) -> tuple[object, ...]:
    """A key that is equal for tensors that share the same bytes."""
    if _obstacle(tensor) is not None or tensor.numel() == 0:
        return (name,)
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _obstacle(tensor: Tensor) -> str | None:
    if isinstance(tensor, nn.parameter.UninitializedParameter):
        raise CheckpointError(type(tensor).__name__, "a lazy layer has no shape yet: pass one batch through the model")
    if tensor.is_nested:
        return "it is nested"
    if tensor.layout != torch.strided:
        return f"its layout is {tensor.layout}"
    if tensor.device.type == "meta":
        return "it is on the meta device and has no values"
    return None
