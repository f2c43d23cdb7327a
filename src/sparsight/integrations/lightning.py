"""Pruning in Lightning's Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sparsight.integrations.schedule import Place, Schedule
from sparsight.integrations.session import Session
from sparsight.model.names import named
from sparsight.records.packing import pack_masks, unpack_masks
from sparsight.types import Masks

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("sparsight.integrations.lightning needs lightning: pip install sparsight[lightning]") from error


class PruningCallback(Callback):
    """Hold masks while a `Trainer` trains, or prune by a schedule.

    Use it as `Trainer(..., callbacks=[PruningCallback(Gradual(density=0.1))])`. `prune` is the masks to hold, or a
    schedule, which starts from the masks `start` (default: all weights kept). Pruned weights are +0.0 from the start of
    training, after every step of every optimiser, and in every checkpoint. Checkpoints also hold the masks, and resumed
    training starts from those. `copies`, and averages of the model kept by other callbacks (`WeightAveraging`,
    `StochasticWeightAveraging`), are masked too. A schedule prunes before a step, so validation and checkpoints show
    trained weights. `density` and `pq_index` are logged every `log_every_n_steps`. The masks are released when training
    ends or fails. With manual optimisation, steps are counted in batches.

    Raises when training begins: ValueError for a schedule that does not fit it, or masks that do not fit the model; as
    `held`. Warns: UnfinishedSchedule if the network ends denser than scheduled.
    """

    def __init__(
        self, prune: Masks | Schedule, *, start: Masks | None = None, copies: Sequence[nn.Module] = ()
    ) -> None:
        self._session, self._copies = Session(prune, start), copies
        self._saved: dict[str, Tensor] | None = None

    @property
    def masks(self) -> dict[str, Tensor]:
        """The current masks, otherwise those of the checkpoint or the last training. Raises: ValueError without any."""
        return self._session.masks if self._saved is None else self._saved

    def state_dict(self) -> dict[str, Any]:
        if not self._session.running:
            return {}
        packed, shapes = pack_masks(self.masks)
        return {"masks": packed, "shapes": shapes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._saved = unpack_masks(state_dict["masks"], state_dict["shapes"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saved, self._saved = self._saved, None
        copies = [*self._copies, *_averages(trainer, pl_module)]
        self._session.begin(pl_module, trainer.optimizers, _place(trainer, 0), saved, copies)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._session.step(_place(trainer, batch_idx))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            pl_module.log_dict(self._session.figures())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._session.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._session.end(finished=False)


def _place(trainer: Trainer, batch: int) -> Place:
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None
    length = trainer.num_training_batches
    if trainer.lightning_module.automatic_optimization:
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
    elif epochs is not None:
        step, steps = trainer.current_epoch * length + batch, epochs * length
    else:
        step, steps = trainer.global_step, trainer.max_steps if trainer.max_steps >= 0 else math.inf
    if not math.isfinite(step + steps):
        step, steps = trainer.global_step, None
    return Place(
        int(step), None if steps is None else int(steps), trainer.current_epoch if batch == 0 else None, epochs
    )


def _averages(trainer: Trainer, model: nn.Module) -> list[nn.Module]:
    """Averages of the model kept by other callbacks."""
    names = set(named(model))
    kept = (value for callback in trainer.callbacks for value in vars(callback).values())  # type: ignore[attr-defined]
    return [
        value for value in kept if isinstance(value, nn.Module) and value is not model and set(named(value)) == names
    ]


__all__ = ["PruningCallback"]
