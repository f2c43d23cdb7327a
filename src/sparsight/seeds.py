"""Random state that depends on where in a run we are, not on what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

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
    python, legacy = random.getstate(), numpy.random.get_state()  # noqa: NPY002 - foreign code uses this generator
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        numpy.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(legacy)  # noqa: NPY002
