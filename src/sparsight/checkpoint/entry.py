"""The place of a tensor in a checkpoint, and the error of every bad file."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from torch import Tensor

from sparsight.checkpoint.packed.head import Head

ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of the dtypes that can be analysed."""
LONGEST_HEADER = 25_000_000
"""Most bytes of a header, an index, a pickle, or the directory of an archive."""
MOST_ENTRIES = 250_000
_LONGEST_NAME = 1000  # characters
_SHOWN = 80

Part = Literal["network", "beside", "optimizer"]
"""Part of a training checkpoint: the network, another dictionary, or the state of an optimiser."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or is damaged: which file, and what is wrong with it.

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
    strides: tuple[int, ...] | None = None  # in elements, unless in row-major order
    tensor: Tensor | None = None
    aliases: tuple[str, ...] = ()  # further names of the same tensor
    turned: tuple[Entry, ...] = ()  # those of its aliases that show it transposed
    obstacle: str | None = None  # why its values cannot be read
    part: Part = "network"
    mask: Entry | None = None  # a tensor of its shape that its values are multiplied by as they are read
    packed: Head | None = None  # where its chunks lie, if it is packed

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
    """Strides of a tensor of this shape that lies in row-major order."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def in_order(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether these strides are row-major, apart from dimensions of size 1."""
    return all(n <= 1 or s == r for n, s, r in zip(shape, strides, row_major(shape), strict=True))
