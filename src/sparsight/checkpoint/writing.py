"""Writes files atomically, and makes the header of a safetensors file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PART = ".part"  # suffix of files that are being written
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EACCES)  # from file systems that cannot do it


def safetensors_header(metadata: Mapping[str, str], tensors: Iterable[tuple[str, str, Sequence[int], int]]) -> bytes:
    """The header for tensors (name, dtype, shape, number of bytes), in the order of their bytes in the file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, dtype, shape, size in tensors:
        begin, end = end, end + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_atomically(
    path: Path, chunks: Iterable[Any], *, mode: int | None = None, then: str = "resume the run"
) -> None:
    """Write the buffers `chunks` to the file `path`: afterwards it has all of them, or its old contents.

    Writes a new file next to it, with permissions `mode`, and renames it once it is complete. A symbolic link is
    replaced, never followed; anything but a file is an error. Raises: OSError (full disk, no permission) that names
    the file, says whether the old contents are intact, and what to do, `then`.
    """
    part = path.with_name(f".{secrets.token_hex(8)}{PART}")
    try:
        try:
            with open(part, "xb") as file:
                if mode is not None:
                    os.chmod(part, mode)
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if path.exists() and not path.is_symlink() and not path.is_file():
                raise OSError(errno.EEXIST, "it is not a regular file")
            os.replace(part, path)
        except BaseException:  # Ctrl-C too
            try_remove(part)
            raise
        sync_folder(path.parent)
    except OSError as error:
        refuse_write(path, error, then)


def refuse_write(path: Path, error: OSError, then: str = "resume the run") -> NoReturn:
    """Raise `error` again; it says what could not be written, whether old contents are intact, and what to do."""
    what = f"cannot write {path}: {error.strerror or error}"
    if error.errno == errno.ENOENT and not path.parent.exists():
        raise OSError(error.errno, f"{what}: its folder is gone, with all that was in it: start anew") from error
    remedy = f"make room (or give permission) and {then}"
    if error.errno in _IN_THE_WAY:
        remedy = "move away what is in its place, or take another folder"
    elif error.errno == errno.ENAMETOOLONG:
        remedy = "take a shorter name"
    raise OSError(error.errno, f"{what}; what was stored before is intact: {remedy}") from error


def sync_folder(folder: Path) -> None:
    """Make renames, new files and removals in `folder` survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def try_remove(path: Path) -> None:
    """Remove a file if it exists and may be removed; it must be harmless if it stays."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
