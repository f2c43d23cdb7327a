"""The ledger of a run's network: the chosen one, or another level."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from sparsight.deploy.ledger.count import Roles, ledger
from sparsight.deploy.ledger.records import Ledger, Request
from sparsight.deploy.network_of_run import default_level, input_shape, known_network, level_file
from sparsight.records.folder import RunFolder
from sparsight.records.record import LevelRecord


def of_run(
    folder: RunFolder,
    record: LevelRecord | None = None,
    *,
    model: nn.Module | None = None,
    shape: tuple[int, ...] = (),
    measure: Request | None = None,
    count_macs: bool = True,
) -> Ledger:
    """The ledger of a level, by default the chosen one, otherwise the last with weights on disk.

    Zoo networks and their input shape are known from the records. For any other, pass `model`, and as `shape` the
    input shape without the batch. Raises: FileNotFoundError without weights; as `ledger`.
    """
    record = record or default_level(folder)
    path, roles = level_file(folder, record), Roles([layer.name for layer in record.layers])
    shape = shape or input_shape(folder.record)
    model = model or known_network(folder.record, shape, path)
    inputs = torch.zeros(1, *shape) if shape and model is not None else None
    found = ledger(path, inputs, model=model, roles=roles, measure=measure, count_macs=count_macs)
    return replace(found, level=record.level)
