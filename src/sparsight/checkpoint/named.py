"""The contents of a torch.save file by dotted names: tensors, objects next to them, and objects not rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsight.checkpoint.entry import LONGEST_HEADER, CheckpointError, Part, check_entries, check_name
from sparsight.checkpoint.rebuild import Inert, OddTensor, Stored

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "generator", "params")
"""Keys under which training scripts store the weights next to other things."""
_OPTIMIZERS = ("optim", "sched", "scaler")
_DEEPEST = 64
_FEW = 8  # containers of up to this many plain values are checked again each time
_TENSORS, _CONTAINERS = (Stored, OddTensor), (dict, list, tuple)
_INSIDE = (*_TENSORS, *_CONTAINERS)
_WALKED = (*_INSIDE, Inert)

_Walked = tuple[tuple[str, ...], Any, bool]  # keys, value, whether it belongs to an optimiser


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """A tensor or another object, by its dotted name."""

    name: str
    value: Any
    part: Part


def named(path: Path, loaded: Any) -> list[Item]:
    """All tensors, objects next to them, and objects that were not rebuilt.

    The network's names leave out the dictionary that contains them. Raises: CheckpointError without tensors, for two
    tensors with one name, or beyond the limits.
    """
    walk = _Walk(path)
    walk.into(loaded, ())
    walked = walk.found
    if not any(isinstance(value, _TENSORS) for _, value, _ in walked):
        raise CheckpointError(path, _without_tensors(loaded, [value for _, value, _ in walked]))
    main = _main(walked)
    items, names, letters = [], set(), 0
    for keys, value, of_optimizer in walked:
        mine = main is not None and keys[:1] == (main,) and not of_optimizer
        part: Part = "optimizer" if of_optimizer else "network" if mine or main is None else "beside"
        name = ".".join(keys[1:] if mine else keys) or "tensor"
        check_name(path, name)
        letters += len(name)
        if name in names or letters > LONGEST_HEADER:
            long = f"its names have more than {LONGEST_HEADER:,} characters in total"
            raise CheckpointError(path, f"two tensors are called {name!r:.80}" if name in names else long)
        names.add(name)
        items.append(Item(name, value, part))
    return items


def _without_tensors(loaded: Any, values: Sequence[Any]) -> str:
    code = next((value for value in values if isinstance(value, Inert)), None)
    if code is None:
        return f"it contains no tensors, only a {type(loaded).__name__}"
    return f"its pickle needs code ({code.name:.80}), which is not run; save the model's state_dict() instead"


def _main(walked: Sequence[_Walked]) -> str | None:
    """The key of the network's dictionary, if the file has one and all weights are in dictionaries."""
    dictionaries = {keys[0] for keys, value, of_optimizer in walked if len(keys) > 1 and not of_optimizer}
    if any(len(keys) == 1 and isinstance(value, Stored) and len(value.shape) > 1 for keys, value, _ in walked):
        return None
    found = next((key for key in WRAPPERS if key in dictionaries), None)
    return None if found == "generator" and len(dictionaries) > 1 else found


class _Walk:
    """The contents of nested containers, each container once, even if it is shared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[int] = set()
        self.found: list[_Walked] = []

    def into(self, thing: Any, keys: tuple[str, ...], of_optimizer: bool = False) -> None:
        if not isinstance(thing, _CONTAINERS):
            self.found.append((keys, thing, of_optimizer))
            check_entries(self._path, len(self.found))
            return
        if id(thing) in self._seen:
            return
        holds = any(isinstance(value, _WALKED) for value in (thing.values() if type(thing) is dict else thing))
        if holds or len(thing) > _FEW:
            self._seen.add(id(thing))
        if not holds:
            return
        if len(keys) > _DEEPEST:
            raise CheckpointError(self._path, f"its containers are nested more than {_DEEPEST} deep")
        if isinstance(thing, dict):  # it may look like the state_dict of an optimiser
            of_optimizer = of_optimizer or (isinstance(thing.get("state"), dict) and "param_groups" in thing)
        beside = type(thing) is dict and not of_optimizer and any(isinstance(v, _TENSORS) for v in thing.values())
        for key, value in _named(thing):
            if beside or isinstance(value, _WALKED):
                named = not keys and any(part in key.lower() for part in _OPTIMIZERS) and not isinstance(value, Stored)
                self.into(value, (*keys, key), of_optimizer or named)
        rest = _nameless(thing)
        if rest is not None:
            self.into(rest, keys, of_optimizer)


def _named(container: Any) -> Iterator[tuple[str, Any]]:
    """The named contents of a container. Objects in a list have no name."""
    if type(container) is dict:
        yield from ((key if type(key) is str else key[0], v) for key, v in container.items() if type(key) is not object)
    else:
        yield from ((str(i), value) for i, value in enumerate(container) if isinstance(value, _INSIDE))


def _nameless(container: Any) -> Inert | None:
    """An `Inert` for everything else in a container, if that may matter."""
    if type(container) is dict:
        odd = any(type(key) is object and isinstance(value, _WALKED) for key, value in container.items())
        return Inert("dictionary whose keys are neither text nor whole numbers") if odd else None
    found = next((value for value in container if isinstance(value, Inert)), None)
    return None if found is None else Inert(f"{type(container).__name__} of {found.name}")
