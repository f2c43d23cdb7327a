"""Builds the model that a user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from sparsight.types import Data, Split
from sparsight.zoo.networks.plain import cnn, lenet5, lenet_300_100, linear, mlp, vanilla_cnn
from sparsight.zoo.networks.resnet import resnet8, resnet18, resnet20, resnet32
from sparsight.zoo.networks.seeding import drawn_from
from sparsight.zoo.resolve import made, resolve

_RESNETS = (resnet8, resnet18, resnet20, resnet32)
KNOWN: Mapping[str, Callable[..., nn.Module]] = {
    **{made.__name__.replace("_", "-"): made for made in (linear, mlp, lenet_300_100, lenet5, cnn, *_RESNETS)},
    **{f"stable-{made.__name__}": partial(made, stable=True) for made in _RESNETS},
    "vanilla-cnn": vanilla_cnn,
}


def build(spec: str | nn.Module | Callable[[], nn.Module], data: Data, seed: int | None) -> nn.Module:
    """The model named by `spec`, with the input shape and classes of `data`.

    `spec` is a name of the zoo, "package.module:attribute", a module (returned unchanged), or a class or function
    without arguments that returns one. New models get their weights from `seed`, without changing PyTorch's global
    random state. Raises: ValueError for an unknown name, module or attribute; TypeError for anything but a module.
    """
    if not isinstance(spec, str) or ":" in spec:
        return own(spec, seed)
    name = spec.lower().replace("_", "-")
    if name not in KNOWN:
        raise ValueError(f"model must be one of {', '.join(KNOWN)}, or 'package.module:attribute', got {spec!r}")
    return KNOWN[name](input_shape(data), classes(data), seed=seed)


def own(spec: str | nn.Module | Callable[[], nn.Module], seed: int | None) -> nn.Module:
    """`build` for a `spec` that is not a name of the zoo."""
    found = resolve(spec) if isinstance(spec, str) else spec
    with drawn_from(seed):
        return made(spec if isinstance(spec, str) else getattr(spec, "__qualname__", ""), found, nn.Module)


def input_shape(data: Data) -> tuple[int, ...]:
    """The shape of a sample: `facts["input_shape"]`, otherwise that of the training tensors."""
    if "input_shape" in data.facts:
        return tuple(int(size) for size in data.facts["input_shape"])
    if isinstance(data.train, Split):
        return tuple(data.train.x.shape[1:])
    raise _unknown(data, "input_shape", "(1, 28, 28)")


def classes(data: Data) -> int:
    """The number of classes: `facts["classes"]`, otherwise one more than the largest training label."""
    if "classes" in data.facts:
        return int(data.facts["classes"])
    if isinstance(data.train, Split) and len(data.train) and not data.train.y.is_floating_point():
        return int(data.train.y.max()) + 1
    raise _unknown(data, "classes", "10")


def _unknown(data: Data, fact: str, example: str) -> ValueError:
    return ValueError(
        f"cannot build a network of the zoo for data {data.name!r}, because {fact} is unknown: "
        f"set Data(facts={{{fact!r}: {example}, ...}})"
    )
