"""The run folder: the results of a run, and everything needed to resume it.

run.json            the RunRecord
levels.jsonl        a LevelRecord per line, then a line with their checksum; the levels that are done
times.jsonl         a LevelTimes per line, likewise: separate, because levels.jsonl is reproducible
levels/007/         model.safetensors and masks.safetensors (one bit per weight); levels/control/ likewise
rewind.safetensors  the weights that a level may return to
probe.safetensors   the training samples that stopping rules measure on, if they do
state.safetensors   the state of the current level: weights, optimiser, generators; rewritten as it trains
model.safetensors, masks.safetensors   the chosen network
evaluation.json     the Evaluation; next to it rows.json and predictions.safetensors (`records.rows`)
run.lock            held by the one process that writes
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from sparsight.records import files
from sparsight.records import packing as pack
from sparsight.records.files import DamagedFile
from sparsight.records.folder_files import OF_THE_END, REMEDIES, RunFiles, level_folder, normal
from sparsight.records.identity import content_id, run_id
from sparsight.records.journal import LevelResult
from sparsight.records.new_folder import refuse_contents, take
from sparsight.records.record import KEEPS_ALL, Choice, Evaluation, LevelRecord, LevelTimes, RunRecord
from sparsight.types import Masks, StateDict


class RunFolder(RunFiles):
    """A run on disk, made by `create` or `open`. As a context manager it holds the lock of a writer."""

    record: RunRecord  # as in run.json

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        super().__init__(path, writable=lock is not None)
        self._lock = lock
        self._done: tuple[LevelRecord, ...] | None = None  # the contents of levels.jsonl, cached by a writer
        if lock is not None and hasattr(os, "register_at_fork"):
            # A forked worker must not write. (It holds no lock: filelock ensures that.)
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: (folder := this()) and folder.close())

    @classmethod
    def create(cls, path: Path | str, record: RunRecord) -> RunFolder:
        """A new run in `path`, which must be missing or empty. Raises: FileExistsError, LockedRun."""
        files.make_folder(path := Path(path))
        refuse_contents(path)
        folder = cls(path, take(path))
        try:
            files.remove_parts(path)
            refuse_contents(path)  # another process may have come first
            record = normal(RunRecord, record)
            folder._know(record)
            folder._write_levels([])  # from now on, a run without this file is damaged
            folder._write_record(record)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open(cls, path: Path | str, *, write: bool = False) -> RunFolder:
        """The run in `path`. Raises: FileNotFoundError, DamagedFile; LockedRun if `write`."""
        if not files.there((path := Path(path)) / "run.json"):
            raise FileNotFoundError(f"{path} is not a run folder: it has no run.json")
        folder = cls(path, take(path) if write else None)
        try:
            if write:
                files.remove_parts(path)
            folder._know(folder.value("run", RunRecord))
        except BaseException:
            folder.close()
            raise
        return folder

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = self._done = None
            self.writable = False

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    # -- the run -----------------------------------------------------------------------------------------------

    def _know(self, record: RunRecord) -> None:
        self.record, self.run = record, run_id(record)

    def update(self, **changes: Any) -> RunRecord:
        """Change fields of the RunRecord, such as status. Raises: ValueError for fields that identify the run."""
        record = normal(RunRecord, dataclasses.replace(self.record, **changes))
        if run_id(record) != self.run:
            raise ValueError(f"cannot change {sorted(changes)} of {self.path}: that would be another run")
        self._write_record(record)
        return record

    # -- levels ------------------------------------------------------------------------------------------------

    def levels(self) -> tuple[LevelRecord, ...]:
        """The finished levels in order of completion, including the control."""
        done = self.lines("levels", LevelRecord) if self._done is None else self._done
        if self._lock is not None:  # no other process writes
            self._done = done
        return done

    def times(self) -> tuple[LevelTimes, ...]:
        """The times of the finished levels; fewer if times.jsonl was deleted."""
        if not (self.path / "times.jsonl").exists():
            return ()
        done = {(record.level, record.role) for record in self.levels()}
        return tuple(times for times in self.lines("times", LevelTimes) if (times.level, times.role) in done)

    def restore(self, record: LevelRecord) -> tuple[StateDict, Masks]:
        """The weights and masks of a level. Raises: FileNotFoundError, DamagedFile."""
        return self.weights(record), self.masks(record)

    def keep_level(self, result: LevelResult) -> LevelResult:
        """Store a finished level and delete its state; returns the result with `record.files` filled in.

        Writes the files first, then the line in levels.jsonl: if killed in between, the level is written again.
        Raises: ValueError if the level exists, or if `record.id` is not `content_id(weights, masks)`.
        """
        record, weights, masks = result.record, result.weights, result.masks
        done = self.levels()
        if any((other.level, other.role) == (record.level, record.role) for other in done):
            raise ValueError(f"{self.path} already has {record.role} {record.level}")
        found = content_id(weights, masks)
        if record.id != found:
            raise ValueError(f"{record.role} {record.level} has the id {record.id!r}, but its content has {found!r}")
        files.make_folder(self.place(level_folder(record)))
        written = self.write_network(
            f"{level_folder(record)}/", record, weights, masks, as_packed=self.record.keep == "packed"
        )
        if not done and (self.path / "rewind.safetensors").exists():  # from now on, a run without it is damaged
            written["rewind.safetensors"] = self.stored_rewind()[1]
        record = normal(LevelRecord, dataclasses.replace(record, files=written))
        self.write_lines("times", [*self.times(), normal(LevelTimes, result.times)])
        self._write_levels([*done, record])
        self.clear_progress()
        return dataclasses.replace(result, record=record)

    def weights(self, record: LevelRecord) -> dict[str, Tensor]:
        """The weights of a level. Raises: FileNotFoundError if `keep` did not keep them; DamagedFile."""
        relative = f"{level_folder(record)}/model.safetensors"
        if not (self.path / relative).exists() and not self.must_have(record):
            if self.keeps(record):  # as the chosen network
                return self.network("", record)[0]
            lost = f"the weights of {record.role} {record.level} were not kept in {self.path}"
            raise FileNotFoundError(f"{lost} (keep={self.record.keep!r}): run it again with keep='all'")
        return self.part(relative, "model", record)[0]

    def keeps(self, record: LevelRecord) -> bool:
        """Whether the folder should hold the weights of a level."""
        chosen = self.record.chosen
        return self.must_have(record) or (chosen is not None and chosen.id == record.id)

    def masks(self, record: LevelRecord) -> dict[str, Tensor]:
        """The masks of a level, which are always kept. Raises: DamagedFile."""
        return self.masks_in(f"{level_folder(record)}/masks.safetensors", record)

    def drop_levels(self, keep: int) -> None:
        """Delete all but the first `keep` levels of `levels()`, and everything based on them, to train them again."""
        done = self.levels()
        if not 0 <= keep <= len(done):
            raise ValueError(f"cannot keep {keep} of {len(done)} levels")
        for record in done[:keep]:
            if not (self.path / level_folder(record) / "model.safetensors").exists():
                lost = f"the weights of {record.role} {record.level}, which later levels need, are missing"
                raise ValueError(f"cannot keep {keep} levels of {self.path}: {lost}; keep fewer")
        self.update(chosen=None, status="interrupted", ended=None, why_ended=None)
        for name in OF_THE_END:
            files.remove(self.place(name))
        self._write_levels(done[:keep])
        for record in done[keep:]:
            shutil.rmtree(self.place(level_folder(record)), ignore_errors=True)

    # -- resuming ----------------------------------------------------------------------------------------------

    def keep_progress(self, state: Mapping[str, Any]) -> None:
        """Replace the state of the current level: nested values accepted by `pack.pack_state`."""
        found, skeleton = pack.pack_state(state)
        self.write_only("state", found, levels=len(self.levels()), skeleton=skeleton)

    def progress(self) -> Any:
        """The last state stored in the current level, on the CPU; None without one. Raises: DamagedFile."""
        path = self.path / "state.safetensors"
        if not path.exists():
            return None
        found, facts, _ = self.only("state")
        if facts.get("levels") != len(self.levels()):  # killed between the end of a level and the removal of its state
            return None
        with files.reading(path, REMEDIES[path.name]):
            return pack.unpack_state(found, facts["skeleton"])

    def clear_progress(self) -> None:
        """Delete the state of the current level."""
        files.try_remove(self.place("state.safetensors"))

    def rewind_point(self) -> dict[str, Tensor] | None:
        """The weights that a level may return to; None without any. Raises: DamagedFile."""
        return self.stored_rewind(self.rewind_digest())[0] if self.has_rewind_point() else None

    def rewind_digest(self) -> str | None:
        """The digest of the rewind point, once a level is done."""
        done = self.levels()
        return done[0].files.get("rewind.safetensors") if done else None

    def has_rewind_point(self) -> bool:
        """Whether the folder holds, or should hold, the rewind point."""
        discarded = self.record.status == "finished" and self.record.keep not in KEEPS_ALL
        return (self.path / "rewind.safetensors").exists() or not (discarded or self.rewind_digest() is None)

    # -- the end -----------------------------------------------------------------------------------------------

    def save_chosen(self, record: LevelRecord, why: str, missed: str | None = None) -> None:
        """Choose a level: write its weights and masks at the top of the folder, and the choice to run.json."""
        weights, masks = self.weights(record), self.masks(record)
        if self.record.chosen is not None and self.record.chosen.id != record.id:
            self.update(chosen=None)  # it must always match the stored network
        self.write_network("", record, weights, masks)
        self.update(chosen=Choice(record.level, record.id, why, missed))

    def chosen(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights and masks of the chosen network. Raises: ValueError without a choice; DamagedFile."""
        choice = self.record.chosen
        if choice is None:
            raise ValueError(f"no level of {self.path} has been chosen yet")
        for record in self.levels():
            if record.id == choice.id:
                return self.network("", record)
        what = f"it lacks the level {choice.id!r} that run.json chose"
        raise DamagedFile(self.path / "levels.jsonl", what, REMEDIES["levels.jsonl"])

    def save_evaluation(self, evaluation: Evaluation) -> None:
        """Store the results on the test split."""
        self.write_value("evaluation", evaluation)

    def evaluation(self) -> Evaluation | None:
        """The results on the test split; None before the evaluation. Raises: DamagedFile."""
        return self.value("evaluation", Evaluation) if (self.path / "evaluation.json").exists() else None

    def discard(self) -> None:
        """Delete the weights that `keep` does not keep; masks and records stay.

        Reads the chosen network first, and deletes nothing if it is damaged. Raises: ValueError unless the run is
        finished, and with keep="chosen" a level is chosen; DamagedFile.
        """
        if self.record.status != "finished":
            raise ValueError(f"cannot discard weights of {self.path}: the run is {self.record.status}")
        self.clear_progress()
        if self.record.keep in KEEPS_ALL:
            return
        if self.record.keep == "chosen" or self.record.chosen is not None:
            self.chosen()
        for record in self.levels():
            if not self.must_have(record):
                files.try_remove(self.place(f"{level_folder(record)}/model.safetensors"))
        files.try_remove(self.place("rewind.safetensors"))

    # -- inside ------------------------------------------------------------------------------------------------

    def must_have(self, record: LevelRecord) -> bool:
        """Whether the level's own folder must hold its weights."""
        if self.record.status != "finished" or self.record.keep in KEEPS_ALL:
            return True
        if self.record.keep != "last":
            return False
        levels = [other for other in self.levels() if other.role == "level"]
        # Not `levels[-1] == record`: a record with a NaN does not equal itself when read again.
        return bool(levels) and levels[-1].level == record.level

    def _write_record(self, record: RunRecord) -> None:
        self.write_value("run", record)
        self._know(record)

    def _write_levels(self, records: Sequence[LevelRecord]) -> None:
        self._done = None  # if this fails, the file must be read again
        self.write_lines("levels", records)
        self._done = tuple(records)
