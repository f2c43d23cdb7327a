"""One thread for everything (bits depend on it), and types checked at run time."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

_CHECKED = (
    "model.masks",
    "model.names",
    "model.hold",
    "numerics.select",
    "numerics.stratified",
    "measure.pq",
    "pruning.allocate",
    "pruning.restart",
    "pruning.schedules",
    "pruning.score",
    "pruning.sipp.allocate",
    "pruning.sipp.decision",
    "pruning.sipp.groups",
    "pruning.sipp.ranking",
    "pruning.sipp.sampling",
    "pruning.sipp.score",
    "train.batches",
    "records.fingerprint",
    "runs.layers",
    "zoo",
)
install_import_hook([f"sparsight.{name}" for name in _CHECKED], "checker.check")

torch.set_num_threads(1)

# The machines are noisy: no test depends on how long it takes.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")


@pytest.fixture(autouse=True)
def _same_threads_after():
    yield
    torch.set_num_threads(1)
