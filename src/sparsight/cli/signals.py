"""How a command is stopped from outside: by Ctrl-C, a scheduler, a closed terminal, or the end of its study."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TRIAL = "SPARSIGHT_TRIAL"
"""Set for a trial of a study: its standard input is a pipe that closes when the study ends."""

GRACE = 30.0
"""Seconds that a trial gets to end by itself."""

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""The signals that end a command."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM (a scheduler) and SIGHUP (a closed terminal) into KeyboardInterrupt, in the main thread.

    One that arrives while Python cannot raise, in a C callback or a finaliser, is raised a moment later. Ignored
    signals, such as SIGHUP under nohup, stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def raise_later(ignored: Any) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            hook(ignored)
            return
        again = threading.Timer(0.05, _interrupt_main)
        again.daemon = True
        again.start()

    before = {n: signal.getsignal(n) for n in ENDING[1:] if signal.getsignal(n) != signal.SIG_IGN}
    hook = sys.unraisablehook
    try:
        for number in before:
            signal.signal(number, interrupt)
        sys.unraisablehook = raise_later
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unheard() -> Iterator[None]:
    """Ignore further Ctrl-C while the last message is printed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in ENDING}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> None:
    """Let signals during Python's shutdown end the process at once, with its exit code and no traceback."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    exec("pass")  # forgets a KeyboardInterrupt raised inside an exec; `python -m` would end with it
    heard = [n for n in ENDING if signal.getsignal(n) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        return
    for number in heard:
        signal.signal(number, lambda *_: os._exit(code))
    # Python restores the default handlers, then takes its time to free modules.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in heard])


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread if it waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)


def end_with_the_study() -> None:
    """In a trial of a study: end when the study ends, first by SIGTERM, then by SIGKILL with the group it leads."""
    if os.environ.pop(TRIAL, None) is None:
        return
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # give the trial's code an empty standard input
    os.close(nothing)

    def wait() -> None:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        else:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=wait, daemon=True).start()
