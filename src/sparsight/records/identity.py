"""The identity of runs and networks, and what must match to resume a run."""

from __future__ import annotations

import hashlib
from typing import Any

from sparsight.records.record import RunRecord, dumps, to_json
from sparsight.records.tensors import tensors_digest
from sparsight.types import Masks, StateDict

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
