"""Both flows from the same forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from sparsight.measure.flow.activations import Site
from sparsight.measure.flow.gradients import GradientFlow, Statistic, measured
from sparsight.measure.flow.information import SHORTCUTS, Collector, InformationFlow, Pair, Reduction
from sparsight.model.loss import Loss, task_loss
from sparsight.types import Batch, Masks


def both_flows(
    model: nn.Module,
    masks: Masks,
    batches: Iterable[Batch],
    *,
    reduction: Reduction = "rms",
    site: Site = "pre",
    pairs: Sequence[Pair] | None = None,
    skip: Sequence[str] = SHORTCUTS,
    statistic: Statistic = "norm",
    loss: Loss = task_loss,
) -> tuple[InformationFlow, GradientFlow]:
    """`information_flow` and `gradient_flow` from one pass: one forward and one backward pass a batch.

    The loss runs the forward pass, so activations are those of the masked weights m * w. The numbers equal those of two
    calls if pruned weights are 0 and the loss runs the model once, on the batch's inputs. Arguments and errors are
    those of the two functions.
    """
    collector = Collector(model, reduction, site, pairs, skip)

    def around(run: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        values: list[Tensor] = []
        collector.take(lambda b: values.append(run(b)), batch)
        return values[0]

    gradients = measured(model, masks, batches, statistic, loss, around)
    return collector.flow(), gradients
