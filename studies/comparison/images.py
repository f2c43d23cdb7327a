"""Fashion-MNIST with 10,000 training images, as the comparison of all methods takes it."""

from __future__ import annotations

from dataclasses import replace

from sparsight.numerics import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data import fashion_mnist


def fashion_10k() -> Data:
    """Validation and test split of `fashion_mnist`, and a stratified part of its training images, always the same."""
    whole = fashion_mnist()
    assert isinstance(whole.train, Split)
    part = stratified(whole.train.y, [10_000])[0]
    train = Split(whole.train.x[part], whole.train.y[part])
    sizes = {**whole.facts["sizes"], "train": len(train)}
    return replace(
        whole, name="fashion-mnist, 10,000 training images", train=train, facts={**whole.facts, "sizes": sizes}
    )
