"""What test_trainer.py runs in two processes: the Trainer under DDP, whose processes score by batches of their own."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from tasks import classifier
from test_trainer import ROWS, Watch, trainer
from torch.utils.data import default_collate
from two_processes import answer

from sparsight import SNIP, counts, load_masks, verify
from sparsight.integrations import Gradual
from sparsight.integrations.transformers import FILE, PruningCallback
from sparsight.model import LeftOutWarning
from sparsight.records.tensors import tensors_digest

warnings.simplefilter("ignore", LeftOutWarning)


def main() -> None:
    rank = int(os.environ["RANK"])
    mine = [default_collate([{k: v for k, v in row.items() if k != "idx"} for row in ROWS[rank::2][:40]])]
    schedule = Gradual(0.25, rounds=3, score=SNIP(), batches=mine)
    more = {"save_strategy": "steps", "save_steps": 10, "ddp_find_unused_parameters": False, "bf16": True}
    pruning = PruningCallback(schedule)
    loop = trainer(classifier(), Path("out"), pruning, Watch(pruning), gradient_accumulation_steps=2, **more)
    loop.train()
    again = PruningCallback(schedule)
    resumed = trainer(classifier(), Path("out"), again, Watch(again), gradient_accumulation_steps=2, **more)
    resumed.train(resume_from_checkpoint="out/checkpoint-10")
    verify(loop.model, pruning.masks)
    kept, total = counts(pruning.masks)
    written = load_masks(Path("out", "checkpoint-20", FILE))
    answer(
        kept=kept,
        goal=round(0.25 * total),
        weights=tensors_digest(loop.model.state_dict()),
        resumed=tensors_digest(resumed.model.state_dict()),
        masks=tensors_digest(pruning.masks),
        written=tensors_digest(written),
        world=torch.distributed.get_world_size(),
    )
    resumed.accelerator.end_training()


if __name__ == "__main__":
    main()
