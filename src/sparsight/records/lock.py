"""One writer at a time: an advisory lock on a folder, let go when its process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

from sparsight.records import files

try:
    import fcntl
except ImportError:  # Windows has no flock: nothing keeps two processes from writing one run there
    fcntl = None


class LockedRun(RuntimeError):
    """Another process is writing the run."""


def take(folder: Path) -> int:
    """Lock the folder for this process; the descriptor that holds the lock. LockedRun if another has it."""
    path = folder / "run.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        files.refuse_write(path, error)
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            what = f"another process is writing {folder}; wait for it to end, or take another folder"
            raise LockedRun(what) from error
        except OSError as error:  # a file system without locks
            os.close(descriptor)
            files.refuse_write(path, error)
    return descriptor


def release(descriptor: int) -> None:
    """Let the lock go."""
    os.close(descriptor)
