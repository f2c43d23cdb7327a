"""Readers of checkpoints: what tensors a file holds and where they lie, without loading them or running code."""

from __future__ import annotations

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry
from sparsight.checkpoint.load import load_tensors
from sparsight.checkpoint.open import open_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "Entry", "load_tensors", "open_checkpoint"]
