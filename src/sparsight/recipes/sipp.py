"""SiPP: prune by the share of a neuron's input that each weight carries, over a small batch of inputs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn
from typing_extensions import Doc

from sparsight.numerics.checks import MOST_LISTED, check_whole
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
    """A restart from other weights than those that were sampled: the masks hold, the factors do not."""

    restart: Restart

    def __call__(self, model: nn.Module, rewind_point: StateDict, allocation: Allocation) -> nn.Module:
        return self.restart(model, rewind_point, dataclasses.replace(allocation, multipliers=None))


def sipp(
    *,
    variant: Annotated[
        Literal["det", "rand", "hybrid"],
        Doc(
            "Keep the most sensitive weights of all layers together (det); or share the budget out over the groups of "
            "weights, and keep a reweighted sample of each (rand) or whichever has the better bound (hybrid)."
        ),
    ] = "hybrid",
    reduction: Annotated[
        Reduction | None,
        Doc(
            "Over the patches of a convolution, the largest share (max) or the mean. Default, as in the published "
            "code: mean with det, max with rand and hybrid."
        ),
    ] = None,
    order: Annotated[
        Literal["cascade", "oneshot"], Doc("Score the current network at each level, or always the unpruned one.")
    ] = "cascade",
    untrained: Annotated[bool, Doc("Prune the initial network, without training it first.")] = False,
    start: Annotated[
        Literal["pruned", "rewind", "fresh"],
        Doc(
            "Train on from the weights as pruned, return to the rewind point, or draw fresh ones (both under the masks "
            "alone, without the factors of a sample)."
        ),
    ] = "pruned",
    first_density: Annotated[float, Doc("Density of the first pruned level; a single level has the target.")] = 0.8,
    target_density: Annotated[
        float | None, Doc("Density of the last level; if given, that network is handed over. Default: 0.1.")
    ] = None,
    levels: Annotated[int, Doc("Number of pruned levels.")] = 8,
    delta: Annotated[float, Doc("Failure probability that the number of points and the bounds are made for.")] = 1e-16,
    constant: Annotated[float, Doc("C, on which both depend.")] = 3.0,
    bound: Annotated[
        Bound, Doc("How many draws for which error: as in the published code, or as Bernstein's inequality gives it.")
    ] = "reference",
    points: Annotated[int | None, Doc("Calibration points. Default: the number that --delta asks for.")] = None,
    propagate: Annotated[
        bool, Doc("Also remove all parameters that no gradient reaches on the calibration batches.")
    ] = False,
    refill: Annotated[
        bool, Doc("Propagate, and spend what that frees on weights that are alive, until they meet the density.")
    ] = False,
    min_keep: Annotated[int, Doc("Keep at least this many weights in every tensor (det; samples have no floor).")] = 1,
    epochs: o.Epochs = 3,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    momentum: o.Momentum = 0.9,
    weight_decay: o.WeightDecay = 5e-4,
    clip: o.Clip = 1.0,
    rewind_epoch: Annotated[
        int, Doc("With --start rewind, the epoch of level 0 to return to; 0 is initialisation.")
    ] = 0,
    within: Annotated[
        float | None,
        Doc(
            "Pick the sparsest level at most this many percentage points below the dense network's validation "
            "accuracy. Default: 0.5; with a target density, the network at that density."
        ),
    ] = None,
    stop: Annotated[
        StopName, Doc("Rule that may end the levels between the first and the last early; fixed-epochs: never.")
    ] = "fixed-epochs",
    evaluate_every: Annotated[
        float, Doc("Epochs between two evaluations, at which a level may end; a fraction evaluates inside epochs.")
    ] = 1.0,
    control: o.Control = True,
    seed: o.Seed = 0,
) -> Recipe:
    """Keep the weights that carry the largest share of their neuron's input on some calibration point, and retrain.

    Source: Baykal et al., "SiPPing Neural Networks", 2019 (SIMODS 2022), after its published code. Densities fall
    geometrically from the first to the target. A cascade scores what the last level trained, one-shot always the
    network before any pruning; each level is then trained for the full number of epochs.
    """
    oneshot = order == "oneshot"
    _check(order=(order, ("cascade", "oneshot")), variant=(variant, ("det", "rand", "hybrid")))
    if variant != "det" and min_keep != 1:
        raise ValueError(f"min_keep needs variant 'det', got {min_keep} with {variant!r}, whose samples have no floor")
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


def _check(**given: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, known) in given.items():
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}, expected one of {', '.join(known)}")


def _densities(first: float, target: float, levels: int) -> list[float]:
    """From the first to the target at a constant rate; a single level has the target."""
    check_whole(1, MOST_LISTED, levels=levels)
    if levels == 1:
        first = target
    if not 0 < target <= first <= 1:
        got = f"{first!r} first and {target!r} last" if levels > 1 else repr(target)
        raise ValueError(f"densities must fall, inside (0, 1], got {got}")
    if levels == 1:
        return [target]
    return [first, *(first * share for share in rounds(Geometric(target / first), levels - 1)[:-1]), target]


def _restart(
    start: str, oneshot: bool, untrained: bool, rewind_epoch: int, epochs: int, seed: int
) -> tuple[Restart, int]:
    """Where a level starts from, and the epoch of the rewind point.

    One-shot pruning goes on from the unpruned network at every level: its rewind point is the network that is scored.
    """
    _check(start=(start, ("pruned", "rewind", "fresh")))
    if start != "rewind" and rewind_epoch:
        raise ValueError(f"start={start!r} rewinds nothing: rewind_epoch must be 0, got {rewind_epoch}")
    if start == "pruned":
        return (rewind, 0 if untrained else epochs) if oneshot else (carry_on, rewind_epoch)
    return Unweighted(rewind if start == "rewind" else Reinitialise(seed)), rewind_epoch
