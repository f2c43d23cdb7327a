"""Lottery-ticket pruning: a fixed rate of the remaining weights at each level, then back to the start."""

from __future__ import annotations

from sparsight.pruning.allocate.shrink import Shrink
from sparsight.pruning.restart import rewind_or
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.recipes._options import Ending, between, ending, shortened
from sparsight.runs.recipe import Recipe
from sparsight.train.optimizers import NesterovSGD
from sparsight.train.stop import StopName, named_rule
from sparsight.types import Scope


def lottery(
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
    middle_epochs: int | None = None,
    carry_on: bool = False,
    within: float | None = None,
    stop: StopName | None = None,
    evaluate_every: float | None = None,
    control: bool = True,
    seed: int = 0,
) -> Recipe:
    """Remove a fixed rate of the smallest remaining weights at each level, rewind, and train again.

    Source: Frankle and Carbin, "The Lottery Ticket Hypothesis", ICLR 2019; as the baseline of Diao et al., ICLR
    2023, with buffers rewound too and counts exact.

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
        middle_epochs: Epochs of the levels between the first and the last, along a cosine of their own; if not given,
            epochs, or by the default rule (see stop) a third of them.
        carry_on: Start pruned levels from the weights as they are, instead of the rewind point; a third of the epochs
            is then enough.
        within: Hand over the sparsest level at most this many points below dense validation accuracy. Default: 0.5;
            with a target_density the network at that density; with until pq-minimum the level at the minimum.
        stop: What may end the levels between the first and the last before their epochs are over; fixed-epochs is
            nothing. If neither it nor middle_epochs is given, the default rule with carry_on and until density is
            recovered; otherwise fixed-epochs.
        evaluate_every: Epochs between two evaluations, at which a level may end; a fraction evaluates inside epochs.
            If not given, 1, or 0.5 by the default rule.
        control: Train the dense network for the whole run's epochs beside it.
        seed: Seed of everything random.
    """
    prune = Shrink(rate=rate, scope=scope, min_keep=min_keep, target_density=target_density or None)
    middle = between(carry_on, until, epochs, middle_epochs, stop, evaluate_every)
    search, choose = ending(
        prune, until, pair=(0.5, 1.0), target_density=target_density, levels=levels, within=within,
        short=shortened(middle.stop, middle.epochs),
    )  # fmt: skip
    return Recipe(
        name="lottery",
        score=Magnitude(),
        levels=search,
        optimizer=NesterovSGD(lr=lr, momentum=momentum, weight_decay=weight_decay),
        epochs=epochs,
        middle_epochs=middle.epochs,
        restart=rewind_or(carry_on, rewind_epoch),
        batch_size=batch_size,
        clip=clip,
        rewind_epoch=rewind_epoch,
        choose=choose,
        stop=named_rule(middle.stop),
        evaluate_every=middle.evaluate_every,
        control=control,
        seed=seed,
    )
