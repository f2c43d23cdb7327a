"""The files of a run folder: each says what it is, of which run, and of which level."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from sparsight.records import files
from sparsight.records import packing as pack
from sparsight.records.files import DamagedFile
from sparsight.records.identity import content_id
from sparsight.records.record import LevelRecord, dumps, from_json
from sparsight.types import Masks, StateDict

T = TypeVar("T")

REMEDIES = {
    "run.json": "restore it from a copy; without it the run cannot go on, start it again in a new folder",
    "levels.jsonl": "restore it from a copy; without it the run cannot go on, start it again in a new folder",
    "times.jsonl": "delete it; only the seconds of the levels are lost",
    "evaluation.json": "delete it and evaluate the run again",
    "state.safetensors": "delete it; the run then resumes at the start of the level",
    "probe.safetensors": "delete it; the same samples are drawn again",
    "rewind.safetensors": "restore it from a copy; without it the run cannot go on, start it again in a new folder",
}


class RunFiles:
    """Reads and writes them. What is read must belong to the run `run`, which is known once run.json is."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path, self.writable = path, writable
        self.run = ""

    def place(self, relative: str) -> Path:
        if not self.writable:
            raise RuntimeError(f"cannot write {relative} in {self.path}: it is not open for writing (write=True)")
        return self.path / relative

    def about(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "run": self.run}

    def check(self, path: Path, fields: Mapping[str, Any], kind: str, remedy: str) -> None:
        if fields.get("kind") != kind:
            raise DamagedFile(path, f"it is another file: got {fields.get('kind')!r}, allowed is {kind!r}", remedy)
        if fields.get("run") != self.run:
            raise DamagedFile(path, "it belongs to another run than run.json", remedy)

    def lines(self, kind: str, of: type[T]) -> tuple[T, ...]:
        """The records of levels.jsonl or times.jsonl."""
        path = self.path / f"{kind}.jsonl"
        remedy = REMEDIES[path.name]
        lines, fields = files.read_lines(path, remedy)
        self.check(path, fields, kind, remedy)
        try:
            values = [files.parse_json(line) for line in lines]
        except ValueError as error:
            raise DamagedFile(path, str(error), remedy) from error
        return tuple(parse(of, value, path, remedy) for value in values)

    def write_lines(self, kind: str, records: Sequence[Any]) -> None:
        files.write_lines(self.place(f"{kind}.jsonl"), [dumps(record) for record in records], self.about(kind))

    def write_network(self, prefix: str, record: LevelRecord, weights: StateDict, masks: Masks) -> dict[str, str]:
        """Write weights and masks below `prefix`; the digest of each file by its relative path."""
        packed, shapes = pack.pack_masks(masks)
        about = {"level": record.level, "role": record.role, "id": record.id}
        model, mask = f"{prefix}model.safetensors", f"{prefix}masks.safetensors"
        return {
            model: files.write_tensors(self.place(model), weights, {**self.about("model"), **about}),
            mask: files.write_tensors(self.place(mask), packed, {**self.about("masks"), **about, "shapes": shapes}),
        }

    def network(self, prefix: str, record: LevelRecord) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weights and masks below `prefix`, which must be those of the record."""
        weights, _ = self.part(f"{prefix}model.safetensors", "model", record)
        masks = self.masks(f"{prefix}masks.safetensors", record)
        if content_id(weights, masks) != record.id:
            what = f"its tensors are not those of {record.role} {record.level}"
            remedy = self._remedy(f"{prefix}model.safetensors", record)
            raise DamagedFile(self.path / f"{prefix}model.safetensors", what, remedy)
        return weights, masks

    def masks(self, relative: str, record: LevelRecord) -> dict[str, Tensor]:
        packed, facts = self.part(relative, "masks", record)
        try:
            return pack.unpack_masks(packed, facts["shapes"])
        except (ValueError, KeyError) as error:
            raise DamagedFile(self.path / relative, str(error), self._remedy(relative, record)) from error

    def part(self, relative: str, kind: str, record: LevelRecord) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A file of the record's network: of this run, this level and this content."""
        remedy, path = self._remedy(relative, record), self.path / relative
        tensors, facts, digest = self.tensors(relative, kind, remedy)
        if facts.get("id") != record.id:
            what = f"it is of another level: got id {facts.get('id')!r:.80}, allowed is {record.id!r}"
            raise DamagedFile(path, what, remedy)
        stored = record.files.get(f"{level_folder(record)}/{path.name}")
        if stored is not None and digest != stored:
            raise DamagedFile(path, f"its tensors have another checksum than levels.jsonl says ({stored})", remedy)
        return tensors, facts

    def tensors(self, relative: str, kind: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
        path = self.path / relative
        tensors, facts, digest = files.read_digested(path, remedy)
        self.check(path, facts, kind, remedy)
        return tensors, facts, digest

    def _remedy(self, relative: str, record: LevelRecord) -> str:
        """What to do about a damaged file of the record's network."""
        own = f"{level_folder(record)}/{relative}"
        if "/" not in relative and (self.path / own).exists():
            return f"copy {own} over it"
        return _remedy_of(record)


def normal(kind: type[T], record: T) -> T:
    """The record as it will be read again: lists where tuples were given, and the like, do not survive JSON."""
    return from_json(kind, json.loads(dumps(record)), kind.__name__)


def parse(kind: type[T], value: Any, path: Path, remedy: str) -> T:
    try:
        return from_json(kind, value, path.name)
    except (ValueError, TypeError) as error:
        raise DamagedFile(path, str(error), remedy) from error


def level_folder(record: LevelRecord) -> str:
    return "levels/control" if record.role == "control" else f"levels/{record.level:03d}"


def _remedy_of(record: LevelRecord) -> str:
    again = "RunFolder.open(path, write=True).drop_levels(n)"
    if record.role == "control":
        return f"restore it from a copy, or forget the control by {again}, n levels before it, and resume the run"
    n = record.level
    return f"restore it from a copy, or forget the levels from {n} on by {again.replace('(n)', f'({n})')} and resume"
