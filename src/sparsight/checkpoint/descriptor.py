"""Open files that several threads read at their own offsets."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sparsight.checkpoint.entry import CheckpointError, Entry

_MOST = 1 << 24  # bytes asked for at once where reading copies them
_seeking = threading.Lock()


def opened(path: Path, stack: ExitStack) -> int:
    """A file descriptor that `stack` closes. Raises: CheckpointError if the file cannot be opened."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise CheckpointError(path, error.strerror or str(error)) from error
    stack.callback(os.close, file)
    return file


def read_at(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
    """Read bytes from an offset on into `out`. Raises: CheckpointError if there are fewer."""
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
