"""Random state that depends on the place in a run, not on what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch


def derive(seed: int, *place: int | str) -> int:
    """A seed in [0, 2^63) for one place in a run: a hash of the run's seed and the place's names."""
    text = ":".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every global generator (torch, numpy, random) for a block, and restore them afterwards.

    Dropout, shuffling and augmentation draw from them. Seeding each epoch by its place makes a resumed run draw the
    same numbers as an uninterrupted one.
    """
    with _put_back():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)  # noqa: NPY002 - foreign code uses this generator
        yield


@contextmanager
def drawing_on(states: Mapping[str, Any]) -> Iterator[None]:
    """Set every global generator to a `captured` state for a block, and restore them afterwards."""
    with _put_back():
        _set(states)
        yield


def captured() -> dict[str, Any]:
    """The states of all global generators, as tensors, numbers and tuples of them, for `drawing_on`."""
    state: Any = numpy.random.get_state()  # noqa: NPY002 - see `seeded`
    name, keys, *rest = state
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "torch": torch.default_generator.get_state(),
        "cuda": [torch.cuda.get_rng_state(i) for i in devices],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(numpy.int64)), *rest),
    }


@contextmanager
def _put_back() -> Iterator[None]:
    before = captured()
    try:
        yield
    finally:
        _set(before)


def _set(states: Mapping[str, Any]) -> None:
    torch.default_generator.set_state(states["torch"])
    for i, state in enumerate(states["cuda"]):
        torch.cuda.set_rng_state(state, i)
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), *rest))  # noqa: NPY002 - see `seeded`


# -- loaders with their own generators -------------------------------------------------------------------------

_DRAWING = (torch.Generator, numpy.random.Generator, numpy.random.RandomState, random.Random)


def reseed(loader: Any, seed: int) -> None:
    """Seed the generators of a loader and its samplers, and call `set_epoch` of samplers.

    The order then depends on the place in a run, not on earlier passes or the loader's own seed. Does nothing for
    anything but a loader.
    """
    for number, generator in enumerate(own_generators(loader)):
        generator.manual_seed(derive(seed, "loader", number))
    for sampler in samplers(loader):
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(seed % 2**31)


@contextmanager
def reseeded(loader: Any, seed: int) -> Iterator[None]:
    """`reseed` for a block; restores the loader's generators afterwards."""
    generators = own_generators(loader)
    states = [generator.get_state() for generator in generators]
    reseed(loader, seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def own_generators(loader: Any) -> list[torch.Generator]:
    """The torch generators of a loader and its samplers, without duplicates."""
    found = [getattr(part, "generator", None) for part in (loader, *samplers(loader))]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def samplers(loader: Any) -> list[Any]:
    """The samplers of a loader, each once."""
    batch = getattr(loader, "batch_sampler", None)
    found = [getattr(loader, "sampler", None), batch, getattr(batch, "sampler", None)]
    return list({id(sampler): sampler for sampler in found if sampler is not None}.values())


def hidden_state(loader: Any) -> list[str]:
    """The places of random state in a loader that `reseed` cannot seed; a resumed run may draw other numbers there."""
    known = {id(generator) for generator in own_generators(loader)}
    parts = {"": loader, "dataset": getattr(loader, "dataset", None), "sampler": getattr(loader, "sampler", None)}
    parts["dataset.dataset"] = getattr(parts["dataset"], "dataset", None)
    found = []
    for place, part in parts.items():
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, _DRAWING) and id(value) not in known:
                found.append(f"{place}.{name}" if place else name)
    if getattr(loader, "persistent_workers", False):
        found.append("persistent_workers")
    if isinstance(loader, Iterator):
        found.append("an iterator, which can be used only once")
    return found
