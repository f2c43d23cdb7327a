"""The outputs of a network for a split: class scores and right classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsight.model.functional import evaluating
from sparsight.model.loss import IGNORED, scored
from sparsight.numerics.seeds import reseeded, seeded
from sparsight.train.batches import batches
from sparsight.train.parallel import Runtime
from sparsight.types import Batch, Split


@dataclass(frozen=True, eq=False)
class Outputs:
    """Class scores [N, C] in float64 and right classes [N] of N answers, on the CPU."""

    scores: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the scores, [N, C]."""
        return self.scores.softmax(1)

    @property
    def predictions(self) -> Tensor:
        """The class with the highest score, [N]; the first among equals."""
        return self.scores.argmax(1)

    @property
    def right(self) -> Tensor:
        """Whether each answer is right, [N]."""
        return self.predictions == self.labels


def outputs_of(model: nn.Module, split: Split | Iterable[Batch], runtime: Runtime, *, batch_size: int = 250) -> Outputs:
    """Run a network over a split, in eval mode and without gradients; does not change the model or random state.

    In label maps each pixel is an answer, except labels -100; for class probabilities the most likely class is right.
    Raises: ValueError for a network that does not score classes (as `cross_entropy`), or a split without answers.
    """
    scores, labels = [], []
    with evaluating(model), seeded(0), reseeded(split, 0), torch.no_grad(), runtime.autocast():
        for batch in batches(split, batch_size, device=runtime.device):
            found, y = scored(model, batch)
            y = y.argmax(1) if y.is_floating_point() else y
            counted = y.flatten() != IGNORED
            scores.append(found.movedim(1, -1).flatten(0, -2)[counted].double().cpu())
            labels.append(y.flatten()[counted].cpu())
    if not sum(map(len, labels)):
        raise ValueError("cannot evaluate on a split without answers")
    return Outputs(torch.cat(scores), torch.cat(labels))
