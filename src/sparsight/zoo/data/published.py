"""Files as they are published: downloaded from one of several addresses, and the IDX format of the MNIST family."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException
from io import BufferedReader, BytesIO
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from torch import Tensor

from sparsight.checkpoint.writing import write_atomically

_CHUNK = 1 << 16
_UNSIGNED_BYTE = 0x08
_BLOCK = 1 << 20  # bytes to unpack at a time


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


# -- IDX: magic number, sizes, then one byte per entry; usually inside gzip ----------------------------------------


def read_idx(path: Path, downloaded: bytes | None = None, *, sha256: str | None = None, packed: bool = True) -> Tensor:
    """The uint8 tensor in an IDX file, or in what was `downloaded` for it, gzip-compressed unless `packed` is False.

    Format: two zero bytes, the type (0x08 = unsigned byte, the only one supported), the number of dimensions, each
    dimension as a big-endian uint32, then exactly the entries in row-major order. `sha256` is of the uncompressed
    content. Memory is limited by the actual size of the file. Raises: ValueError for a damaged or wrong file.
    """
    try:
        source = path if downloaded is None else BytesIO(downloaded)
        with gzip.open(source, "rb") if packed else open(path, "rb") as file:
            content = _read_content(file, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or not gzip ({error}): delete it and download it again") from error
    dims = _header(content, path)
    start, count = 4 + 4 * len(dims), math.prod(dims)
    if len(content) != start + count:
        got = f"{len(content) - start}" if len(content) < start + count else f"more than {count}"
        raise ValueError(f"{path} has {got} entries, but its header says {count} ({dims}): download it again")
    digest = hashlib.sha256(content).hexdigest() if sha256 else None
    if digest != sha256:
        raise ValueError(
            f"{path} is the wrong file: its content must have SHA-256 {sha256}, got {digest} (other data sets use the "
            "same file names)"
        )
    if count == 0:
        return torch.empty(dims, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).reshape(dims)


def _header(content: bytearray, path: Path) -> tuple[int, ...]:
    if len(content) < 4:
        raise ValueError(f"{path}: an IDX file has at least 4 bytes, got {len(content)}")
    zero, kind, n_dims = struct.unpack_from(">HBB", content)
    if zero != 0 or kind != _UNSIGNED_BYTE or not 1 <= n_dims <= 4:
        magic = int.from_bytes(content[:4], "big")
        raise ValueError(f"{path}: expected magic number 0x00000801 to 0x00000804 (IDX, bytes), got 0x{magic:08x}")
    if len(content) < 4 + 4 * n_dims:
        raise ValueError(f"{path}: ends inside its header of {n_dims} dimensions")
    return struct.unpack_from(f">{n_dims}I", content, 4)


def _read_content(file: gzip.GzipFile | BufferedReader, path: Path) -> bytearray:
    """The content, up to a chunk past the end that the header gives: a small file cannot unpack to a huge one."""
    content = bytearray(file.read(4 + 4 * 4))
    promised = 4 + 4 * 4 + math.prod(_header(content, path))
    while len(content) <= promised and (chunk := file.read(_BLOCK)):
        content += chunk
    return content
