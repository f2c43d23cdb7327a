"""Finds the data that a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from sparsight.types import Data
from sparsight.zoo.data.files import from_path
from sparsight.zoo.data.mnist_family import fashion_mnist, mnist
from sparsight.zoo.data.optdigits import digits
from sparsight.zoo.resolve import made, resolve

KNOWN: Mapping[str, Callable[[], Data]] = {"fashion-mnist": fashion_mnist, "mnist": mnist, "digits": digits}


def is_path(spec: str) -> bool:
    """Whether `spec` is a file or folder, not a name."""
    if spec.replace("_", "-").lower() in KNOWN:
        return False
    return os.path.exists(spec) or ((os.sep in spec or "/" in spec) and ":" not in spec[2:])


def load(spec: str | Data) -> Data:
    """The data named by `spec`: "fashion-mnist", "mnist", "digits", "package.module:attribute" or a path.

    The attribute is a `Data`, or a function without arguments that returns one; the current folder is searched first.
    `from_path` reads a path. A `Data` is returned unchanged.

    Raises: ValueError for an unknown name, module or attribute; TypeError for anything but data.
    """
    if isinstance(spec, Data):
        return spec
    if is_path(spec):
        return from_path(spec)
    if ":" not in spec:
        name = spec.replace("_", "-").lower()
        if name not in KNOWN:
            raise ValueError(f"data must be one of {', '.join(KNOWN)}, or 'package.module:attribute', got {spec!r}")
        return KNOWN[name]()
    return made(spec, resolve(spec), Data)
