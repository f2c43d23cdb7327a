"""Describes a recipe or data as JSON values, which are equal for equal ones."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import json
import math
import pathlib
import types
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np
import torch

from sparsight.model.batch import digest
from sparsight.types import Batch, Data, Split


def describe(thing: Any) -> Any:
    """JSON values that describe a recipe, allocator, rule or function; equal for equal things.

    A dataclass gives its type and fields, a function its public name, a partial or bound method its parts, a tensor or
    array its type, shape and SHA-256. A closure, lambda or other object gives only its place or type, which may not
    identify it.
    """
    if isinstance(thing, enum.Enum):
        return f"{type(thing).__qualname__}.{thing.name}"
    if isinstance(thing, np.generic):
        thing = thing.item()
    if thing is None or isinstance(thing, (bool, int, str)):
        return thing
    if isinstance(thing, (torch.dtype, torch.device, pathlib.PurePath)):
        return str(thing)
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        tensor = torch.as_tensor(thing).detach().cpu().contiguous()
        content = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return {"type": str(tensor.dtype), "shape": list(tensor.shape), "sha256": content.hexdigest()}
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        parts = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"type": type(thing).__qualname__, **parts}
    if isinstance(thing, Mapping):
        return {str(key): describe(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [describe(item) for item in thing]
    if isinstance(thing, (set, frozenset)):
        return sorted((describe(item) for item in thing), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(thing, functools.partial):
        keywords = {f"{key}=": describe(value) for key, value in thing.keywords.items()}
        return {"partial": describe(thing.func), "args": describe(thing.args), **keywords}
    if isinstance(thing, types.MethodType):
        return {"method": describe(thing.__func__), "of": describe(thing.__self__)}
    return public_name(thing if hasattr(thing, "__qualname__") else type(thing))


def public_name(thing: Any) -> str:
    """ "module:qualified name" of a function or class; for Sparsight's own, "sparsight:name"."""
    home = "sparsight" if thing.__module__.partition(".")[0] == "sparsight" else thing.__module__
    return f"{home}:{thing.__qualname__}"


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
