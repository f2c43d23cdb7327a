"""SiPP: prune by each weight's share of its neuron's input, over a small batch of inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn
from typing_extensions import Doc

from sparsight.numerics.checks import MOST_LISTED, check_known, check_whole
from sparsight.numerics.seeds import derive
from sparsight.pruning.reinitialise import Reinitialise
from sparsight.pruning.restart import carry_on, rewind
from sparsight.pruning.schedules import Geometric, rounds
from sparsight.pruning.sipp.allocate import SiPPDet, SiPPHybrid, SiPPRand
from sparsight.pruning.sipp.bounds import Bound, most_points
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.sipp.sensitivities import Reduction
from sparsight.recipes import _options as o
from sparsight.recipes._training import TARGET, choice, sgd
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe, Scoring
from sparsight.train.batches import USUAL
from sparsight.train.stop import StopName, named_rule
from sparsight.types import Allocation, Allocator, Restart, StateDict


@dataclass(frozen=True)
class Unweighted:
    """A restart from other weights than the sampled ones: it keeps the masks and drops the factors."""

    restart: Restart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        return self.restart(model, rewind_point, dataclasses.replace(allocation, multipliers=None))


def sipp(
    *,
    variant: Literal["det", "rand", "hybrid"] = "hybrid",
    reduction: Reduction | None = None,
    order: Literal["cascade", "oneshot"] = "cascade",
    untrained: Annotated[bool, Doc("Prune the initial network, without training it first.")] = False,
    start: Literal["pruned", "rewind", "fresh"] = "pruned",
    first_density: float = 0.8,
    target_density: float | None = None,
    levels: Annotated[int, Doc("Number of pruned levels.")] = 8,
    delta: Annotated[float, Doc("Failure probability, which sets the number of points and the bounds.")] = 1e-16,
    constant: Annotated[float, Doc("C in the bounds and in the number of points.")] = 3.0,
    bound: Bound = "reference",
    points: Annotated[int | None, Doc("Calibration points. Default: the number that --delta requires.")] = None,
    propagate: bool = False,
    refill: bool = False,
    min_keep: Annotated[int, Doc("Keep at least this many weights in every tensor; with --variant det only.")] = 1,
    epochs: o.Epochs = 3,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    momentum: o.Momentum = 0.9,
    weight_decay: o.WeightDecay = 5e-4,
    clip: o.Clip = 1.0,
    rewind_epoch: Annotated[int, Doc("With --start rewind, the epoch of level 0 to return to; 0: initialisation.")] = 0,
    within: float | None = None,
    stop: StopName = "fixed-epochs",
    evaluate_every: float = 1.0,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Keep the weights with the largest share of their neuron's input on any calibration point, and retrain.

    Source: Baykal et al., "SiPPing Neural Networks", 2019 (SIMODS 2022), and its published code. Densities fall
    geometrically from the first to the target. A cascade scores the network of the previous level, one-shot always the
    unpruned network; each level then trains for all epochs.

    Args:
        variant: Keep the most sensitive weights of all layers (det); or divide the budget among groups of weights and
            keep a reweighted sample of each (rand), or whichever of the two has the better bound (hybrid).
        reduction: Take the largest share (max) or the mean over the patches of a convolution. Default, as in the
            published code: mean with det, otherwise max.
        order: Score the current network at each level, or always the unpruned network.
        start: Continue from the pruned weights, return to the rewind point, or draw fresh weights. The last two use the
            masks without the factors of a sample.
        first_density: Density of the first pruned level; a single level goes straight to the target.
        target_density: Density of the last level; if given, that level is chosen. Default: 0.1.
        bound: Draws needed for an error: as in the published code, or by Bernstein's inequality.
        propagate: Also remove all parameters that no gradient reaches on the calibration batches.
        refill: Propagate, and keep other live weights instead, until the density is reached.
        within: Choose the sparsest level at most this many percentage points below the dense network's validation
            accuracy. Default: 0.5 (with a target density, the level at it).
        stop: Rule that may end the levels between the first and the last early; fixed-epochs: never.
        evaluate_every: Epochs between two evaluations, after which --stop may end a level; may be a fraction.
    """
    oneshot = order == "oneshot"
    check_known(("cascade", "oneshot"), order=order)
    check_known(("det", "rand", "hybrid"), variant=variant)
    if variant != "det" and min_keep != 1:
        raise ValueError(f"min_keep={min_keep} needs variant='det', got variant={variant!r}")
    back, rewind_epoch = _restart(start, oneshot, untrained, rewind_epoch, epochs, seed)

    def prune(number: int, density: float) -> Allocator:
        if variant == "det":
            return SiPPDet(density, min_keep=min_keep, recover=oneshot, refill=refill)
        kind, own = SiPPRand if variant == "rand" else SiPPHybrid, derive(seed, "sipp level", number)
        return kind(density, delta=delta, constant=constant, bound=bound, recover=oneshot, refill=refill, seed=own)

    reduction = reduction or ("mean" if variant == "det" else "max")
    scorer = SiPP(reduction, delta, constant, points, masked=not oneshot, propagate=propagate or refill)
    wanted = points or most_points(delta, constant)
    plan = dataclasses.replace(sgd(epochs, batch_size, lr, momentum, weight_decay, clip), evaluate_every=evaluate_every)
    densities = _densities(first_density, TARGET if target_density is None else target_density, levels)
    pruned = [Level((prune(n, density),), back, plan) for n, density in enumerate(densities)]
    short = dataclasses.replace(plan, stop=named_rule(stop))
    for n in range(1 if untrained else 0, len(pruned) - 1):  # between the first level and the last
        pruned[n] = dataclasses.replace(pruned[n], train=short)
    return Recipe(
        name="sipp",
        score=Scoring(
            scorer,
            ("init" if untrained else "dense") if oneshot else "current",
            max(1, -(-wanted // (batch_size or USUAL))),
        ),
        levels=(*pruned,) if untrained else (Level(train=plan), *pruned),
        choose=choice(target_density, within),
        rewind_epoch=rewind_epoch,
        control=control,
        seed=seed,
    )


def _densities(first: float, target: float, levels: int) -> list[float]:
    """Densities from the first to the target at a constant rate; only the target for a single level."""
    check_whole(1, MOST_LISTED, levels=levels)
    if levels == 1:
        first = target
    if not 0 < target <= first <= 1:
        got = f"{first!r} first and {target!r} last" if levels > 1 else repr(target)
        raise ValueError(f"densities must be in (0, 1] and must not increase, got {got}")
    if levels == 1:
        return [target]
    return [first, *(first * share for share in rounds(Geometric(target / first), levels - 1)[:-1]), target]


def _restart(
    start: str, oneshot: bool, untrained: bool, rewind_epoch: int, epochs: int, seed: int
) -> tuple[Restart, int]:
    """The restart of a level, and the epoch of the rewind point: for one-shot pruning, that of the scored network."""
    check_known(("pruned", "rewind", "fresh"), start=start)
    if start != "rewind" and rewind_epoch:
        raise ValueError(f"rewind_epoch must be 0 with start={start!r}, which never rewinds, got {rewind_epoch}")
    if start == "pruned":
        return (rewind, 0 if untrained else epochs) if oneshot else (carry_on, rewind_epoch)
    return Unweighted(rewind if start == "rewind" else Reinitialise(seed)), rewind_epoch
