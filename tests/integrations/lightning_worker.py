"""What test_lightning.py runs in two processes: Lightning's Trainer under DDP; its processes score differently."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from test_lightning import Net, PruningCallback, Watch, loader, trainer  # noqa: E402
from two_processes import answer  # noqa: E402

from sparsight import Random, counts, verify  # noqa: E402
from sparsight.integrations import Gradual  # noqa: E402
from sparsight.records.tensors import tensors_digest  # noqa: E402
from sparsight.train.parallel import leave  # noqa: E402


def main() -> None:
    model = Net()
    pruning = PruningCallback(Gradual(0.25, rounds=3, score=Random(seed=int(os.environ["RANK"]))))
    loop = trainer(Path("out"), pruning, Watch(pruning), strategy="ddp", devices=2)
    loop.fit(model, loader())
    verify(model, pruning.masks)
    kept, total = counts(pruning.masks)
    answer(
        kept=kept,
        goal=round(0.25 * total),
        weights=tensors_digest(model.state_dict()),
        masks=tensors_digest(pruning.masks),
        world=loop.world_size,
    )
    leave()


if __name__ == "__main__":
    main()
