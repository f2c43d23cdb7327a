"""Downloads a published file from one of several addresses, with a check and a progress bar, atomically."""

from __future__ import annotations

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

_CHUNK = 1 << 16


class DownloadError(OSError):
    """No address gave the file. The message has the answer of each."""


def download(
    addresses: Sequence[str], path: Path, *, check: Callable[[Path], object], limit: int, timeout: float = 30.0
) -> None:
    """Download the first complete file of `addresses` that passes `check` to `path`, and create its folder.

    Replaces an existing file atomically. `check(temporary file)` raises ValueError for a bad file. Refuses files larger
    than `limit` bytes. Shows a progress bar on a terminal. Raises: DownloadError if all addresses fail.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for address in addresses:
        with _temporary(path) as part:
            try:
                _fetch(address, part, limit, timeout)
                check(part)
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
                failures.append(f"{address}: {str(error).replace(str(part), path.name)}")
                continue
            os.replace(part, path)
            return
    raise DownloadError(f"cannot download {path.name}: " + "; ".join(failures))


def _fetch(address: str, part: Path, limit: int, timeout: float) -> None:
    with urllib.request.urlopen(address, timeout=timeout) as answer, open(part, "wb") as file:
        header = answer.headers.get("Content-Length")
        expected = int(header) if header and header.isdigit() else None
        received = 0
        with _progress() as progress:
            bar = progress.add_task(address.rsplit("/", 1)[-1], total=expected)
            while chunk := answer.read(_CHUNK):
                received += len(chunk)
                if received > limit:
                    raise ValueError(f"larger than the limit of {limit:,} bytes")
                file.write(chunk)
                progress.update(bar, completed=received)
        if expected is not None and received != expected:
            raise ValueError(f"ended after {received:,} of {expected:,} bytes")
        file.flush()
        os.fsync(file.fileno())


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A temporary file next to `path`, removed at the end unless renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)
