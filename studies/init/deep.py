"""Deep tanh networks, pruned by SNIP before training: ordered, at the edge of chaos, rescaled there. Which train?"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from cells import Row
from pruned import images
from side_by_side import SideBySide, judge, losses, train
from torch import Tensor

from sparsight import SNIP, Global, Masks, Split, dense, find_collapse
from sparsight.measure.criticality import edge_of_chaos, initialise_
from sparsight.numerics.seeds import derive
from sparsight.pruning import Rescale
from sparsight.pruning.rescale import By
from sparsight.train.batches import batches
from sparsight.train.plan import constant, cosine
from sparsight.types import Allocation, Batch
from sparsight.zoo import networks as zoo
from sparsight.zoo.networks.plain import MLP

SIGMA_B, ORDERED = 0.2, 1.0  # chi = 0.779; at the edge sigma_w = 1.304
REGIMES: dict[str, By | None] = {
    "ordered": None,
    "edge": None,
    "edge, rescaled by neuron": "neuron",
    "edge, rescaled by data": "data",
}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)  # over the depth


@dataclass(frozen=True)
class Length:
    """How much is trained on, and for how long. `trial` steps at each rate say which rate a network takes."""

    images: int = 10_000
    validation: int = 1000
    test: int = 10_000
    steps: int = 2000
    trial: int = 100
    batch_size: int = 50


SMOKE = Length(images=1000, validation=300, test=500, steps=20, trial=4)


def nets(densities: Sequence[float]) -> list[tuple[str, float]]:
    """(regime, density): every regime at each density, and the two dense networks, which are not rescaled."""
    thin = [(regime, density) for regime in REGIMES for density in densities]
    return [("ordered", 1.0), ("edge", 1.0), *thin]


@functools.cache
def critical() -> float:
    """sigma_w at the edge of chaos."""
    return edge_of_chaos(torch.tanh, sigma_b=SIGMA_B).sigma_w


def network(depth: int, width: int, regime: str, seed: int) -> MLP:
    """`depth` linear layers. Both phases share their random numbers."""
    model = zoo.mlp((1, 28, 28), 10, hidden=(width,) * (depth - 1), activation=torch.tanh, seed=0)
    sigma_w = ORDERED if regime == "ordered" else critical()
    initialise_(model, sigma_w, SIGMA_B, seed=derive(seed, "deep"))
    assert isinstance(model, MLP)
    return model


def prune(model: MLP, density: float, by: By | None, batch: Batch) -> tuple[MLP, Masks]:
    """SNIP on one batch, globally, layers may die; then the rescaling of the kept weights."""
    masks = dense(model)
    if density < 1:
        masks = Global(density, min_keep=0)(SNIP()(model, masks, [batch]), masks)
    if by is not None:
        model = copy.deepcopy(model)
        trick = Rescale(by, gain=critical(), batches=[batch] if by == "data" else ())
        trick(model, copy.deepcopy(model.state_dict()), Allocation(masks))
    return model, masks


def gradient_ratios(together: SideBySide, masks: Sequence[Masks], batch: Batch) -> list[float | None]:
    """log10 of the mean squared gradient of the kept weights of the second layer over that of the last but one."""
    found: list[float | None] = []
    names = "fc2.weight", f"fc{together.depth - 1}.weight"
    layers = [dict(together.named_parameters())[name] for name in names]
    first, last = torch.autograd.grad(losses(together, *batch).sum(), layers)
    for i, mask in enumerate(masks):
        squares = [_mean_square(g[i], mask[name]) for g, name in zip((first, last), names, strict=True)]
        found.append(math.log10(squares[0] / squares[1]) if min(squares) > 0 else None)
    return found


def _mean_square(gradient: Tensor, mask: Tensor) -> float:
    kept = gradient[mask].double()
    return float((kept**2).mean()) if kept.numel() else 0.0


def measure(depth: int, width: int, seed: int, densities: Sequence[float], smoke: bool) -> Sequence[Row]:
    """The rows of all regimes and densities of one depth and seed."""
    length = SMOKE if smoke else Length()
    data = images(length.images, 28, length.validation, length.test)
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    assert isinstance(data.test, Split)
    scored = next(batches(data.train, 100, generator=torch.Generator().manual_seed(derive(seed, "score"))))
    what = nets(densities)
    pairs = [prune(network(depth, width, regime, seed), density, REGIMES[regime] if density < 1 else None, scored)
             for regime, density in what]  # fmt: skip
    models, masks = [model for model, _ in pairs], [mask for _, mask in pairs]
    ratios = gradient_ratios(SideBySide(models), masks, scored)
    again = {"batch_size": length.batch_size, "seed": derive(seed, "order", depth)}
    tried = []
    for rate in RATES:
        together, _ = train(models, masks, [rate / depth] * len(what), data.train, steps=length.trial,
                            schedule=constant, **again)  # fmt: skip
        tried.append(judge(together, data.validation)[0])
    best = torch.stack(tried).nan_to_num(nan=math.inf).argmin(0).tolist()  # inf: it diverged
    rates = [RATES[i] / depth for i in best]
    together, ended = train(models, masks, rates, data.train, steps=length.steps, schedule=cosine, **again)
    seen = judge(together, data.validation)[1].tolist()
    test_loss, test = judge(together, data.test)
    rows = []
    for i, (regime, density) in enumerate(what):
        cut = find_collapse(masks[i], models[i], scored[0][:1])
        finite = math.isfinite(float(ended[i])) and math.isfinite(float(test_loss[i]))
        rows.append({
            "depth": depth, "width": width, "regime": regime, "density": density, "steps": length.steps,
            "kept": sum(int(mask.sum()) for mask in masks[i].values()), "empty": len(cut.empty),
            "disconnected": cut.disconnected, "gradient_ratio": ratios[i], "rate": rates[i], "diverged": not finite,
            "train_loss": float(ended[i]) if finite else None, "validation_accuracy": seen[i],
            "test_accuracy": float(test[i]),
        })  # fmt: skip
    return rows
