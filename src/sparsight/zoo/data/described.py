"""Facts about the data sets of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsight.types import Data, Split


def described(
    name: str, splits: tuple[Split, Split, Split], class_names: Sequence[str], mean: float, std: float, **facts: Any
) -> Data:
    """Data of splits (train, validation, test), with the given facts and those that follow from the splits."""
    train, validation, test = splits
    sizes = {"train": len(train), "validation": len(validation), "test": len(test)}
    known = {
        "classes": len(class_names),
        "class_names": list(class_names),
        "input_shape": list(train.x.shape[1:]),
        "normalisation": {"mean": mean, "std": std},
        "sizes": sizes,
    }
    return Data(name=name, train=train, validation=validation, test=test, facts={**facts, **known})
