"""What a verdict reads of each run: levels, the dense network, predictions, times. One setting, some seeds."""

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
class Told:
    """The records of a run, its dense network first."""

    path: Path
    run: RunRecord
    records: tuple[LevelRecord, ...]  # levels and control
    times: tuple[LevelTimes, ...]
    dense: LevelRecord
    predictions: Mapping[str, Tensor]
    rows: tuple[Row, ...]

    @property
    def levels(self) -> tuple[LevelRecord, ...]:
        """Those that were judged, from dense to sparse."""
        judged = [x for x in self.records if x.role == "level" and x.value is not None]
        return tuple(sorted(judged, key=lambda x: -x.density))

    def worth(self, record: LevelRecord) -> float:
        """The level's metric beside the dense network's, larger being better."""
        return record.worth - self.dense.worth

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(x.density, self.worth(x)) for x in self.levels]

    def down_to(self, density: float | None) -> LevelRecord | None:
        """The sparsest pruned level of at least that density; None for None, or if there is none."""
        pruned = [x for x in self.levels if x.id != self.dense.id]
        return next((x for x in reversed(pruned) if density is not None and x.density >= density), None)


def told(path: Path) -> Told:
    """A run for a verdict. ValueError if it has not ended, has no dense network, or was not judged; or of reading."""
    with RunFolder.open(path) as folder:
        run, records = folder.record, folder.levels()
        if run.status != "finished":
            raise ValueError(f"no verdict on {path}: the run is {run.status}; let it end first (--resume)")
        dense = dense_of(records)
        if dense is None or dense.value is None:
            raise ValueError(
                f"no verdict on {path}: there is no dense network to compare with; run it with a dense level, or with "
                "--control"
            )
        found = Told(path, run, records, folder.times(), dense, stored_predictions(folder), stored_rows(folder))
    if not any(x.kept < x.total for x in found.levels):
        raise ValueError(f"no verdict on {path}: no pruned level was judged on validation data")
    return found


def setting(run: RunRecord) -> str:
    """What is the same in runs that differ only in their seed."""
    arguments = {name: value for name, value in to_json(run.arguments).items() if name != "seed"}
    return json.dumps([run.recipe, arguments, run.model.get("spec"), run.data.get("name")], sort_keys=True)


def grouped(runs: Sequence[Told]) -> list[list[Told]]:
    """The runs by setting, in order of appearance, each by seed."""
    by: dict[str, list[Told]] = {}
    for each in runs:
        by.setdefault(setting(each.run), []).append(each)
    return [sorted(group, key=lambda each: each.run.seed) for group in by.values()]
