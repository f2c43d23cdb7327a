"""Trainings of the dense network that several runs share, each in a file named after its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparsight.records import files, tensors
from sparsight.records import packing as pack
from sparsight.records.identity import SAME_ENVIRONMENT
from sparsight.records.record import RunRecord, to_json

_REMEDY = "delete it; the next run that needs it trains it again"


@dataclass(frozen=True)
class Starts:
    """A folder of trainings; `about` is `start_of` the run, what they depend on besides their plan."""

    path: Path
    about: Mapping[str, Any]

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Lock this training; waits for other processes."""
        files.make_folder(self.path)
        with FileLock(self.path / f"{key}.lock", thread_local=False, fallback_to_soft=False):
            yield

    def get(self, key: str) -> Any:
        """The training stored by `keep`, with tensors on the CPU; None without one. Raises: DamagedFile."""
        path = self.path / f"{key}.safetensors"
        if not files.there(path):
            return None
        found, facts, _ = tensors.read_tensors(path, _REMEDY)
        with files.reading(path, _REMEDY):
            if facts.get("start") != key:
                raise ValueError("its contents do not match its name")
            return pack.unpack_state(found, facts["skeleton"])

    def keep(self, key: str, state: Mapping[str, Any]) -> None:
        """Store the end of a training: nested values accepted by `pack_state`."""
        found, skeleton = pack.pack_state(state)
        facts = {"kind": "start", "start": key, "skeleton": skeleton}
        tensors.write_tensors(self.path / f"{key}.safetensors", found, facts)


def start_of(record: RunRecord) -> dict[str, Any]:
    """What affects the bits of a run besides its recipe: data, model, versions, device, precision, threads."""
    environment = {key: record.environment.get(key) for key in (*SAME_ENVIRONMENT, "sparsight", "versions")}
    return to_json({"data": record.data, "model": record.model, "environment": environment})
