"""Pruning in transformers' Trainer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsight.integrations.schedule import Place, Schedule
from sparsight.integrations.session import Session
from sparsight.records.masks import load_masks, save_masks
from sparsight.types import Masks

try:
    from transformers import TrainerCallback, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(
        "sparsight.integrations.transformers needs transformers: pip install sparsight[transformers]"
    ) from error

FILE = "sparsight_masks.safetensors"
"""The masks' file in a checkpoint folder."""


class PruningCallback(TrainerCallback):
    """Hold masks while a `Trainer` trains, or prune by a schedule.

    Use it as `Trainer(..., callbacks=[PruningCallback(Gradual(density=0.1))])`. `prune` is the masks to hold, or a
    schedule, which starts from the masks `start` (default: all weights kept). `copies` are other models to mask, such
    as an EMA. Pruned weights are +0.0 from the start of training, after every step, and in every checkpoint, which gets
    a `sparsight_masks.safetensors`; training resumed from `output_dir` or `args.resume_from_checkpoint` starts from
    that. A schedule prunes before a step, so evaluations and checkpoints show trained weights. Logs get `density` and
    `pq_index`.

    The Trainer does not tell callbacks about errors: `with PruningCallback(...) as pruning:` always releases the masks;
    without it, the next training does.

    Raises when training begins: ValueError for a schedule that does not fit it, masks that do not fit the model, or a
    checkpoint without masks; as `held`. Warns: UnfinishedSchedule if the network ends denser than scheduled.
    """

    def __init__(
        self, prune: Masks | Schedule, *, start: Masks | None = None, copies: Sequence[nn.Module] = ()
    ) -> None:
        self._session, self._copies = Session(prune, start), copies

    @property
    def masks(self) -> dict[str, Tensor]:
        """The current or last masks. Raises: ValueError before the first training."""
        return self._session.masks

    def __enter__(self) -> PruningCallback:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.end(finished=False)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        saved = _saved(args, state) if state.global_step else None
        self._session.begin(kwargs["model"], kwargs["optimizer"], _place(state), saved, self._copies)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        self._session.step(_place(state))

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        if args.should_save and self._session.running:
            save_masks(self.masks, _folder(args, state) / FILE)

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        for log in (kwargs["logs"], state.log_history[-1]):  # the second is a copy of the first
            log.update(self._session.figures())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        try:
            if args.load_best_model_at_end and state.best_model_checkpoint is not None:
                self._session.returned(load_masks(Path(state.best_model_checkpoint) / FILE))
        finally:
            self._session.end()


def _place(state: TrainerState) -> Place:
    epoch = int(state.epoch) if float(state.epoch).is_integer() else None
    return Place(
        step=state.global_step,
        steps=state.max_steps,
        epoch=epoch,
        epochs=state.num_train_epochs if state.num_train_epochs < sys.maxsize else None,  # data without a length
    )


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of this step's checkpoint; a hyperparameter search has one for each trial."""
    out, name = Path(str(args.output_dir)), f"checkpoint-{state.global_step}"
    trials = out.glob(f"*/{name}") if state.is_hyper_param_search else ()
    return max(trials, key=lambda folder: folder.stat().st_mtime, default=out / name)


def _saved(args: TrainingArguments, state: TrainerState) -> dict[str, Tensor]:
    """The masks of the resumed checkpoint."""
    given = args.resume_from_checkpoint
    folder = Path(given) if given and Path(given).is_dir() else _folder(args, state)
    if not (folder / FILE).exists():
        raise ValueError(
            f"cannot resume with masks: {folder} has no {FILE}; give TrainingArguments(resume_from_checkpoint=...) the "
            "folder that is resumed, written by a training with PruningCallback"
        )
    return load_masks(folder / FILE)


__all__ = ["FILE", "PruningCallback"]
