"""What the stopping study runs that Sparsight has no name for: a CNN with batch norm of a second an epoch, fewer
images, and the recipes with a rule and a setting of it.

`study.py` puts this folder on the path of its trials. To run one by hand, make this folder the current one:

    cd studies/stopping
    sparsight run networks:lottery --model lenet-300-100 --data networks:images --rule mask-stable --setting loose
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from rules import SHORT, Short, rule_of
from torch import Tensor, nn
from torch.nn import functional

from sparsight import recipes
from sparsight.numerics.stratified import stratified
from sparsight.pruning.restart import carry_on
from sparsight.pruning.sipp.score import SiPP
from sparsight.pruning.sipp.sensitivities import Reduction
from sparsight.runs.level import Level
from sparsight.runs.recipe import Recipe
from sparsight.runs.search import Listed, Until
from sparsight.types import Batch, Data, Masks, Scored, Split
from sparsight.zoo.data import fashion_mnist

IMAGES = {"images": 20_000, "few": 12_000}


class SmallCNN(nn.Module):
    """Three 3x3 convolutions of stride 2, each with batch norm and ReLU; global average; a linear layer."""

    def __init__(self, widths: tuple[int, int, int] = (12, 24, 48), classes: int = 10) -> None:
        super().__init__()
        one, two, three = widths
        self.conv1 = nn.Conv2d(1, one, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.conv2 = nn.Conv2d(one, two, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(two)
        self.conv3 = nn.Conv2d(two, three, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(three)
        self.fc = nn.Linear(three, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


def cnn() -> nn.Module:
    """12-24-48 channels: 13 548 prunable weights on Fashion-MNIST."""
    return SmallCNN()


def images() -> Data:
    """Fashion-MNIST with 20 000 of its 55 000 training images, 2 000 of each class; the other splits whole."""
    return _some(IMAGES["images"])


def few() -> Data:
    """Fashion-MNIST with 12 000 of its 55 000 training images, 1 200 of each class; the other splits whole."""
    return _some(IMAGES["few"])


def _some(count: int) -> Data:
    whole = fashion_mnist()
    if not isinstance(whole.train, Split):
        raise TypeError(f"the training split is a {type(whole.train).__name__}: allowed is one in memory")
    some, _ = stratified(whole.train.y, [count])
    facts = {**whole.facts, "sizes": {**whole.facts["sizes"], "train": count}}
    train = Split(whole.train.x[some], whole.train.y[some])
    return dataclasses.replace(whole, name=f"fashion-mnist-{count}", train=train, facts=facts)


def lottery(
    *,
    rule: str = "fixed",
    setting: str = "9",
    rate: float = 0.3,
    levels: int = 8,
    epochs: int = 9,
    rewind_epoch: int = 0,
    channels_last: bool = False,
    seed: int = 0,
) -> Recipe:
    """Lottery-ticket pruning whose middle levels a rule of the study may end.

    Args:
        rule: One of the study's rules.
        setting: One of its settings.
        rate: Share of the alive weights that each level removes.
        levels: Pruned levels.
        epochs: The full budget of every level, and the horizon of its cosine.
        rewind_epoch: Restart from the weights after so many epochs of level 0; 0 restarts from initialisation.
        channels_last: Batches and weights in channels-last memory format.
        seed: Seed of everything random.
    """
    plain = recipes.lottery(
        rate=rate, target_density=0.0, levels=levels, epochs=epochs, rewind_epoch=rewind_epoch, control=False, seed=seed
    )
    return dataclasses.replace(_ruled(plain, rule, setting), channels_last=channels_last)


def sap(
    *,
    rule: str = "fixed",
    setting: str = "9",
    target_density: float = 0.1,
    levels: int = 30,
    epochs: int = 9,
    seed: int = 0,
) -> Recipe:
    """SAP (1, 2) to exactly a density, its middle levels ended by a rule of the study.

    Args:
        rule: One of the study's rules.
        setting: One of its settings.
        target_density: Density at which the search ends; no level goes past it.
        levels: Most pruned levels.
        epochs: The full budget of every level, and the horizon of its cosine.
        seed: Seed of everything random.
    """
    plain = recipes.sap(
        p=1.0, q=2.0, target_density=target_density, levels=levels, epochs=epochs, control=False, seed=seed
    )
    return _ruled(plain, rule, setting)


class Size(SiPP):
    """score = |w|, with what SiPP's scores know besides: what no gradient reaches."""

    def __call__(self, model: nn.Module, masks: Masks, batches: Sequence[Batch]) -> Scored:
        found = super().__call__(model, masks, batches)
        return dataclasses.replace(found, scores={name: facts.size for name, facts in found.facts.items()})


def sipp(
    *,
    rule: str = "fixed",
    setting: str = "9",
    by: Literal["det", "rand", "hybrid", "magnitude"] = "hybrid",
    reduction: Reduction | None = None,
    refill: bool = False,
    rate: float = 0.3,
    levels: int = 8,
    epochs: int = 9,
    channels_last: bool = False,
    seed: int = 0,
) -> Recipe:
    """SiPP, a cascade that goes on from the weights as pruned, with the lottery ticket's densities.

    Args:
        rule: One of the study's rules.
        setting: One of its settings.
        by: The variant, or the same cascade by magnitude.
        reduction: Over the patches of a convolution; by default the variant's own.
        refill: Spend what no gradient reaches on weights that are alive.
        rate: Share of the alive weights that each level removes.
        levels: Pruned levels.
        epochs: The full budget of every level, and the horizon of its cosine.
        channels_last: Batches and weights in channels-last memory format.
        seed: Seed of everything random.
    """
    plain = recipes.sipp(
        variant="det" if by == "magnitude" else by, reduction=reduction, refill=refill, first_density=1 - rate,
        target_density=(1 - rate) ** levels, levels=levels, epochs=epochs, control=False, seed=seed,
    )  # fmt: skip
    if by == "magnitude":
        plain = dataclasses.replace(plain, score=dataclasses.replace(plain.scoring, scorer=Size(propagate=refill)))
    return dataclasses.replace(_ruled(plain, rule, setting), channels_last=channels_last)


def _ruled(plain: Recipe, rule: str, setting: str) -> Recipe:
    """The recipe with a rule on its middle levels, evaluated as the rule asks, and with its budgets and restarts."""
    stop, every = rule_of(rule, setting)
    whole = dataclasses.replace(plain.plan, evaluate_every=every)
    short = SHORT.get((rule, setting), Short(whole.epochs, whole.epochs))
    first = dataclasses.replace(whole, epochs=min(short.first, whole.epochs))
    middle = dataclasses.replace(whole, epochs=min(short.middle, whole.epochs), stop=stop)

    def between(level: Level) -> Level:
        return dataclasses.replace(level, restart=level.restart if short.carried == "none" else carry_on, train=middle)

    def last(level: Level) -> Level:
        return dataclasses.replace(level, restart=carry_on if short.carried == "all" else level.restart, train=whole)

    search = plain.search
    if isinstance(search, Until):
        ruled = {"level": between(search.level), "last": last(search.last or search.level)}
        return dataclasses.replace(plain, levels=dataclasses.replace(search, **ruled, first=Level(train=first)))
    if not isinstance(search, Listed):
        raise TypeError(f"the levels of {plain.name} must be listed, or an Until, got {search!r:.80}")
    *pruned, end = search.levels[1:]
    return dataclasses.replace(plain, levels=(Level(train=first), *map(between, pruned), last(end)))
