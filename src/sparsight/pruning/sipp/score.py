"""SiPP: the largest share of its neuron's input that each weight carries, over a small batch of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from sparsight.model.batch import batch_size, copied, on_tensors, predict
from sparsight.model.functional import evaluating, pure, tapped
from sparsight.model.loss import Loss, task_loss
from sparsight.model.masks import check
from sparsight.model.names import named, names_of
from sparsight.model.weights import Weight, layouts, weights
from sparsight.numerics.checks import check_known, check_whole
from sparsight.numerics.seeds import seeded
from sparsight.pruning.sipp.bounds import calibration_size, check_constant, check_delta
from sparsight.pruning.sipp.sensitivities import Reduction, SensitivitySums, shape_of
from sparsight.types import Batch, Masks, Params, Scored

_AT_ONCE = 32  # points in one forward


@dataclass(frozen=True)
class SiPP:
    """score = the sensitivity of a weight, in [0, 1]: the largest share of a part of its neuron that it carries.

    Weights and inputs are split by sign: a neuron (or filter) has four parts, all sums of nonnegative terms. With w_s
    the positive or the negative weights of a row, and a >= 0 the positive or the negative inputs of a patch,

        g_k = |w_k| a_k / sum_j |w_s,j| a_j         over the weights j of w_k's sign; 0 if that sum is 0
        s_k = max over points, and signs of a, of   max over patches ("max"), or mean over patches ("mean"), of g_k

    "max" is the published definition, which error bounds need; "mean" is from the published deterministic code. For
    linear layers they are equal, and every row of the input (each token) is a point. Biases are ignored. Convolutions
    may have any stride, padding mode, dilation and groups.

    Uses the first `points` inputs of the batches, by default `calibration_size` of them, and warns if there are fewer
    than `points`. The model runs in eval mode without gradients, with pruned weights 0 (`masked=False`: unchanged).
    Memory does not grow with the number of points. With `propagate` the scores can tell SiPP's allocators which
    parameters no gradient of `loss` reaches.

    Scores within 4 units of rounding of 1 are 1; mean sensitivity and |w| break ties. Shares do not depend on the scale
    of a row or a point. Weights of 0 score 0.

    Raises: ValueError without batches, for delta outside (0, 1), C below 1, or a weight or input that is not finite;
    TypeError for layers other than Linear, Conv1d, Conv2d, Conv3d and transformers' Conv1D, and for weights that are
    computed, not called, or called by keyword.
    Source: Baykal et al., arXiv 1910.05422; deviations on docs/methods/sipp.md.
    """

    reduction: Reduction = "max"
    delta: float = 1e-16
    constant: float = 3.0
    points: int | None = None
    masked: bool = True
    propagate: bool = False
    forward: Callable[[nn.Module, Batch], Any] = predict
    loss: Loss = task_loss

    def __post_init__(self) -> None:
        check_known(("max", "mean"), reduction=self.reduction)
        check_delta(self.delta)
        check_constant(self.constant)
        if self.points is not None:
            check_whole(1, points=self.points)

    @torch.no_grad()
    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scored:
        check(model, masks)
        if not len(batches):
            raise ValueError("SiPP needs at least one batch of inputs; in a recipe, set Scoring.batches")
        call, layers = pure(model), layers_using(model, masks)
        params = {name: call.params[name] for name in masks}
        if self.masked:
            params = {name: weight.masked_fill(~masks[name].to(weight.device), 0) for name, weight in params.items()}
        tallies = {name: SensitivitySums(name, layers[name][0], params[name]) for name in masks}
        users = {f"{name} {i}": user for name, of in layers.items() for i, user in enumerate(of)}

        def see(key: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            name = key.rpartition(" ")[0]
            tallies[name].add(layer, input_of(name, inputs), self.reduction)

        seen = 0
        with evaluating(model), seeded(0):
            wanted = self.points
            if wanted is None:
                outputs: list[int] = []  # of each layer call, for the first sample
                with tapped(users, lambda name, layer, inputs, output: outputs.append(output.numel())):
                    call.loss(params, self.forward, copied(_some(batches[0], batch_size(batches[0]), 0, 1)))
                wanted = calibration_size(outputs, delta=self.delta, constant=self.constant)
            with tapped(users, see):
                for part in first_points(batches, wanted):
                    call.loss(params, self.forward, copied(part))
                    seen += batch_size(part)
        if self.points is not None and seen < wanted:
            warn(f"SiPP used {seen} calibration points, not {wanted}: the batches have no more", stacklevel=3)
        found = {name: tally.result() for name, tally in tallies.items()}
        return Scored(
            {name: score for name, (score, _) in found.items()},
            {name: facts for name, (_, facts) in found.items()},
            reduction=self.reduction,
            points=seen,
            wanted=wanted,
            silent=(
                (lambda kept, factors: silent(model, kept, batches, multipliers=factors, loss=self.loss))
                if self.propagate
                else None
            ),
            layouts=layouts(model, masks),
        )


# -- layers and points -----------------------------------------------------------------------------------------


def layers_using(model: nn.Module, masks: Masks) -> dict[str, list[nn.Module]]:
    """The layers that use each weight, several if it is tied. Raises: TypeError if sensitivities are undefined."""
    found: dict[str, list[nn.Module]] = {}
    known = weights(model)
    for names in names_of(model).values():
        first = names[0][0]
        if first not in masks:
            continue
        for name, layer in names:
            if why := _why_not(known[first], name, layer):
                raise TypeError(f"SiPP cannot score {name!r}: {why}; skip it with exclude=({first!r},)")
        found[first] = [layer for _, layer in names]
    return {name: found[name] for name in masks}


def _why_not(weight: Weight, name: str, layer: nn.Module) -> str:
    """Why a weight has no sensitivities in a layer; "" if it has."""
    if weight.parametrised:
        return f"a {type(weight.module).__name__} computes its weight from it; remove the parametrisation first"
    try:
        shape_of(layer)
    except TypeError as error:
        return str(error)
    leaf = name.rpartition(".")[2]
    return "" if leaf == "weight" or weight.given is not None else "expected the weight of the layer"


def input_of(name: str, inputs: tuple[Any, ...]) -> Tensor:
    """The input of a layer. Raises: TypeError if it was passed by keyword."""
    if not inputs:
        raise TypeError(f"cannot see the input of {name!r}: call its layer as layer(x), not by keyword")
    return inputs[0].detach()


def first_points(batches: Iterable[Batch], points: int, at_once: int = _AT_ONCE) -> Iterator[Batch]:
    """The first `points` samples of the batches, at most `at_once` at a time."""
    left = points
    for batch in batches:
        size = batch_size(batch)
        for start in range(0, min(size, left), at_once):
            yield _some(batch, size, start, min(start + at_once, size, left))
        left -= min(size, left)
        if not left:
            return


def _some(batch: Batch, size: int, start: int, stop: int) -> Batch:
    """Samples start to stop of a batch: slices its tensors of `size` samples, and keeps the rest."""
    return on_tensors(lambda x: x[start:stop] if x.dim() and len(x) == size else x, batch)


# -- parameters that no gradient reaches ---------------------------------------------------------------------------


def silent(
    model: nn.Module,
    masks: Masks,
    batches: Sequence[Batch],
    *,
    multipliers: Params | None = None,
    loss: Loss = task_loss,
) -> dict[str, Tensor]:
    """Where the gradient of each parameter is exactly zero on every batch, in eval mode: True = no gradient.

    The parameters are the model's times `multipliers`, under `masks`: weights, biases and normalisation parameters, but
    not embeddings, nor parameters that the forward does not use. A unit without a path to the output is silent, as is
    one that is inactive on all of these samples: the published wrapper sets the parameters of both to zero.

    Does not change the model. Raises: ValueError without batches. Source: the published code's gradient propagation,
    which sums gradients first, where two may cancel.
    """
    check(model, masks)
    if not batches:
        raise ValueError("silent needs at least one batch")
    at, leaves = pure(model), dict[str, Tensor]()
    embedded = {p for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    for name, parameter in named(model).items():
        if parameter not in embedded and parameter.is_floating_point():
            value = at.params[name] * (multipliers or {}).get(name, 1)
            value = torch.where(masks[name], value, 0) if name in masks else value
            leaves[name] = value.detach().clone().requires_grad_()
    found: dict[str, Tensor] = {}
    with evaluating(model), seeded(0), torch.enable_grad():
        for batch in batches:
            value = at.loss(leaves, loss, copied(batch))
            gradients = torch.autograd.grad(value, tuple(leaves.values()), allow_unused=True)
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None:
                    found[name] = (gradient == 0) & found.get(name, torch.ones_like(gradient, dtype=torch.bool))
    return found
