"""Downloads a published file from one of several addresses, with a check and a progress bar, atomically."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sparsight.checkpoint.writing import write_atomically

_CHUNK = 1 << 16


class DownloadError(OSError):
    """No address gave the file. The message has the answer of each."""


def download(
    addresses: Sequence[str], path: Path, *, check: Callable[[bytes], object], limit: int, timeout: float = 30.0
) -> None:
    """Download the first complete file of `addresses` that passes `check` to `path`, and create its folder.

    Replaces an existing file atomically. `check(content)` raises ValueError for a bad file. Refuses files larger than
    `limit` bytes. Shows a progress bar on a terminal. Raises: DownloadError if all addresses fail.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    for address in addresses:
        try:
            content = _fetched(address, limit, timeout)
            check(content)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
            failures.append(f"{address}: {error}")
            continue
        write_atomically(path, [content], mode=0o644, then="try again")
        return
    raise DownloadError(f"cannot download {path.name}: " + "; ".join(failures))


def _fetched(address: str, limit: int, timeout: float) -> bytes:
    console, content = Console(stderr=True), bytearray()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(address, timeout=timeout) as answer,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        header = answer.headers.get("Content-Length")
        expected = int(header) if header and header.isdigit() else None
        bar = progress.add_task(address.rsplit("/", 1)[-1], total=expected)
        while chunk := answer.read(_CHUNK):
            content += chunk
            if len(content) > limit:
                raise ValueError(f"larger than the limit of {limit:,} bytes")
            progress.update(bar, completed=len(content))
    if expected is not None and len(content) != expected:
        raise ValueError(f"ended after {len(content):,} of {expected:,} bytes")
    return bytes(content)
