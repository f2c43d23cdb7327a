"""The identity of runs, networks, recipes and data, and what must match to resume a run."""

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
from sparsight.records.record import RunRecord, dumps, to_json
from sparsight.records.tensors import tensors_digest
from sparsight.types import Batch, Data, Masks, Split, StateDict

SAME = ("recipe", "description", "seed", "data", "model")
"""Fields of a RunRecord that must match to resume a run."""

SAME_ENVIRONMENT = ("device", "precision", "threads", "world_size")
"""Keys of `RunRecord.environment` that affect the bits of a run."""


class ForeignRun(ValueError):
    """The folder holds a run with another recipe, seed, model, data or precision."""


def _identity(record: RunRecord) -> dict[str, Any]:
    environment = {key: record.environment.get(key) for key in SAME_ENVIRONMENT}
    return to_json({**{name: getattr(record, name) for name in SAME}, "environment": environment})


def run_id(record: RunRecord) -> str:
    """The SHA-256 of everything that determines the bits of a run."""
    return hashlib.sha256(dumps(_identity(record)).encode()).hexdigest()


def check_same(stored: RunRecord, wanted: RunRecord) -> None:
    """Raise ForeignRun, with the first difference, unless `stored` can continue as `wanted`.

    Compares recipe, description, seed, data, model, `SAME_ENVIRONMENT`, and Sparsight's version, because each 0.x
    describes runs in its own way; not times, status, `keep`, the command or other versions.
    """
    begun, here = (str(r.environment.get("sparsight")) for r in (stored, wanted))
    if begun.split(".")[:2] != here.split(".")[:2]:
        if stored.status == "finished":
            raise ForeignRun(
                f"this run was finished with sparsight {begun}, and {here} cannot compare it with this command: "
                "read it with sparsight show, or start a new run in another folder"
            )
        raise ForeignRun(
            f"this run was begun with sparsight {begun}, and {here} cannot resume it: install sparsight=={begun}, or "
            "start a new run in another folder"
        )
    difference = first_difference(stored, wanted)
    if difference is not None and difference[0].startswith("description"):
        # Name the argument that caused it, if possible.
        given = {name: value for name, value in to_json(wanted.arguments).items() if name in stored.arguments}
        own = _difference({name: to_json(stored.arguments)[name] for name in given}, given, "")
        difference = own or difference
    if difference is not None:
        where, old, new = difference
        raise ForeignRun(
            f"the folder holds another run: {where} is {old!r:.120}, not {new!r:.120}; "
            "resume with the values of that run, or start a new run in another folder"
        )


def first_difference(one: RunRecord, other: RunRecord) -> tuple[str, Any, Any] | None:
    """The first difference between two runs that affects their bits, with both values; None if they match."""
    return _difference(_spelled_alike(_identity(one)), _spelled_alike(_identity(other)), "")


def _spelled_alike(identity: dict[str, Any]) -> dict[str, Any]:
    """The same with dashes in the recipe's name: both spellings are the same run."""
    named = {"name": str(name).replace("_", "-")} if (name := identity["description"].get("name")) else {}
    described = {**identity["description"], **named}
    return {**identity, "recipe": identity["recipe"].replace("_", "-"), "description": described}


def _difference(old: Any, new: Any, where: str) -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            found = _difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if found is not None:
                return found
        return None if old.keys() == new.keys() else (where, sorted(old), sorted(new))
    if isinstance(old, list) and isinstance(new, list):
        pairs = enumerate(zip(old, new, strict=False))
        found = next((d for i, (a, b) in pairs if (d := _difference(a, b, f"{where}[{i}]"))), None)
        if found is not None or len(old) == len(new):
            return found
        return f"the length of {where}", len(old), len(new)
    return None if type(old) is type(new) and old == new else (where, old, new)


def content_id(weights: StateDict, masks: Masks) -> str:
    """The content id of a level: the hexadecimal SHA-256 of the digests of its weights and masks."""
    text = tensors_digest(weights) + tensors_digest(masks)
    return hashlib.sha256(text.encode()).hexdigest()


# -- recipes and data --------------------------------------------------------------------------------------------


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
    length = None
    if isinstance(split, Sized):  # the __len__ of a DataLoader over a stream raises
        with contextlib.suppress(TypeError, NotImplementedError):
            length = len(split)
    return {"type": public_name(type(split)), "length": length}
