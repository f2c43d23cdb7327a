"""One writer at a time: a lock on a folder, let go when its process ends, however it ends."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import FileLock, Timeout

from sparsight.records import files


class LockedRun(RuntimeError):
    """Another process is writing the run."""


def take(folder: Path) -> FileLock:
    """Lock the folder for this process. LockedRun if another has it; OSError, naming run.lock, if it cannot be made.

    The system's own lock or none: a file that marks a folder as taken would outlive a killed process. A link, a FIFO or
    a folder in its place is refused.
    """
    path = folder / "run.lock"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        files.refuse_write(path, OSError(errno.EEXIST, "it is no regular file"))
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        what = f"another process is writing {folder}; wait for it to end, or take another folder"
        raise LockedRun(what) from error
    except OSError as error:  # no permission, or a file system without locks
        files.refuse_write(path, error)
    return lock
