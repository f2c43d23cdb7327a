"""Ray clusters: the user's, or one started here with a token and without usage statistics; and their shared folder."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from sparsight.records.files import make_folder, try_remove, write_atomically
from sparsight.records.new_folder import LockedRun, take
from sparsight.runs.study.local import available_cores

OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # a trial is as urgent as it is without Ray
}
"""Settings of a cluster started here, which Ray reads when it is imported."""

Seen = Literal["held", "free", "unlockable", "missing"]
"""What a process finds in a folder locked by another one; only the first is right."""

_ADVICE = (
    "two machines could write one run at once, so put the study on a file system with locks (NFS 4, Lustre -o flock)"
)


def ray() -> Any:
    """The library. Raises: ModuleNotFoundError with the command to install it."""
    try:
        import ray as library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--engine ray needs Ray: pip install sparsight[ray]") from error
    return library


@contextmanager
def attached(address: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """A block with a Ray cluster: the one at `address` ("auto": on this machine), otherwise one started here.

    A cluster started here has this machine's cores, requires a token, and ends with the block; `say` gets its open
    ports. If the caller is already attached to a cluster, that one is used.
    """
    if "ray" in sys.modules and ray().is_initialized():
        yield
        return
    if address is None and "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise RuntimeError(
            "Ray reads its settings when it is imported, so a cluster with a token cannot be started any more: set "
            "RAY_AUTH_MODE=token before import ray, or attach to a cluster first"
        )
    before = dict(os.environ)
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            os.environ.update(OURS, RAY_AUTH_TOKEN=secrets.token_hex(32))
            ray().init(include_dashboard=False, num_cpus=available_cores(), **quiet)
            say(f"started Ray on this machine; it lets in who has its token, and listens on {', '.join(open_ports())}")
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray().init(address=address, **quiet)
        yield
    finally:
        if "ray" in sys.modules:
            ray().shutdown()
        for name in (*OURS, "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def open_ports() -> list[str]:
    """The open ports of processes started by this one: "gcs_server [::]:41365"."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:  # it has ended
            continue
        found += [f"{process.name()} {f'[{at.ip}]' if ':' in at.ip else at.ip}:{at.port}" for at in listening]
    return found


# -- the shared folder -------------------------------------------------------------------------------------------


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
        with suppress(OSError):
            folder.rmdir()
    for node, seen in found.items():
        if seen == "missing":
            raise UnlockedFolder(f"{node} does not see {out}: every node must reach the study's folder by this path")
        if seen != "held":
            what = "two processes can hold the same lock" if seen == "free" else "files cannot be locked there"
            raise UnlockedFolder(f"{out} has no working locks as {node} sees it: {what}; {_ADVICE}")
