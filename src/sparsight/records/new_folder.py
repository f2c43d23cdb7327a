"""Takes a folder for a run: one with a free name, or an empty one; and locks it for a single writer."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from filelock import FileLock, Timeout

from sparsight.records import files


def next_folder(root: Path, name: str) -> Path:
    """Create and return `root/name-001`, or the next number after the highest in use, even among several processes.

    Raises: ValueError for a name that is not a file name; OSError, with the folder.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"the name of a run folder must be a plain file name, got {name!r}")
    files.make_folder(root)
    taken = (path.name.removeprefix(f"{name}-") for path in root.glob("*") if path.name.startswith(f"{name}-"))
    number = 1 + max((int(tail) for tail in taken if tail.isascii() and tail.isdigit()), default=0)
    while True:
        folder = root / f"{name}-{number:03d}"
        try:
            folder.mkdir()
            files.sync_folder(root)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            files.refuse_write(folder, error)


def forget(path: Path, *, keep_folder: bool) -> None:
    """Remove the files of a run that trained nothing, and its folder if empty, unless `keep_folder`."""
    for name in ("report.html", "run.json", "probe.safetensors", "levels.jsonl", "run.lock"):
        files.try_remove(path / name)
    with contextlib.suppress(OSError):  # it holds something else
        if not keep_folder:
            path.rmdir()


def refuse_contents(path: Path) -> None:
    """Raise FileExistsError unless the folder is empty, or holds only the remains of a killed `create`."""
    remains = ("run.lock", "levels.jsonl")
    others = sorted(item.name for item in path.iterdir() if item.name not in remains and item.suffix != ".part")
    if others:
        raise FileExistsError(f"cannot start a run in {path}: it holds {others[0]}; resume it, or use another folder")


class LockedRun(RuntimeError):
    """Another process is writing the run."""


def take(folder: Path, timeout: float = 0.0) -> FileLock:
    """Lock the folder for this process, and wait up to `timeout` seconds for another one.

    Raises: LockedRun if another process has it; OSError if it cannot be made.
    Uses only the system's lock, because a marker file would outlive a killed process.
    """
    path = folder / "run.lock"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        files.refuse_write(path, OSError(errno.EEXIST, "it is not a regular file"))
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout, blocking=timeout > 0)
    except Timeout as error:
        what = f"another process is writing {folder}; wait for it to end, or use another folder"
        raise LockedRun(what) from error
    except OSError as error:  # no permission, or a file system without locks
        files.refuse_write(path, error)
    return lock
