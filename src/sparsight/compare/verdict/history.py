"""What a verdict reads from each run: levels, the dense network, predictions, times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord, LevelTimes, RunRecord, dense_of, to_json
from sparsight.records.rows import Row, stored_predictions, stored_rows


@dataclass(frozen=True, eq=False)
class History:
    """The records of a run."""

    path: Path
    run: RunRecord
    records: tuple[LevelRecord, ...]  # levels and control
    times: tuple[LevelTimes, ...]
    dense: LevelRecord
    predictions: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    @property
    def levels(self) -> tuple[LevelRecord, ...]:
        """The evaluated levels, from dense to sparse."""
        judged = [x for x in self.records if x.role == "level" and x.value is not None]
        return tuple(sorted(judged, key=lambda x: -x.density))

    def worth(self, record: LevelRecord) -> float:
        """The level's metric minus the dense network's; larger is better."""
        return record.worth - self.dense.worth

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x.density, self.worth(x)) for x in self.levels]

    def down_to(self, density: float | None) -> LevelRecord | None:
        """The sparsest pruned level of at least that density; None for None, or without one."""
        pruned = [x for x in self.levels if x.id != self.dense.id]
        return next((x for x in reversed(pruned) if density is not None and x.density >= density), None)


def read(path: Path) -> History:
    """Read a run. Raises: ValueError if it has not ended or lacks a dense or a pruned network; as `RunFolder.open`."""
    with RunFolder.open(path) as folder:
        run, records = folder.record, folder.levels()
        if run.status != "finished":
            raise ValueError(f"no verdict on {path}: the run is {run.status}; finish it first (--resume)")
        dense = dense_of(records)
        if dense is None or dense.value is None:
            raise ValueError(
                f"no verdict on {path}: it has no dense network to compare with; run it with a dense level or --control"
            )
        found = History(path, run, records, folder.times(), dense, stored_predictions(folder), stored_rows(folder))
    if not any(x.kept < x.total for x in found.levels):
        raise ValueError(f"no verdict on {path}: no pruned level was evaluated on validation data")
    return found


def setting(run: RunRecord) -> str:
    """A key that runs share if they differ only in their seed."""
    arguments = {name: value for name, value in to_json(run.arguments).items() if name != "seed"}
    return json.dumps([run.recipe, arguments, run.model.get("spec"), run.data.get("name")], sort_keys=True)


def grouped(runs: Sequence[History]) -> list[list[History]]:
    """The runs grouped by setting, in order of appearance, each group sorted by seed."""
    by: dict[str, list[History]] = {}
    for each in runs:
        by.setdefault(setting(each.run), []).append(each)
    return [sorted(group, key=lambda each: each.run.seed) for group in by.values()]
