"""Checks that all nodes of a cluster see a study's folder, and that locks work between them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sparsight.records.files import make_folder, try_remove, write_atomically
from sparsight.records.new_folder import LockedRun, take

Seen = Literal["held", "free", "unlockable", "missing"]
"""What a process finds in a folder locked by another one; only the first is right."""


class UnlockedFolder(ValueError):
    """Several machines cannot share this folder."""


def look(folder: Path, word: str) -> Seen:
    """What this process finds in a folder that another one has locked, after writing `word` there."""
    try:
        if (folder / "word").read_text() != word:
            return "missing"
    except OSError:
        return "missing"
    try:
        take(folder).release()
    except LockedRun:
        return "held"
    except OSError:
        return "unlockable"
    return "free"


def check_locks(out: Path, ask: Callable[[Path, str], dict[str, Seen]]) -> None:
    """Raise UnlockedFolder unless every process asked by `ask` sees `out`, and a lock held here keeps it out.

    `ask(folder, word)` returns what each process found, by name.
    """
    folder, word = out / "lock-probe", secrets.token_hex(16)
    make_folder(folder)
    write_atomically(folder / "word", [word.encode()])
    try:
        lock = take(folder)
    except OSError as error:
        raise UnlockedFolder(f"{out} lies on a file system without locks ({error}); {_ADVICE}") from error
    try:
        found = ask(folder, word)
    finally:
        lock.release()
        for name in ("word", "run.lock"):
            try_remove(folder / name)
        with contextlib.suppress(OSError):
            folder.rmdir()
    for node, seen in found.items():
        if seen == "missing":
            raise UnlockedFolder(f"{node} does not see {out}: every node must reach the study's folder by this path")
        if seen != "held":
            what = "two processes can hold the same lock" if seen == "free" else "files cannot be locked there"
            raise UnlockedFolder(f"{out} has no working locks as {node} sees it: {what}; {_ADVICE}")


_ADVICE = (
    "two machines could write one run at once, so put the study on a file system with locks (NFS 4, Lustre -o flock)"
)

__all__ = ["Seen", "UnlockedFolder", "check_locks", "look"]
