"""Converts uint8 images to normalised floats, and says what is known of data sets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from sparsight.types import Data, Split


class DataNote(UserWarning):
    """How data were changed while reading: scaled, transposed, resized, split."""


def prepared(data: Data) -> Data:
    """The data with uint8 images scaled to [0, 1] and normalised per channel by the training split.

    A standard deviation of 0 counts as 1. Images with channels last ([N, H, W, 1 or 3]) become [N, C, H, W]. Floats and
    loaders do not change. Warns: `DataNote` about the changes.
    """
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    bytes_ = {name for name, part in splits.items() if isinstance(part, Split) and part.x.dtype == torch.uint8}
    if "train" not in bytes_:
        return data
    first = splits["train"].x
    last = first.dim() == 4 and first.shape[-1] in (1, 3) and first.shape[1] not in (1, 3)
    said = "channels were moved to the front; " if last else ""
    scaled = {}
    for name in bytes_:
        x = splits[name].x
        x = x.permute(0, 3, 1, 2) if last else x.unsqueeze(1) if x.dim() == 3 else x
        scaled[name] = x.contiguous().float().div_(255)
    train = scaled["train"].double()
    axes = [d for d in range(train.dim()) if d != 1 or train.dim() < 3]
    mean, std = train.mean(axes, keepdim=True).float(), train.std(axes, correction=0, keepdim=True)
    std = torch.where(std > 0, std, 1.0).float()
    made = {n: Split((x - mean) / std, splits[n].y, splits[n].augment) for n, x in scaled.items()}
    normal = {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}
    facts = {**data.facts, "normalisation": normal, "input_shape": list(made["train"].x.shape[1:])}
    warnings.warn(
        f"{data.name}: {said}uint8 images were scaled to [0, 1] and normalised by the training split's mean "
        f"{_listed(normal['mean'])} and standard deviation {_listed(normal['std'])}",
        DataNote,
        stacklevel=2,
    )
    return Data(name=data.name, facts=facts, **{**splits, **made})


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)


def described(
    name: str, splits: tuple[Split, Split, Split], class_names: Sequence[str], mean: float, std: float, **facts: Any
) -> Data:
    """Data of splits (train, validation, test), with the given facts and those that follow from the splits."""
    train, validation, test = splits
    known = {
        "classes": len(class_names),
        "class_names": list(class_names),
        "input_shape": list(train.x.shape[1:]),
        "normalisation": {"mean": mean, "std": std},
        "sizes": {"train": len(train), "validation": len(validation), "test": len(test)},
    }
    return Data(name=name, train=train, validation=validation, test=test, facts={**facts, **known})
