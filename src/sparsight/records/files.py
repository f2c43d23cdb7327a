"""Checksummed JSON files, written atomically, without pickle.

Each file is written next to its place, flushed and renamed. It holds a schema version and the SHA-256 of its contents.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from sparsight.checkpoint.writing import PART, refuse_write, sync_folder, try_remove, write_atomically

SCHEMA = 1
"""Version of the envelopes below, not of the records inside. Readers refuse unknown versions."""

_LONGEST_MESSAGE = 500
LONGEST = 1 << 30
"""Readers refuse larger JSON files, in bytes."""


class DamagedFile(ValueError):
    """A damaged file: its path, what is wrong (at most 500 characters), and what to do."""

    def __init__(self, path: Path, what: str, remedy: str = "restore it from a copy") -> None:
        if len(what) > _LONGEST_MESSAGE:  # it may quote values of any length
            what = f"{what[:_LONGEST_MESSAGE]}…"
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.what}. What to do: {self.remedy}"


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn errors of reading `path` into DamagedFile."""
    try:
        yield
    except DamagedFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedFile(path, str(error), remedy) from error
    except (MemoryError, RecursionError) as error:
        raise DamagedFile(path, "it needs more memory than is available", remedy) from error


# -- writing ---------------------------------------------------------------------------------------------------


def appending(path: Path) -> BinaryIO:
    """Open a file for appending, or create it. Raises: OSError for a link or anything but a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EEXIST, "it is not a regular file")
        return os.fdopen(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        refuse_write(path, error, "try again")


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents. Raises: OSError, with the folder."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        refuse_write(folder, error)


def remove(path: Path) -> None:
    """Remove a file if it exists. Raises: OSError, with its path."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        refuse_write(path, error)


def remove_parts(folder: Path) -> None:
    """Remove the partial files that killed processes left in `folder` and below."""
    for part in folder.rglob(f".*{PART}"):
        try_remove(part)


# -- JSON ------------------------------------------------------------------------------------------------------


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with a schema version and the SHA-256 of their canonical JSON (sorted keys, no spaces)."""
    sealed = {**fields, "schema": SCHEMA}
    return {**sealed, "sha256": _sha256(canonical(sealed))}


def unseal(value: Any) -> dict[str, Any]:
    """The fields passed to `seal`. Raises: ValueError if the schema is unknown or a value has changed."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    if value.get("schema") != SCHEMA:
        raise ValueError(f"unknown schema {value.get('schema')!r:.80}, expected {SCHEMA}")
    fields = {key: item for key, item in value.items() if key not in ("schema", "sha256")}
    try:
        same = seal(fields) == value
    except RecursionError as error:
        raise ValueError("not JSON: it is nested too deep") from error
    if not same:
        raise ValueError("its values do not match their checksum")
    return fields


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write one sealed JSON object atomically, indented for reading."""
    write_atomically(path, [json.dumps(seal(fields), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"])


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The fields written by `write_json`. Raises: DamagedFile."""
    with reading(path, remedy):
        return unseal(parse_json(read_text(path, remedy)))


def write_lines(path: Path, lines: Sequence[str], fields: Mapping[str, Any]) -> None:
    """Write lines of JSON atomically, and a last line with `fields`, their number and their checksum."""
    body = "".join(f"{line}\n" for line in lines)
    last = seal({**fields, "lines": len(lines), "lines_sha256": _sha256(body)})
    write_atomically(path, [body.encode(), canonical(last).encode(), b"\n"])


def read_lines(path: Path, remedy: str) -> tuple[list[str], dict[str, Any]]:
    """The lines and fields written by `write_lines`. Raises: DamagedFile."""
    *lines, last = read_text(path, remedy).removesuffix("\n").split("\n")
    with reading(path, remedy):
        fields = unseal(parse_json(last))
        if fields.pop("lines", None) != len(lines):
            raise ValueError(f"it has {len(lines)} lines, a different number than was written")
        if fields.pop("lines_sha256", None) != _sha256("".join(f"{line}\n" for line in lines)):
            raise ValueError("its lines do not match their checksum")
    return lines, fields


def there(path: Path) -> bool:
    """Whether `path` exists; False for an impossible name."""
    return os.path.exists(path)


def check_there(path: Path, remedy: str) -> None:
    """Raise DamagedFile unless `path` is a regular file, and OSError if it cannot be read.

    Refuses a FIFO, which would wait for a writer, and a device, which may never end, without reading.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise DamagedFile(path, "it is not a regular file", remedy)
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedFile(path, "the file is missing", remedy) from error


def read_text(path: Path, remedy: str) -> str:
    """The text of a record file. Raises: DamagedFile, also if its last line is cut."""
    check_there(path, remedy)
    try:
        with path.open("rb") as file:
            found = file.read(LONGEST + 1)
        text = found.decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(path, "it is not text", remedy) from error
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror or error})", remedy) from error
    if len(found) > LONGEST:
        raise DamagedFile(path, f"it has more than {LONGEST:,} bytes", remedy)
    if not text.endswith("\n"):
        raise DamagedFile(path, "truncated: its last line is incomplete", remedy)
    return text


def parse_json(text: str) -> Any:
    """The values of JSON text. Raises: ValueError, also for NaN and excessive nesting."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"not JSON: {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
