"""The fingerprint by which a run recognises its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sized
from typing import Any

from sparsight.model.batch import digest
from sparsight.records.describe import describe
from sparsight.types import Batch, Data, Split


def fingerprint(data: Data) -> dict[str, Any]:
    """JSON values that are equal for equal data: name, facts, and a description of each split.

    A split in memory gives the SHA-256 of its tensors (dtype, shape, then bytes in logical row-major order) and its
    augmentation. An iterable gives its type and, if known, its length; nothing is drawn from it.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "name": data.name,
        "facts": describe(data.facts),
        "splits": {name: None if split is None else _split(split) for name, split in splits.items()},
    }


def _split(split: Split | Iterable[Batch]) -> dict[str, Any]:
    if isinstance(split, Split):
        augment = describe(split.augment)
        return {"samples": len(split), "sha256": digest((split.x, split.y)), "augment": augment}
    kind = f"{type(split).__module__}:{type(split).__qualname__}"
    length = None
    if isinstance(split, Sized):  # the __len__ of a DataLoader over a stream raises
        with contextlib.suppress(TypeError, NotImplementedError):
            length = len(split)
    return {"type": kind, "length": length}
