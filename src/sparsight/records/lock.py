"""A lock on a run folder, for a single writer; the system releases it when the process ends."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import FileLock, Timeout

from sparsight.records import files


class LockedRun(RuntimeError):
    """Another process is writing the run."""


def take(folder: Path) -> FileLock:
    """Lock the folder for this process. Raises: LockedRun if another process has it; OSError if it cannot be made.

    Uses only the system's lock, because a marker file would outlive a killed process.
    """
    path = folder / "run.lock"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        files.refuse_write(path, OSError(errno.EEXIST, "it is not a regular file"))
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        what = f"another process is writing {folder}; wait for it to end, or use another folder"
        raise LockedRun(what) from error
    except OSError as error:  # no permission, or a file system without locks
        files.refuse_write(path, error)
    return lock
