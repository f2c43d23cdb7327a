"""One network of the zoo, pruned before training by a recipe, trained, and read once on the test split."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from cells import Row
from torch import nn
from torch.nn import functional as F

from sparsight import Data, Level, Recipe, Split, recipes, run
from sparsight.numerics.stratified import stratified
from sparsight.runs.run import judge_on_test
from sparsight.zoo import networks as zoo
from sparsight.zoo.data import fashion_mnist


@dataclass(frozen=True)
class Setting:
    """What a network is trained on, and for how long."""

    images: int
    side: int  # of the images: 28, or 14 by the mean of 2x2 pixels
    epochs: int
    batch_size: int
    channels_last: bool = False


SETTINGS = {
    "lenet-300-100": Setting(20_000, 28, 3, 100),
    "lenet5": Setting(10_000, 28, 2, 100, channels_last=True),
    "resnet8": Setting(10_000, 14, 2, 100, channels_last=True),
}
SMOKE = {"images": 1000, "epochs": 1}

METHODS = {
    "snip": "snip",
    "grasp": "grasp",
    "synflow": "synflow",
    "magnitude": "magnitude_at_init",
    "random": "random_at_init",
    "sbp": "sbp",
    "sbp-sr": "sbp_sr",
}
VARIANTS = ("as it is", "shuffled", "reinitialised")


@functools.cache
def images(count: int, side: int, validation: int = 2000, test: int = 10_000) -> Data:
    """Fashion-MNIST with so many training and validation images, stratified and the same for every seed."""
    whole = fashion_mnist()
    parts = []
    for split, size in ((whole.train, count), (whole.validation, validation), (whole.test, test)):
        assert isinstance(split, Split)
        parts.append(_part(split, size, side))
    facts = {"classes": 10, "input_shape": [1, side, side]}
    return Data(name="fashion-mnist", train=parts[0], validation=parts[1], test=parts[2], facts=facts)


def _part(split: Split, size: int, side: int) -> Split:
    chosen = stratified(split.y, [size])[0] if size < len(split) else slice(None)
    x = split.x[chosen]
    return Split(x if side == 28 else F.avg_pool2d(x, 28 // side), split.y[chosen])


def resnet8_bare() -> nn.Module:
    """ResNet-8 for 14x14 pixels without batch norm, whose weights the recipe draws."""
    return zoo.resnet8((1, 14, 14), norm=False)


def stable_resnet8_bare() -> nn.Module:
    return zoo.resnet8((1, 14, 14), norm=False, stable=True)


def recipe_of(method: str, density: float, variant: str, seed: int, setting: Setting) -> Recipe:
    """The library's recipe with its own defaults but for the length of training; "dense" trains without pruning."""
    shared = {"epochs": setting.epochs, "batch_size": setting.batch_size, "control": False, "seed": seed}
    if method == "dense":
        plain = recipes.snip(**shared)
        plain = dataclasses.replace(plain, name="dense", levels=(Level(train=plain.plan),))
    else:
        ablation = {"shuffle": variant == "shuffled", "reinitialise": variant == "reinitialised"}
        plain = getattr(recipes, METHODS[method])(density=density, **ablation, **shared)
    (level,) = plain.levels
    once = dataclasses.replace(level.train, evaluate_every=float(setting.epochs))
    return dataclasses.replace(
        plain, channels_last=setting.channels_last, levels=(dataclasses.replace(level, train=once),)
    )


def measure(
    network: str, method: str, density: float, variant: str, seed: int, smoke: bool, model: str = ""
) -> Sequence[Row]:
    """The row of one cell. `model` is of the zoo, by default the network itself.

    Published SBP-SR is SBP on a Stable ResNet: residual networks are not rescaled.
    """
    setting = SETTINGS[network]
    if smoke:
        setting = dataclasses.replace(setting, **SMOKE)
    data = images(setting.images, setting.side, *((500, 500) if smoke else ()))
    stable = network.startswith("resnet") and method == "sbp-sr"
    recipe = recipe_of("sbp" if stable else method, density, variant, seed, setting)
    built = zoo.build(model or (f"stable-{network}" if stable else network), data, seed)
    (result,) = run(recipe, built, data, device="cpu")
    record = result.record
    judged = judge_on_test(recipe, built, data, [(record, result.weights)], device="cpu")
    assert judged is not None
    assert record.collapse is not None
    row = {
        "network": network,
        "model": model,
        "method": method,
        "variant": variant,
        "density": density,
        "kept": record.kept,
        "total": record.total,
        "layers": {layer.name: layer.kept / layer.total for layer in record.layers},
        "floored": len(record.floors),
        "nearly_empty": len(record.collapse.nearly_empty),
        "disconnected": record.collapse.disconnected,
        "images": setting.images,
        "epochs": setting.epochs,
        "train_loss": record.observations[-1].train_loss,
        "validation_accuracy": record.validation_accuracy,
        "test_accuracy": judged.entries[0].test_accuracy,
    }
    return [row]


def key(network: str, method: str, density: float, variant: str, seed: int) -> str:
    """Which cell it is, for people too."""
    what = [network, method, *([] if method == "dense" else [f"{density:g}"])]
    return " ".join([*what, *([] if variant == VARIANTS[0] else [variant]), f"seed {seed}"])
