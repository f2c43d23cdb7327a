"""Files that are whole or refused: atomic writes, and checksummed safetensors and JSON. Nothing is pickled.

A file is written beside its place, flushed to the disk and renamed: a reader finds the old one or the new one,
whatever happens in between. Every file carries a schema version and the SHA-256 of what it holds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SCHEMA = 1
"""Version of the envelopes below (not of the records inside). A reader refuses one that it does not know."""

_SUFFIX = ".part"  # of files that are being written

_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EACCES)  # of file systems that cannot do it

_DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.int32: "I32",
    torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32",
    torch.float64: "F64", torch.complex64: "C64",
}  # fmt: skip


class DamagedFile(ValueError):
    """A file that is not what was written: which one, what is wrong with it, and what to do."""

    def __init__(self, path: Path, what: str, remedy: str = "restore it from a copy") -> None:
        super().__init__(path, what, remedy)
        self.path, self.what, self.remedy = path, what, remedy

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.what}. What to do: {self.remedy}"


# -- writing ---------------------------------------------------------------------------------------------------


def write_atomically(path: Path, chunks: Iterable[Any]) -> None:
    """Write the buffers `chunks` as the file `path`: afterwards it holds all of them, or what it held before.

    OSError (full disk, no permission) names the file and says that nothing stored before is lost.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{_SUFFIX}")
    try:
        try:
            with open(part, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:  # Ctrl-C too
            try_remove(part)
            raise
        sync_folder(path.parent)
    except OSError as error:
        refuse_write(path, error)


def refuse_write(path: Path, error: OSError) -> NoReturn:
    """The same error, saying what could not be written and that the run goes on from what is there."""
    remedy = "make room (or give permission) and resume the run"
    if error.errno in _IN_THE_WAY:
        remedy = "move away what is in its place, or take another folder"
    what = f"cannot write {path}: {error.strerror or error}; what was stored before is intact: {remedy}"
    raise OSError(error.errno, what) from error


def sync_folder(folder: Path) -> None:
    """Make renames, new names and removals in `folder` last through a power cut."""
    if os.name == "nt":  # folders cannot be opened there
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


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


def try_remove(path: Path) -> None:
    """Remove a file if it is there and may be removed; it must do no harm where it stays."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half written in `folder` and below."""
    for part in folder.rglob(f".*{_SUFFIX}"):
        try_remove(part)


# -- tensors ---------------------------------------------------------------------------------------------------


def can_store(tensor: Tensor) -> bool:
    """Whether `write_tensors` takes the tensor: dense, with values, of a type that safetensors knows."""
    return tensor.dtype in _DTYPES and tensor.layout == torch.strided and not tensor.is_meta


def _plain(name: str, tensor: Tensor) -> Tensor:
    """The tensor in the CPU's memory, row-major; without a copy where it lies so already."""
    if name == "__metadata__":
        raise ValueError("cannot store a tensor named '__metadata__': safetensors keeps that name for itself")
    if not can_store(tensor):
        got = f"{tensor.dtype}, {tensor.layout} on {tensor.device}"
        raise ValueError(f"cannot store tensor {name!r}: got {got}; allowed are dense {sorted(_DTYPES.values())}")
    if sys.byteorder != "little":
        raise NotImplementedError("sparsight writes tensors on little-endian machines only")
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _bytes(tensor: Tensor) -> Any:
    """The memory of a plain tensor, as a buffer; no copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _own(tensor: Tensor) -> Tensor:
    """A copy of the very bytes: `clone` would turn a bool that is neither 0 nor 1 into 1, and hide the damage."""
    return tensor.reshape(-1).view(torch.uint8).clone().view(tensor.dtype).reshape(tensor.shape)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, as hexadecimal: equal exactly for equal names, types, shapes and bits.

    Over the names in sorted order: one line of JSON [name, type, shape], then the elements in row-major order,
    little-endian. Device, memory format, sharing and the order of the mapping do not count; -0.0 and +0.0
    differ, and so do NaNs of different bits. ValueError for a tensor that is not dense or of an unknown type.
    """
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = _plain(name, tensors[name])
        sha.update(f"{json.dumps([name, _DTYPES[tensor.dtype], list(tensor.shape)])}\n".encode())
        sha.update(_bytes(tensor))
    return sha.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write a safetensors file atomically; returns `tensors_digest(tensors)`.

    `facts` are JSON values, kept with their own checksum in the header's metadata. Tensors that share memory
    are written once per name, so the file loads into a plain model with tied weights. The order of the
    mapping (parameter order decides ties) comes back.
    """
    digest = tensors_digest(tensors)
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "sparsight_schema": str(SCHEMA),
            "sha256": digest,
            "facts": _canonical(seal({**facts, "order": list(tensors)})),
        }
    }
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps elements aligned
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def chunks() -> Iterator[Any]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            yield _bytes(_plain(name, tensors[name]))

    write_atomically(path, chunks())
    return digest


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (in memory of their own) and facts that `write_tensors` wrote; DamagedFile if not exactly those."""
    return read_digested(path, remedy)[:2]


def read_digested(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """`read_tensors`, and the digest of the tensors, which has been checked."""
    _check_there(path, remedy)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: _own(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise DamagedFile(path, f"not a whole safetensors file ({error})", remedy) from error
    if metadata.get("sparsight_schema") != str(SCHEMA):
        got = metadata.get("sparsight_schema")
        raise DamagedFile(path, f"unknown schema: got {got!r:.80}, allowed is '{SCHEMA}'", remedy)
    if set(metadata) != {"format", "sparsight_schema", "sha256", "facts"} or metadata["format"] != "pt":
        raise DamagedFile(path, f"unknown metadata: got {sorted(metadata)!s:.80}", remedy)
    try:
        digest = tensors_digest(tensors)
        facts = unseal(parse_json(metadata["facts"]))
    except ValueError as error:
        raise DamagedFile(path, str(error), remedy) from error
    if digest != metadata["sha256"]:
        raise DamagedFile(path, f"checksum: its tensors have {digest}, not {metadata['sha256']:.80}", remedy)
    order = facts.pop("order", None)
    if not isinstance(order, list) or not all(isinstance(n, str) for n in order) or sorted(order) != sorted(tensors):
        raise DamagedFile(path, f"its order of tensors, {order!r:.80}, is not of those that it holds", remedy)
    return {name: tensors[name] for name in order}, facts, digest


# -- JSON ------------------------------------------------------------------------------------------------------


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` with a schema version and the SHA-256 of their canonical JSON (sorted keys, no spaces)."""
    sealed = {**fields, "schema": SCHEMA}
    return {**sealed, "sha256": _sha256(_canonical(sealed))}


def unseal(value: Any) -> dict[str, Any]:
    """The fields that `seal` was given. ValueError if the schema is unknown or a value has changed."""
    if not isinstance(value, dict):
        raise ValueError(f"got {type(value).__name__}, allowed is a JSON object")
    if value.get("schema") != SCHEMA:
        raise ValueError(f"unknown schema: got {value.get('schema')!r:.80}, allowed is {SCHEMA}")
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
    text = _text(path, remedy)
    try:
        return unseal(parse_json(text))
    except ValueError as error:
        raise DamagedFile(path, str(error), remedy) from error


def write_lines(path: Path, lines: Sequence[str], fields: Mapping[str, Any]) -> None:
    """Write lines of JSON atomically, and a last line that seals them: `fields`, their number and checksum."""
    body = "".join(f"{line}\n" for line in lines)
    last = seal({**fields, "lines": len(lines), "lines_sha256": _sha256(body)})
    write_atomically(path, [body.encode(), _canonical(last).encode(), b"\n"])


def read_lines(path: Path, remedy: str) -> tuple[list[str], dict[str, Any]]:
    """The lines and fields that `write_lines` wrote; DamagedFile if not exactly those."""
    *lines, last = _text(path, remedy).removesuffix("\n").split("\n")
    try:
        fields = unseal(parse_json(last))
        if fields.pop("lines", None) != len(lines):
            raise ValueError(f"it has {len(lines)} lines, not as many as were written")
        if fields.pop("lines_sha256", None) != _sha256("".join(f"{line}\n" for line in lines)):
            raise ValueError("checksum: its lines are not those that were written")
    except ValueError as error:
        raise DamagedFile(path, str(error), remedy) from error
    return lines, fields


def _check_there(path: Path, remedy: str) -> None:
    """DamagedFile where there is no file; an OSError that names it where it may not be read."""
    try:
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedFile(path, "there is no such file", remedy) from error


def _text(path: Path, remedy: str) -> str:
    _check_there(path, remedy)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise DamagedFile(path, "not JSON: not even text", remedy) from error
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror or error})", remedy) from error
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
