"""Checkpoints: lists and loads their tensors without running code; reads and writes packed files."""

from __future__ import annotations

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry
from sparsight.checkpoint.open import load, load_tensors, open_checkpoint
from sparsight.checkpoint.packed.files import Packing, pack, unpack
from sparsight.checkpoint.packed.read import nonzeros

__all__ = ["Checkpoint", "CheckpointError", "Entry", "Packing", "load", "load_tensors", "nonzeros", "open_checkpoint"]
__all__ += ["pack", "unpack"]
