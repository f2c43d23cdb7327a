"""Random state that depends on where in a run we are, not on what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
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
    """Run a block with every global generator (torch, numpy, random) seeded, and put them back as they were.

    Foreign code draws from them: dropout, a loader's shuffling, a data set's augmentation. Seeding each epoch by
    its place makes a resumed run draw what an undisturbed one would.
    """

    def set_all() -> None:
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)  # noqa: NPY002

    with _put_back(set_all):
        yield


@contextmanager
def drawing_on(states: Mapping[str, Any]) -> Iterator[None]:
    """Run a block with every global generator as `captured` found it, and put them back as they were."""

    def set_all() -> None:
        torch.default_generator.set_state(states["torch"])
        for i, state in enumerate(states["cuda"]):
            torch.cuda.set_rng_state(state, i)
        random.setstate(states["python"])
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, keys.numpy().astype(numpy.uint32), *rest))  # noqa: NPY002

    with _put_back(set_all):
        yield


def captured() -> dict[str, Any]:
    """Where every global generator stands, as tensors, numbers and tuples of them: for `drawing_on`."""
    state: Any = numpy.random.get_state()  # noqa: NPY002
    name, keys, *rest = state
    return {
        "torch": torch.default_generator.get_state(),
        "cuda": [torch.cuda.get_rng_state(i) for i in _devices()],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(numpy.int64)), *rest),
    }


def _devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


@contextmanager
def _put_back(set_all: Callable[[], None]) -> Iterator[None]:
    python, legacy = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - foreign code uses this generator
    with torch.random.fork_rng(devices=_devices()):
        try:
            set_all()
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)  # noqa: NPY002
