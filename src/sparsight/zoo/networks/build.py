"""From what the user wrote to the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from sparsight.types import Data, Split
from sparsight.zoo.networks.convolutional import cnn, lenet5, vanilla_cnn
from sparsight.zoo.networks.mlp import lenet_300_100, linear, mlp
from sparsight.zoo.networks.resnet import resnet8, resnet18, resnet20, resnet32
from sparsight.zoo.networks.seeding import drawn_from
from sparsight.zoo.resolve import made, resolve

KNOWN: Mapping[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "lenet-300-100": lenet_300_100,
    "lenet5": lenet5,
    "cnn": cnn,
    "resnet8": resnet8,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "stable-resnet8": partial(resnet8, stable=True),
    "stable-resnet18": partial(resnet18, stable=True),
    "stable-resnet20": partial(resnet20, stable=True),
    "stable-resnet32": partial(resnet32, stable=True),
    "vanilla-cnn": vanilla_cnn,
}


def build(spec: str | nn.Module | Callable[[], nn.Module], data: Data, seed: int | None) -> nn.Module:
    """The model that `spec` names, with the input shape and classes of `data`.

    `spec` is a name of the zoo, "package.module:attribute" of your own, or the thing itself: a module, which is
    returned as it is, or a class or function that makes one without arguments. What is made here draws its
    initial weights from `seed` and leaves PyTorch's global random state as it was.
    ValueError for an unknown name, module or attribute; TypeError if what is found or made is not a module.
    """
    if not isinstance(spec, str) or ":" in spec:
        return own(spec, seed)
    name = spec.lower().replace("_", "-")
    if name not in KNOWN:
        raise ValueError(f"unknown model {spec!r}, expected one of {', '.join(KNOWN)} or 'package.module:attribute'")
    return KNOWN[name](input_shape(data), classes(data), seed=seed)


def own(spec: str | nn.Module | Callable[[], nn.Module], seed: int | None) -> nn.Module:
    """What `build` makes of a `spec` that is no name of the zoo."""
    found = resolve(spec) if isinstance(spec, str) else spec
    with drawn_from(seed):
        return made(spec if isinstance(spec, str) else getattr(spec, "__qualname__", ""), found, nn.Module)


def input_shape(data: Data) -> tuple[int, ...]:
    """Shape of one sample: `facts["input_shape"]`, or else that of the training tensors."""
    if "input_shape" in data.facts:
        return tuple(int(size) for size in data.facts["input_shape"])
    if isinstance(data.train, Split):
        return tuple(data.train.x.shape[1:])
    raise _unknown(data, "input_shape", "(1, 28, 28)")


def classes(data: Data) -> int:
    """How many classes: `facts["classes"]`, or else one more than the largest training label."""
    if "classes" in data.facts:
        return int(data.facts["classes"])
    if isinstance(data.train, Split) and len(data.train) and not data.train.y.is_floating_point():
        return int(data.train.y.max()) + 1
    raise _unknown(data, "classes", "10")


def _unknown(data: Data, fact: str, example: str) -> ValueError:
    return ValueError(
        f"cannot fit a network of the zoo to data {data.name!r}: their {fact} is unknown; "
        f"say it as Data(facts={{{fact!r}: {example}, ...}})"
    )
