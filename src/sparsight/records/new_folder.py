"""Where a new run may go: a folder of a name that is free, or one that holds nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sparsight.records import files


def next_folder(root: Path, name: str) -> Path:
    """Make and return the folder `root/name-001`, or with the next number after the highest there.

    Never one that exists, even if two processes ask at once. ValueError for a name that is no file name;
    OSError naming the folder if `root` cannot hold it.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"cannot name a run folder {name!r}: expected a plain file name")
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
    """Remove what a run that trained nothing wrote, and the folder if nothing else is in it, unless it is to stay."""
    for name in ("report.html", "run.json", "probe.safetensors", "levels.jsonl", "run.lock"):
        files.try_remove(path / name)
    with contextlib.suppress(OSError):  # it holds something else
        if not keep_folder:
            path.rmdir()


def refuse_contents(path: Path) -> None:
    """FileExistsError if the folder holds more than a `create` leaves that was killed before it wrote run.json."""
    remains = ("run.lock", "levels.jsonl")
    others = sorted(item.name for item in path.iterdir() if item.name not in remains and item.suffix != ".part")
    if others:
        raise FileExistsError(f"cannot start a run in {path}: it holds {others[0]}; resume it, or take another folder")
