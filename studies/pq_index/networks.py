"""What the study runs that Sparsight has no name for: the paper's CNN at a quarter of its width, fewer images,
and the three recipes in channels-last memory format.

`study.py` puts this folder on the path of its trials. To run one by hand, make this folder the current one:

    cd studies/pq_index
    sparsight run networks:sap --model networks:cnn --data networks:images --precision bf16
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from torch import nn

from sparsight import recipes
from sparsight.numerics.stratified import stratified
from sparsight.runs.recipe import Recipe
from sparsight.types import Data, Split
from sparsight.zoo import networks as zoo
from sparsight.zoo.data import fashion_mnist

IMAGES = 15_000


def cnn() -> nn.Module:
    """The paper's CNN with 16-32-64-128 channels: 98 192 prunable weights on Fashion-MNIST."""
    return zoo.cnn((1, 28, 28), 10, width=0.25)


def images() -> Data:
    """Fashion-MNIST with 15 000 of its 55 000 training images, 1 500 of each class; the other splits whole."""
    whole = fashion_mnist()
    if not isinstance(whole.train, Split):
        raise TypeError(f"the training split is a {type(whole.train).__name__}: allowed is one in memory")
    some, _ = stratified(whole.train.y, [IMAGES])
    facts = {**whole.facts, "sizes": {**whole.facts["sizes"], "train": IMAGES}}
    train = Split(whole.train.x[some], whole.train.y[some])
    return dataclasses.replace(whole, name=f"fashion-mnist-{IMAGES}", train=train, facts=facts)


def _channels_last(recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """The same recipe, its batches in channels-last memory format; its options and help stay."""

    @functools.wraps(recipe)
    def made(**arguments: object) -> Recipe:
        return dataclasses.replace(recipe(**arguments), channels_last=True)

    return made


sap = _channels_last(recipes.sap)
lottery = _channels_last(recipes.lottery)
oneshot = _channels_last(recipes.oneshot)
