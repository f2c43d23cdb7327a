"""Files that are whole or refused: atomic writes, and checksummed JSON. Nothing is pickled.

A file is written beside its place, flushed to the disk and renamed: a reader finds the old one or the new one,
whatever happens in between. Every file carries a schema version and the SHA-256 of what it holds.
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
"""Version of the envelopes below (not of the records inside). A reader refuses one that it does not know."""

_MOST_SAID = 500
LONGEST = 1 << 30
"""Bytes of JSON beyond which a record is refused: no run writes that many."""


class DamagedFile(ValueError):
    """A file that is not what was written: which one, what is wrong with it in 500 characters, and what to do."""

    def __init__(self, path: Path, what: str, remedy: str = "restore it from a copy") -> None:
        if len(what) > _MOST_SAID:  # values from files are as long as they like
            what = f"{what[:_MOST_SAID]}…"
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.what}. What to do: {self.remedy}"


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """A block in which what does not fit makes a DamagedFile of `path`."""
    try:
        yield
    except DamagedFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedFile(path, str(error), remedy) from error
    except (MemoryError, RecursionError) as error:
        raise DamagedFile(path, "it asks for more memory than there is", remedy) from error


# -- writing ---------------------------------------------------------------------------------------------------


def appending(path: Path) -> BinaryIO:
    """A file to append to, made if missing, never reached through a link. OSError, naming it, for what is no file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EEXIST, "it is no regular file")
        return os.fdopen(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        refuse_write(path, error, "try again")


def make_folder(folder: Path) -> None:
    """Make `folder` and what lies above it, where missing. OSError names the folder."""
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
    """Remove a file if it is there. OSError names it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        refuse_write(path, error)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half written in `folder` and below."""
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
    """The fields that `seal` was given. ValueError if the schema is unknown or a value has changed."""
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
        raise ValueError("checksum: its values are not those that were written")
    return fields


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write one sealed JSON object atomically, indented for reading."""
    write_atomically(path, [json.dumps(seal(fields), indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"])


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The fields that `write_json` wrote; DamagedFile if not exactly those."""
    with reading(path, remedy):
        return unseal(parse_json(read_text(path, remedy)))


def write_lines(path: Path, lines: Sequence[str], fields: Mapping[str, Any]) -> None:
    """Write lines of JSON atomically, and a last line that seals them: `fields`, their number and checksum."""
    body = "".join(f"{line}\n" for line in lines)
    last = seal({**fields, "lines": len(lines), "lines_sha256": _sha256(body)})
    write_atomically(path, [body.encode(), canonical(last).encode(), b"\n"])


def read_lines(path: Path, remedy: str) -> tuple[list[str], dict[str, Any]]:
    """The lines and fields that `write_lines` wrote; DamagedFile if not exactly those."""
    *lines, last = read_text(path, remedy).removesuffix("\n").split("\n")
    with reading(path, remedy):
        fields = unseal(parse_json(last))
        if fields.pop("lines", None) != len(lines):
            raise ValueError(f"it has {len(lines)} lines, not as many as were written")
        if fields.pop("lines_sha256", None) != _sha256("".join(f"{line}\n" for line in lines)):
            raise ValueError("checksum: its lines are not those that were written")
    return lines, fields


def there(path: Path) -> bool:
    """Whether there is something at `path`; False too for a name that cannot be one."""
    return os.path.exists(path)


def check_there(path: Path, remedy: str) -> None:
    """DamagedFile where there is no regular file; an OSError that names it where it may not be read.

    A FIFO, which would wait for a writer, and a device, which may have no end, are refused without a read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise DamagedFile(path, "it is no regular file", remedy)
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedFile(path, "there is no such file", remedy) from error


def read_text(path: Path, remedy: str) -> str:
    """The text of a record, to its last line's end; DamagedFile for anything else."""
    check_there(path, remedy)
    try:
        with path.open("rb") as file:
            found = file.read(LONGEST + 1)
        text = found.decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(path, "not JSON: not even text", remedy) from error
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror or error})", remedy) from error
    if len(found) > LONGEST:
        raise DamagedFile(path, f"it has more than {LONGEST:,} bytes, which no record has", remedy)
    if not text.endswith("\n"):
        raise DamagedFile(path, "truncated: its last line has no end", remedy)
    return text


def parse_json(text: str) -> Any:
    """The values that JSON text spells. ValueError for anything else, NaN and nesting without end among it."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"not JSON: {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
