"""The files of a run folder. Each holds its kind, its run (except run.json), and a network's also its level."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparsight.measure.flow import Probe
from sparsight.records import files, tensors
from sparsight.records import packing as pack
from sparsight.records.files import DamagedFile, reading
from sparsight.records.identity import content_id
from sparsight.records.record import LevelRecord, dumps, from_json, to_json
from sparsight.types import Masks, StateDict

T = TypeVar("T")

Reader = Callable[[Path, str], tuple[dict[str, Tensor], dict[str, Any], str]]
"""`read_tensors`, or `read_facts` to look at headers alone."""

REMEDIES = {
    "run.json": "restore it from a copy, or start the run again in a new folder",
    "levels.jsonl": "restore it from a copy, or start the run again in a new folder",
    "times.jsonl": "delete it; only the seconds of the levels are lost",
    "evaluation.json": "delete it and evaluate the run again",
    "rows.json": "delete it and run sparsight evaluate again",
    "predictions.safetensors": "delete it and rows.json, and run sparsight evaluate again",
    "state.safetensors": "delete it; the run then resumes at the start of the level",
    "probe.safetensors": "delete it; the same samples are drawn again",
    "rewind.safetensors": "restore it from a copy, or start the run again in a new folder",
}

_TENSORS = ("predictions", "model", "masks", "state")
OF_THE_END = ("evaluation.json", "rows.json", *(f"{name}.safetensors" for name in _TENSORS))
"""What follows from the last levels."""


class RunFiles:
    """Reads and writes the files of the run with the id `run`, which is set once run.json is read."""

    run: str | None = None

    def __init__(self, path: Path, *, writable: bool, read: Reader = tensors.read_tensors) -> None:
        self.path, self.writable, self._read = path, writable, read

    def place(self, relative: str) -> Path:
        if not self.writable:
            raise RuntimeError(f"cannot write {relative} in {self.path}: open the folder with write=True")
        return self.path / relative

    def about(self, kind: str) -> dict[str, Any]:
        return {"kind": kind} if kind == "run" else {"kind": kind, "run": self.run}

    def _check(self, path: Path, fields: Mapping[str, Any], kind: str, remedy: str) -> None:
        if fields.get("kind") != kind:
            raise DamagedFile(path, f"expected a file of kind {kind!r}, got {fields.get('kind')!r}", remedy)
        if fields.get("run") != self.about(kind).get("run"):
            raise DamagedFile(path, "it belongs to another run than run.json", remedy)

    def value(self, kind: str, of: type[T]) -> T:
        """The record in run.json or evaluation.json."""
        path = self.path / f"{kind}.json"
        remedy = REMEDIES[path.name]
        fields = files.read_json(path, remedy)
        self._check(path, fields, kind, remedy)
        with reading(path, remedy):
            return from_json(of, fields.get("record"), path.name)

    def write_value(self, kind: str, record: Any) -> None:
        with self._other_records():
            files.write_json(self.place(f"{kind}.json"), {**self.about(kind), "record": to_json(record)})

    def lines(self, kind: str, of: type[T]) -> tuple[T, ...]:
        """The records of levels.jsonl or times.jsonl."""
        path = self.path / f"{kind}.jsonl"
        remedy = REMEDIES[path.name]
        lines, fields = files.read_lines(path, remedy)
        self._check(path, fields, kind, remedy)
        with reading(path, remedy):
            return tuple(from_json(of, files.parse_json(line), path.name) for line in lines)

    def write_lines(self, kind: str, records: Sequence[Any]) -> None:
        with self._other_records():
            files.write_lines(self.place(f"{kind}.jsonl"), [dumps(record) for record in records], self.about(kind))

    @contextmanager
    def _other_records(self) -> Iterator[None]:
        """Delete the report before and after records change."""
        files.remove(self.place("report.html"))
        yield
        files.remove(self.place("report.html"))

    def write_network(
        self, prefix: str, record: LevelRecord, weights: StateDict, masks: Masks, as_packed: bool = False
    ) -> dict[str, str]:
        """Write weights and masks below `prefix`; returns the digest of each file by its relative path."""
        packed, shapes = pack.pack_masks(masks)
        about = {"level": record.level, "role": record.role, "id": record.id}
        model, mask = f"{prefix}model.safetensors", f"{prefix}masks.safetensors"
        return {
            model: tensors.write_tensors(
                self.place(model), weights, {**self.about("model"), **about}, packed=as_packed
            ),
            mask: tensors.write_tensors(self.place(mask), packed, {**self.about("masks"), **about, "shapes": shapes}),
        }

    def network(self, prefix: str, record: LevelRecord) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights and masks below `prefix`, checked against the record."""
        weights, _ = self.part(f"{prefix}model.safetensors", "model", record)
        masks = self.masks_in(f"{prefix}masks.safetensors", record)
        if content_id(weights, masks) != record.id:
            what = f"its tensors do not match the record of {record.role} {record.level}"
            remedy = self._remedy(f"{prefix}model.safetensors", record)
            raise DamagedFile(self.path / f"{prefix}model.safetensors", what, remedy)
        return weights, masks

    def masks_in(self, relative: str, record: LevelRecord) -> dict[str, Tensor]:
        packed, facts = self.part(relative, "masks", record)
        with reading(self.path / relative, self._remedy(relative, record)):
            return pack.unpack_masks(packed, facts["shapes"])

    def part(self, relative: str, kind: str, record: LevelRecord) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A file of the record's network, checked for run, level and content."""
        remedy, path = self._remedy(relative, record), self.path / relative
        found, facts, digest = self._tensors(path, kind, remedy)
        if facts.get("id") != record.id:
            what = f"it belongs to another level: expected id {record.id!r}, got {facts.get('id')!r:.80}"
            raise DamagedFile(path, what, remedy)
        stored = record.files.get(f"{level_folder(record)}/{path.name}")
        if stored is not None and digest != stored:
            raise DamagedFile(path, f"its tensors do not have the checksum in levels.jsonl ({stored})", remedy)
        return found, facts

    def _tensors(self, path: Path, kind: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
        found = self._read(path, remedy)
        self._check(path, found[1], kind, remedy)
        return found

    # -- files of the whole run ----------------------------------------------------------------------------------

    def only(self, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], str]:
        """The state, the probe or the rewind point of the run, its facts and its digest."""
        path = self.path / f"{kind}.safetensors"
        return self._tensors(path, kind, REMEDIES[path.name])

    def write_only(self, kind: str, found: Mapping[str, Tensor], **facts: Any) -> None:
        tensors.write_tensors(self.place(f"{kind}.safetensors"), found, {**self.about(kind), **facts})

    def keep_probe(self, probe: Probe) -> None:
        """Store the samples of the probe. Raises: DamagedFile if other samples are already stored."""
        path, indices = self.path / "probe.safetensors", {"indices": probe.indices}
        if not path.exists():
            self.write_only("probe", indices)
            return
        stored, _, _ = self.only("probe")
        if stored.keys() != indices.keys() or not torch.equal(stored["indices"], probe.indices):
            raise DamagedFile(path, "its samples are not those that the run draws", REMEDIES[path.name])

    def keep_rewind_point(self, weights: StateDict) -> None:
        """Store the weights that a level may return to."""
        self.write_only("rewind", weights)

    def stored_rewind(self, digest: str | None = None) -> tuple[dict[str, Tensor], str]:
        """The weights in rewind.safetensors, and their digest, which must equal `digest` unless that is None."""
        weights, _, found = self.only("rewind")
        if digest not in (None, found):
            path = self.path / "rewind.safetensors"
            what = f"its tensors do not have the checksum in levels.jsonl ({digest})"
            raise DamagedFile(path, what, REMEDIES[path.name])
        return weights, found

    def _remedy(self, relative: str, record: LevelRecord) -> str:
        """What to do about a damaged file of the record's network."""
        own = f"{level_folder(record)}/{relative}"
        if "/" not in relative and (self.path / own).exists():
            return f"copy {own} over it"
        again = "RunFolder.open(path, write=True).drop_levels({})"
        if record.role == "control":
            how = f"delete the control with {again.format('n')}, n levels before it, and resume the run"
        else:
            how = f"delete the levels from {record.level} with {again.format(record.level)} and resume"
        return f"restore it from a copy, or {how}"


def normal(kind: type[T], record: T) -> T:
    """The record after a round trip through JSON, which turns lists into tuples, for example."""
    return from_json(kind, json.loads(dumps(record)), kind.__name__)


def level_folder(record: LevelRecord) -> str:
    return "levels/control" if record.role == "control" else f"levels/{record.level:03d}"
