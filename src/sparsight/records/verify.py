"""Whether the files of a run folder are those that its records speak of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from sparsight.records.files import DamagedFile, there
from sparsight.records.folder import RunFolder
from sparsight.records.folder_files import Reader, RunFiles, level_folder
from sparsight.records.identity import run_id
from sparsight.records.record import LevelRecord
from sparsight.records.tensors import read_facts, read_tensors


def verify_run(path: Path | str) -> tuple[DamagedFile, ...]:
    """The damaged files of the run in `path`, finished or not: () if every file holds what was written.

    Every byte of records, weights, masks and state is read and compared with its checksum, and with the run and the
    level that it should be of. Two files are not the run's: report.html, which is made of the records again, and
    run.lock. FileNotFoundError if there is no run; OSError for a file that may not be read.
    """
    try:
        with RunFolder.open(Path(path)) as folder:
            return tuple(_damaged(folder, read_tensors))
    except DamagedFile as error:
        return (error,)


def whole(path: Path) -> RunFolder:
    """The run in `path`, for reading, if no file of it is missing, cut short, or of another run or level.

    Records are read; of tensors the headers and the sizes alone, so that it takes no time. FileNotFoundError if there
    is no run; DamagedFile for the first file that is damaged so.
    """
    folder = RunFolder.open(path)
    check_whole(folder)
    return folder


def check_whole(folder: RunFolder) -> None:
    """DamagedFile for the first file of an open run that is damaged as `whole` tells."""
    found = next(_damaged(folder, read_facts), None)
    if found is None:
        return
    now = RunFolder.open(folder.path)
    if now.record.status == folder.record.status and len(now.levels()) == len(folder.levels()):
        raise found
    check_whole(now)  # another process has gone on with it meanwhile


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
        yield partial(files.rewind, folder.rewind_digest())
    for kind in ("state", "probe"):
        if there(folder.path / f"{kind}.safetensors"):
            yield partial(files.only, kind)
