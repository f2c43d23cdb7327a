"""Files that someone asks for by name: a table, a page, a picture. They go where they are sent."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparsight.records.files import refuse_write, write_atomically

_THEN = "try again"
_STANDARD = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # opened again, these would overwrite themselves


def is_standard(path: Path) -> bool:
    """Whether `path` names standard output."""
    return str(path) in _STANDARD


def is_device(path: Path) -> bool:
    """Whether `path` names standard output, a device or a FIFO, whatever its suffix."""
    return is_standard(path) or (path.exists() and not path.is_dir() and not path.is_file())


def check_output(path: Path) -> None:
    """OSError, before any work is done for it, for an output that `write_output` could not write.

    That is a folder, and a file in a folder that is not there or may not be written.
    """
    if is_standard(path):
        return
    special = _is_special(path)
    place = path if special else Path(os.path.realpath(path)).parent
    if not place.exists():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {place}")
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, f"{place} may not be written")


def write_output(path: Path, chunks: Iterable[Any]) -> None:
    """Write the buffers `chunks` to what `path` names.

    A file is replaced as a whole or not at all, and keeps its permissions. A link stays, and the file that it leads to
    is replaced. A device, a FIFO, or standard output ("-") is written to. OSError, naming it, for a folder and for what
    cannot be written.
    """
    if is_standard(path):
        sys.stdout.flush()
        sys.stdout.buffer.writelines(chunks)
        sys.stdout.buffer.flush()
        return
    try:
        special = _is_special(path)
        if special:
            with os.fdopen(os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0)), "wb") as file:
                file.writelines(chunks)
            return
    except BrokenPipeError:  # its reader has enough
        raise
    except OSError as error:
        refuse_write(path, error, _THEN)
    place = Path(os.path.realpath(path))
    mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else None
    write_atomically(place, chunks, mode=mode, then=_THEN)


def _is_special(path: Path) -> bool:
    """Whether there is something else than a file; OSError for a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, expected the name of a file")
    return not stat.S_ISREG(mode)
