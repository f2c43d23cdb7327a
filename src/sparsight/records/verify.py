"""Checks the files of a run folder against its records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from sparsight.records.files import DamagedFile, there
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import Reader, RunFiles, level_folder
from sparsight.records.identity import run_id
from sparsight.records.record import LevelRecord
from sparsight.records.rows import stored_rows
from sparsight.records.tensors import read_facts, read_tensors

_TRIES = 10
"""How often to look again at a run that another process is writing."""


def verify_run(path: Path | str) -> tuple[DamagedFile, ...]:
    """The damaged files of the run in `path`, finished or not; () if all are intact.

    Reads every byte of records, weights, masks and state, and checks checksum, run and level. Ignores report.html,
    which can be rewritten, and run.lock. Raises: FileNotFoundError if it is not a run; OSError for an unreadable file.
    """
    try:
        with RunFolder.open(Path(path)) as folder:
            return _settled(folder, read_tensors)
    except DamagedFile as error:
        return (error,)


def whole(path: Path) -> RunFolder:
    """The run in `path`, for reading, after a quick check: records, and headers and sizes of tensor files.

    Raises: FileNotFoundError if it is not a run; DamagedFile for a file that is missing, cut, or of another run.
    """
    folder = RunFolder.open(path)
    check_whole(folder)
    return folder


def check_whole(folder: RunFolder) -> None:
    """Raise DamagedFile for the first damaged file of an open run, by the check of `whole`."""
    for damage in _settled(folder, read_facts):
        raise damage


def _settled(folder: RunFolder, read: Reader) -> tuple[DamagedFile, ...]:
    """The damaged files of a run, ignoring those that another process has just changed."""
    found: tuple[DamagedFile, ...] = ()
    for _ in range(_TRIES):
        before, at = _stamps(folder.path), _reached(folder)
        found = tuple(_damaged(folder, read))
        after, folder = _stamps(folder.path), RunFolder.open(folder.path)
        if at == _reached(folder) and all(before.get(each.path) == after.get(each.path) for each in found):
            break
    return found


def _reached(folder: RunFolder) -> tuple[str, int | None]:
    """The status of a run, and its number of finished levels if that can be read."""
    try:
        return folder.record.status, len(folder.levels())
    except DamagedFile:
        return folder.record.status, None


def _stamps(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Inode, modification time and size of each file in a folder."""
    found = {}
    for file in path.rglob("*"):
        with suppress(OSError):  # deleted meanwhile
            about = os.lstat(file)
            found[file] = (about.st_ino, about.st_mtime_ns, about.st_size)
    return found


def _damaged(folder: RunFolder, read: Reader) -> Iterator[DamagedFile]:
    files = RunFiles(folder.path, writable=False, read=read)
    files.run = run_id(folder.record)
    try:
        levels = folder.levels()
    except DamagedFile as error:
        yield error
        return
    for look in _looks(folder, files, levels):
        try:
            look()
        except DamagedFile as error:
            yield error


def _looks(folder: RunFolder, files: RunFiles, levels: tuple[LevelRecord, ...]) -> Iterator[Callable[[], object]]:
    yield folder.times
    yield folder.evaluation
    yield partial(stored_rows, folder)
    chosen = folder.record.chosen
    for record in levels:
        prefixes = [f"{level_folder(record)}/"]
        if chosen is not None and chosen.id == record.id:
            prefixes.append("")
        for prefix in prefixes:
            model = f"{prefix}model.safetensors"
            if not prefix or folder.must_have(record) or there(folder.path / model):
                yield partial(files.part, model, "model", record)
            yield partial(files.part, f"{prefix}masks.safetensors", "masks", record)
    if chosen is not None and chosen.id not in {record.id for record in levels}:
        yield folder.chosen
    if folder.has_rewind_point():
        yield partial(files.stored_rewind, folder.rewind_digest())
    for kind in ("state", "probe", "predictions"):
        if there(folder.path / f"{kind}.safetensors"):
            yield partial(files.only, kind)
