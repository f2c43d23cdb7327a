"""A small run folder with everything in it, and what can be read from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparsight.records.folder import RunFolder
from sparsight.records.identity import content_id
from sparsight.records.journal import LevelResult
from sparsight.records.record import Evaluated, Evaluation, Layer, LevelRecord, LevelTimes, RunRecord
from sparsight.train.observation import Observation


def run_record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "recipe": "test",
        "arguments": {"p": 1.0},
        "description": {"type": "Recipe", "optimizer": {"lr": 0.1}},
        "seed": 3,
        "data": {"name": "digits"},
        "model": {"type": "Linear", "tensors": {"a.weight": [3, 5]}},
        "environment": {"device": "cpu", "precision": "no", "threads": 1, "world_size": 1, "python": "3"},
        "keep": "all",
        "status": "running",
        "started": "2030-01-02T03:04:05Z",
    }
    return RunRecord(**{**fields, **changes})


def network(number: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and masks of level `number`; -1 is the control."""
    generator = torch.Generator().manual_seed(number + 100)
    mask = torch.rand(3, 5, generator=generator) < 0.8**number
    weight = torch.randn(3, 5, generator=generator).mul(mask).add(0.0)
    return {"a.weight": weight, "a.bias": torch.zeros(3), "steps": torch.tensor(number)}, {"a.weight": mask}


def level(number: int, loss: float = 0.5) -> LevelRecord:
    """The record of `network(number)`; the control is numbered 3."""
    weights, masks = network(number)
    kept = int(masks["a.weight"].sum())
    return LevelRecord(
        level=number if number >= 0 else 3,
        role="level" if number >= 0 else "control",
        id=content_id(weights, masks),
        parent=content_id(*network(number - 1)) if number > 0 else None,
        operation={"rounds": [{"type": "Shrink", "rate": 0.2}]},
        kept=kept,
        total=15,
        layers=(Layer("a.weight", (3, 5), kept, 15, (0.1,)),),
        pq_pairs=((0.5, 1.0),),
        pq=(0.1,),
        groups=(),
        floors=(),
        collapsed=(),
        observations=(Observation(1.0, 7, validation_loss=loss, reason="1 epoch"),),
        epochs=1.0,
        steps=7,
    )


def add(folder: RunFolder, number: int, loss: float = 0.5) -> LevelRecord:
    record = level(number, loss)
    times = LevelTimes(record.level, record.role, train=1.5)
    return folder.keep_level(LevelResult(record, times, *network(number))).record


def state(number: int) -> dict[str, Any]:
    weights, masks = network(number)
    return {"weights": weights, "masks": masks, "optimizer": {"state": {0: {"step": 7}}, "lr": (0.1, 0.2)}}


def filled(path: Path, *, finished: bool = False, keep: str = "all", loss: float = 0.5, seed: int = 3) -> Path:
    """A run of three levels and a control, at the start of the next level; or finished."""
    with RunFolder.create(path, run_record(keep=keep, seed=seed)) as folder:
        folder.keep_rewind_point(network(9)[0])
        records = [add(folder, number, loss) for number in (0, 1, 2, -1)]
        folder.save_chosen(records[1], "it is the best")
        entries = tuple(Evaluated(r.level, r.role, r.id, 0.9, 0.1, 10) for r in records)
        folder.save_evaluation(Evaluation(entries))
        if finished:
            folder.update(status="finished", ended="2030-01-02T03:05:06Z")
        else:
            folder.keep_progress(state(5))
    return path


def plain(value: Any) -> Any:
    """The value with tensors as their type, shape and numbers, so that == compares it."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def content(folder: RunFolder) -> dict[str, Any]:
    """Everything that can be read from a run folder; the error where something must not be there."""
    levels = folder.levels()
    return plain(
        {
            "record": folder.record,
            "levels": levels,
            "times": folder.times(),
            "networks": [(folder.weights(record), folder.masks(record)) for record in levels],
            "state": folder.progress(),
            "rewind": folder.rewind_point(),
            "chosen": folder.chosen() if folder.record.chosen else None,
            "evaluation": folder.evaluation(),
        }
    )
