"""Getting a published file: several addresses, a check, a progress bar, and all or nothing on the disk."""

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
    """No address gave the file. The message says what each of them answered."""


def download(
    addresses: Sequence[str], path: Path, *, check: Callable[[Path], object], limit: int, timeout: float = 30.0
) -> None:
    """Write to `path` the first file of `addresses` that is whole and passes `check`; create its folder.

    The file appears under its name only when complete, checked and on the disk; a file that was there before
    is replaced in one step. `check(temporary file)` raises ValueError to refuse. A file of more than `limit`
    bytes is refused. On a terminal, a progress bar is drawn on standard error. DownloadError if all fail.
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
                    raise ValueError(f"more than {limit} bytes, which is too large for this file")
                file.write(chunk)
                progress.update(bar, completed=received)
        if expected is not None and received != expected:
            raise ValueError(f"ended after {received} of {expected} bytes")
        file.flush()
        os.fsync(file.fileno())


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A file beside `path` (so that renaming is one step), gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        part.chmod(0o644)
        yield part
    finally:
        part.unlink(missing_ok=True)
