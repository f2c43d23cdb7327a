"""One-shot pruning: every level is cut from the trained dense network's weights, then trained from the start."""

from __future__ import annotations

from sparsight.pruning.allocate.shrink import Shrink
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes._options import Ending, between, ending, shortened
from sparsight.runs.recipe import Recipe
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.stop import StopName, named_rule
from sparsight.types import Scope


def oneshot(
    *,
    rate: float = 0.2,
    scope: Scope = "global",
    min_keep: int = 1,
    until: Ending = "density",
    target_density: float | None = None,
    levels: int | None = None,
    epochs: int = 3,
    batch_size: int = 250,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float = 1.0,
    rewind_epoch: int = 0,
    within: float | None = None,
    stop: StopName | None = None,
    evaluate_every: float | None = None,
    control: bool = True,
    seed: int = 0,
) -> Recipe:
    """Rank by the trained dense network at every level: level t keeps (1 - rate)^t of it, rewinds, and trains.

    Each level is one-shot magnitude pruning to its own density; the levels trace the curve. Source: the one-shot
    baseline of Diao et al., ICLR 2023, with one dense network scored throughout.

    Args:
        rate: Share of the alive weights that each level removes.
        scope: What is ranked together: all weights, each layer, or each neuron (output row).
        min_keep: Weights that every tensor (or row, in neuron scope) keeps at least.
        until: When to stop pruning: at the target density, at the minimum of the PQ index (0.5, 1), or at the first
            level more than `within` points below dense validation accuracy.
        target_density: Prune the last level to exactly this density (kept / prunable weights) and hand that network
            over; with another until, a limit. 0 is no target. Default: search down to 0.1, with another until no limit.
        levels: Prune at most this many levels. Default: 15 with until density and no target_density, otherwise 30.
        epochs: Epochs of training at each level.
        batch_size: Samples of a training step.
        lr: Learning rate at the start of each level; it falls to 0 along a cosine.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty, on all parameters.
        clip: Largest norm of the masked gradient.
        rewind_epoch: Restart from the weights after so many epochs of level 0; 0 restarts from initialisation.
        within: Hand over the sparsest level at most this many points below dense validation accuracy. Default: 0.5;
            with a target_density the network at that density; with until pq-minimum the level at the minimum.
        stop: What may end the levels between the first and the last before their epochs are over; fixed-epochs, and
            none given, is nothing.
        evaluate_every: Epochs between two evaluations, at which a level may end; a fraction evaluates inside epochs. If
            not given, 1.
        control: Train the dense network for the whole run's epochs beside it.
        seed: Seed of everything random.
    """
    prune = Shrink(rate=rate, scope=scope, min_keep=min_keep, target_density=target_density or None)
    middle = between(False, until, epochs, None, stop, evaluate_every)
    search, choose = ending(
        prune, until, pair=(0.5, 1.0), target_density=target_density, levels=levels, within=within,
        short=shortened(middle.stop, middle.epochs),
    )  # fmt: skip
    return Recipe(
        name="oneshot",
        score=Magnitude(),
        score_from="dense",
        levels=search,
        optimizer=NesterovSGD(lr=lr, momentum=momentum, weight_decay=weight_decay),
        epochs=epochs,
        batch_size=batch_size,
        clip=clip,
        rewind_epoch=rewind_epoch,
        choose=choose,
        stop=named_rule(middle.stop),
        evaluate_every=middle.evaluate_every,
        control=control,
        seed=seed,
    )
