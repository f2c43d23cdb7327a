"""SynFlow: keep the weights that carry the most paths, without data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparsight.model.batch import predict, scores_of, tensors_of
from sparsight.model.functional import Pure, evaluating
from sparsight.model.linearised import Positive, is_bias, ones
from sparsight.model.masks import check
from sparsight.model.names import named
from sparsight.model.weights import laid_out
from sparsight.numerics.checks import check_known
from sparsight.numerics.exact import at_home, exact, home
from sparsight.numerics.seeds import seeded
from sparsight.pruning.score.gradient import differentiable, differentiating, finite, gradient, leaves
from sparsight.types import Batch, Masks, Scores


@dataclass(frozen=True)
class SynFlow:
    """score = |w| dR/d|w|, in [0, inf), float64, with R = sum of the outputs for an input of ones, all weights |w|.

    R sums the products of |w| along all paths. The network is made linear: activations become the identity (tanh would
    saturate), norms only scale, offsets are 0 unless `bias`. In a sequential network the scores of every layer then sum
    to R. Max-pooling, softmax and products of activations do not change.

    `batch_norm`: "eval" scales by |gamma| / sqrt(stored variance + eps), "identity" by |gamma|. The derivative is taken
    in the masked network; the score of a pruned weight is its own |w| times it. `input_shape`, or else the first batch,
    gives the shape of a sample; values are not used. Use many rounds: a single one empties layers. On a device without
    float64, the pass runs on the CPU and returns float32 scores relative to the largest.

    Raises: ValueError without shape or batches, if R or a score overflows float64 (beyond about 150 wide layers), or
    for negative scores, which come from a forward that subtracts (an input shift, a hand-written norm, x - f(x)).
    Source: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020, equation 3.
    """

    input_shape: tuple[int, ...] | None = None
    bias: bool = False
    batch_norm: Literal["eval", "identity"] = "eval"

    def __post_init__(self) -> None:
        check_known(("eval", "identity"), batch_norm=self.batch_norm)
        shape = self.input_shape
        if shape is not None and not (isinstance(shape, Sequence) and all(isinstance(n, int) and n > 0 for n in shape)):
            raise ValueError(f"input_shape must be the shape of a sample, such as (1, 28, 28), got {shape!r}")

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch] = ()) -> Scores:
        check(model, masks)
        with evaluating(model), seeded(0), differentiating():
            call = self._doubled(differentiable(model))
            device = next(iter(call.params.values())).device
            if self.input_shape is not None:
                x = torch.ones((1, *self.input_shape), dtype=torch.float64, device=device)
            elif len(batches):
                x = ones(batches[0], torch.float64, device)
            else:
                raise ValueError("SynFlow needs input_shape or at least one batch")
            weights = leaves(call, masks)
            positive = Positive()
            try:
                with positive:
                    out = call.loss(weights, predict, x)  # type: ignore[arg-type]
            except RuntimeError as error:
                shapes = ", ".join(str(tuple(one.shape)) for one in tensors_of(x))
                raise ValueError(
                    f"SynFlow cannot run the network in float64 on ones of shape {shapes}: {error}; its forward must "
                    "not cast to another type, and input_shape must be the shape of a sample"
                ) from error
            scores = scores_of(out)
            if scores is None:
                raise TypeError(f"SynFlow needs a model that returns a tensor or `logits`, got {type(out).__name__}")
            total = scores.sum()
            grads = gradient(total, list(weights.values()))
        scores = finite({n: g * call.params[n] for n, g in zip(weights, grads, strict=True)}, masks, "SynFlow")
        _not_negative(scores, float(total.detach()), masks, attends=positive.attends)
        return laid_out(model, _returned(scores, named(model)))

    def _doubled(self, call: Pure) -> Pure:
        """The model with |parameters| in float64, without biases unless `bias`, and variances as asked."""
        params = {n: exact(p).abs() if self.bias or not is_bias(n) else exact(p) * 0 for n, p in call.params.items()}
        buffers = {n: exact(b) if b.is_floating_point() else at_home(b) for n, b in call.buffers.items()}
        if self.batch_norm == "identity":
            buffers = {n: torch.ones_like(b) if n.endswith("running_var") else b for n, b in buffers.items()}
        return dataclasses.replace(call, params=params, buffers=buffers)


def _returned(scores: Scores, parameters: Mapping[str, Tensor]) -> Scores:
    """The scores on their parameters' devices; without float64, in float32 and relative to the largest."""
    devices = {name: parameters[name].device for name in scores}
    if all(home(device) == device for device in set(devices.values())):
        return scores
    most = max((float(score.abs().max()) for score in scores.values() if score.numel()), default=0.0) or 1.0
    return {name: (score / most).float().to(devices[name]) for name, score in scores.items()}


def _not_negative(scores: Scores, total: float, masks: Masks, *, attends: bool) -> None:
    """Raise ValueError for negative scores, which would reverse the ranking; with softmax attention, for negative R."""
    alive = {name: score[masks[name].to(score.device)] for name, score in scores.items()}
    most = max((float(score.abs().max()) for score in alive.values() if score.numel()), default=0.0)
    least = {name: float(score.min()) for name, score in alive.items() if score.numel()}
    name = min(least, key=least.__getitem__, default=None)
    if name is None or (total >= 0 and (attends or least[name] >= -1e-9 * most)):
        return
    raise ValueError(
        f"SynFlow has negative scores in {name!r}, because the forward subtracts or negates something: use only sums, "
        "products, activations and torch's norms, and normalise inputs outside the model"
    )
