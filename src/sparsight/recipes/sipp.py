"""SiPP: prune by the share of a neuron's input that each weight carries, over a small batch of inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sparsight.numerics.seeds import derive
from sparsight.pruning.restart import Reinitialise, carry_on, rewind
from sparsight.pruning.schedules import Geometric, rounds
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.bounds import Bound, most_points
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.sipp.sensitivities import Reduction
from sparsight.recipes._options import TARGET, choice
from sparsight.runs.recipe import Recipe
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.stop import StopName, named_rule
from sparsight.types import Allocation, Allocator, Restart, StateDict


@dataclass(frozen=True)
class Unweighted:
    """A restart from other weights than those that were sampled: the masks hold, the factors do not."""

    restart: Restart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        return self.restart(model, rewind_point, dataclasses.replace(allocation, multipliers=None))


def sipp(
    *,
    variant: Literal["det", "rand", "hybrid"] = "hybrid",
    reduction: Reduction | None = None,
    order: Literal["cascade", "oneshot"] = "cascade",
    untrained: bool = False,
    start: Literal["pruned", "rewind", "fresh"] = "pruned",
    first_density: float = 0.8,
    target_density: float | None = None,
    levels: int = 8,
    delta: float = 1e-16,
    constant: float = 3.0,
    bound: Bound = "reference",
    points: int | None = None,
    propagate: bool = False,
    refill: bool = False,
    min_keep: int = 1,
    epochs: int = 3,
    batch_size: int = 250,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float = 1.0,
    rewind_epoch: int = 0,
    within: float | None = None,
    stop: StopName = "fixed-epochs",
    evaluate_every: float = 1.0,
    control: bool = True,
    seed: int = 0,
) -> Recipe:
    """Keep the weights that carry the largest share of their neuron's input on some calibration point, and retrain.

    Source: Baykal et al., "SiPPing Neural Networks", 2019 (SIMODS 2022), after its published code. Densities fall
    geometrically from the first to the target. A cascade scores what the last level trained, one-shot always the
    network before any pruning; each level is then trained for the full number of epochs.

    Args:
        variant: The most sensitive weights of all layers together (det); or a budget for each group of weights, kept
            as a reweighted sample (rand) or as the one of the two that has the better bound (hybrid).
        reduction: Over the patches of a convolution, the largest share (max) or the mean. By default the mean with det
            and the largest with rand and hybrid, as the published code has it.
        order: Score the current network at each level (cascade), or always the unpruned one (oneshot).
        untrained: Prune the initial network, without training it first.
        start: Train on from the weights as pruned, return to the rewind point, or draw fresh ones (both under the masks
            alone, without the factors of a sample).
        first_density: Density of the first pruned level; with a single level the target.
        target_density: Density of the last level; if it is given, that network is handed over. Default: 0.1.
        levels: Number of pruned levels.
        delta: Failure probability that the number of points and the bounds are made for.
        constant: C, on which both depend.
        bound: How many draws for which error: as the published code has it, or as Bernstein's inequality gives it.
        points: Calibration points; if not given, the number that delta asks for.
        propagate: Remove, too, all parameters that no gradient reaches on the calibration batches.
        refill: Propagate, and spend what that frees on weights that are alive, until the density is met by them.
        min_keep: Weights that every tensor keeps at least (det; samples have no floor).
        epochs: Epochs of training at each level.
        batch_size: Samples of a training step.
        lr: Learning rate at the start of each level; it falls to 0 along a cosine.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on all parameters.
        clip: Largest norm of the masked gradient.
        rewind_epoch: With start rewind, the epoch of level 0 to return to; 0 is initialisation.
        within: Hand over the sparsest level at most this many points below dense validation accuracy. Default: 0.5;
            with a target_density the network at that density.
        stop: What may end the levels between the first and the last before their epochs are over; fixed-epochs is
            nothing.
        evaluate_every: Epochs between two evaluations, at which a level may end; a fraction evaluates inside epochs.
        control: Train the dense network for the whole run's epochs beside it.
        seed: Seed of everything random.
    """
    oneshot = order == "oneshot"
    if order not in ("cascade", "oneshot"):
        raise ValueError(f"unknown order {order!r}: allowed are 'cascade' and 'oneshot'")
    back, rewind_epoch = _restart(start, oneshot, untrained, rewind_epoch, epochs, seed)

    if variant not in ("det", "rand", "hybrid"):
        raise ValueError(f"unknown variant {variant!r}: allowed are 'det', 'rand' and 'hybrid'")
    if variant != "det" and min_keep != 1:
        raise ValueError(f"min_keep is for variant 'det': got {min_keep} with {variant!r}, whose samples have no floor")

    def prune(number: int, density: float) -> Allocator:
        if variant == "det":
            return SiPPDet(density, min_keep=min_keep, recover=oneshot, refill=refill)
        kind, own = SiPPRand if variant == "rand" else SiPPHybrid, derive(seed, "sipp level", number)
        return kind(density, delta=delta, constant=constant, bound=bound, recover=oneshot, refill=refill, seed=own)

    wanted = points or most_points(delta, constant)
    if reduction is None:
        reduction = "mean" if variant == "det" else "max"
    densities = _densities(first_density, TARGET if target_density is None else target_density, levels)
    pruned = tuple((prune(number, density),) for number, density in enumerate(densities))
    return Recipe(
        name="sipp",
        score=SiPP(reduction, delta, constant, points, masked=not oneshot, propagate=propagate or refill),
        score_from=("init" if untrained else "dense") if oneshot else "current",
        score_batches=max(1, -(-wanted // max(1, batch_size))),
        levels=pruned if untrained else ((), *pruned),
        optimizer=NesterovSGD(lr=lr, momentum=momentum, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        clip=clip,
        restart=back,
        rewind_epoch=rewind_epoch,
        choose=choice(target_density, within),
        stop=named_rule(stop),
        evaluate_every=evaluate_every,
        control=control,
        seed=seed,
    )


def _densities(first: float, target: float, levels: int) -> list[float]:
    """From the first to the target at a constant rate; a single level has the target."""
    if levels < 1:
        raise ValueError(f"levels must be a whole number >= 1: got {levels!r}")
    if levels == 1:
        first = target
    if not 0 < target <= first <= 1:
        got = f"{first!r} first and {target!r} last" if levels > 1 else repr(target)
        raise ValueError(f"densities must fall, inside (0, 1]: got {got}")
    if levels == 1:
        return [target]
    return [first, *(first * share for share in rounds(Geometric(target / first), levels - 1)[:-1]), target]


def _restart(
    start: str, oneshot: bool, untrained: bool, rewind_epoch: int, epochs: int, seed: int
) -> tuple[Restart, int]:
    """Where a level starts from, and the epoch of the rewind point.

    One-shot pruning goes on from the unpruned network at every level: its rewind point is the network that is scored.
    """
    if start in ("pruned", "fresh") and rewind_epoch:
        raise ValueError(f"with start {start!r} nothing is rewound: rewind_epoch must be 0, got {rewind_epoch}")
    if start == "pruned":
        return (rewind, 0 if untrained else epochs) if oneshot else (carry_on, rewind_epoch)
    if start == "rewind":
        return Unweighted(rewind), rewind_epoch
    if start == "fresh":
        return Unweighted(Reinitialise(seed)), rewind_epoch
    raise ValueError(f"unknown start {start!r}: allowed are 'pruned', 'rewind' and 'fresh'")
