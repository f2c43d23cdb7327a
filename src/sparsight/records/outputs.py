"""Output files that a user names: a table, a page, a picture."""

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
    """Raise OSError if `write_output` could not write the output: a folder, or a file in a bad folder."""
    if is_standard(path):
        return
    place = path if _is_special(path) else Path(os.path.realpath(path)).parent
    if not place.exists():
        raise FileNotFoundError(errno.ENOENT, f"the folder {place} does not exist")
    if not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, f"{place} is not writable")


def write_output(path: Path, chunks: Iterable[Any]) -> None:
    """Write the buffers `chunks` to `path`: a file, a device, a FIFO, or "-" for standard output.

    Replaces a file atomically and keeps its permissions; follows a link. Raises: OSError, with the path.
    """
    if is_standard(path):
        sys.stdout.flush()
        sys.stdout.buffer.writelines(chunks)
        sys.stdout.buffer.flush()
        return
    try:
        if _is_special(path):
            with os.fdopen(os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0)), "wb") as file:
                file.writelines(chunks)
            return
    except BrokenPipeError:  # the reader is done
        raise
    except OSError as error:
        refuse_write(path, error, _THEN)
    place = Path(os.path.realpath(path))
    mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else None
    write_atomically(place, chunks, mode=mode, then=_THEN)


def _is_special(path: Path) -> bool:
    """Whether `path` exists but is not a file. Raises: OSError for a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder: give the name of a file")
    return not stat.S_ISREG(mode)
