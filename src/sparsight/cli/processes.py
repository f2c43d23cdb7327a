"""A command in several processes, started by torchrun: one of them prints, and all end with one exit code."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparsight.cli.errors import Misuse, say
from sparsight.cli.signals import unheard


def several() -> bool:
    """Whether torchrun, or a launcher like it, started several processes for this command."""
    return "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def main_process() -> bool:
    """Whether this process writes files and prints."""
    return not several() or os.environ.get("RANK") == "0"


def join(command: str) -> None:
    """Silence all but the main process. Raises: Misuse if the command needs a single process."""
    if not main_process():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    if several() and command not in ("run", "recipes"):
        raise Misuse(f"sparsight {command} needs a single process: start it without torchrun")


def last_word(text: str | None, code: int, before: str = "") -> int:
    """Print why the command ends, unless another process did or `text` is None; the exit code of the first to end."""
    with unheard():
        first = own = f"{os.environ.get('RANK', 0)} {code}"
        if several():
            first = own if main_process() else f"0 {code}"
            with suppress(Exception):  # the launcher has gone or has no store: the main process prints
                first = _store().compare_set(_key("ended"), "", own).decode()
        if first == own and text is not None:
            sys.stderr = sys.stderr if main_process() else sys.__stderr__
            say(text, before)
    return int(first.split()[1])


def tell_folder(folder: Path) -> None:
    """Tell the other processes that the command line is valid, and where the run folder is."""
    if several() and (store := _store()) is not None:
        store.set(_key("folder"), str(folder))


def told_folder() -> Path | None:
    """Wait for the run folder of the main process; None if it cannot be asked. Raises: SystemExit if it ended."""
    if main_process() or (store := _store()) is None:
        return None
    while not store.check([_key("folder")]):
        if store.check([_key("ended")]):
            raise SystemExit(int(store.get(_key("ended")).split()[1]))
        time.sleep(0.05)  # waiting in the store would block signals
    return Path(store.get(_key("folder")).decode())


def launched(words: Sequence[str]) -> str:
    """The command line `sparsight WORDS...`, with torchrun if there are several processes."""
    if not several():
        return shlex.join(["sparsight", *words])
    here, all_of_them = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ["WORLD_SIZE"]
    how = ["--nproc-per-node", here] if here == all_of_them else ["..."]
    return shlex.join(["torchrun", *how, "-m", "sparsight", *words])


def part(code: int) -> None:
    """End this process; after an error immediately, because closing connections would wait or abort."""
    if not several():
        return
    if code:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    if "torch" in sys.modules:
        from sparsight.train.parallel import LostProcess, leave

        with suppress(LostProcess):  # all is done and written
            leave()


def _key(name: str) -> str:
    return f"sparsight/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"


@functools.cache
def _store() -> Any:
    """The launcher's store; None if it has none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    import datetime

    from torch.distributed import TCPStore

    where, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(where, port, is_master=False, timeout=datetime.timedelta(seconds=30))
