"""A model and data of your own, for the command line and for Python.

sparsight run sap --model examples.own_model:build --data examples.own_model:data

Both names are `package.module:attribute`; the current folder is searched first. A model is a module, or a function
without arguments that makes one; it is called with PyTorch's generator seeded by the run's seed. Data is a
`sparsight.Data`, or a function without arguments that returns one.
"""

from __future__ import annotations

from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sparsight import Data, Split
from sparsight.zoo.data import digits


def build() -> nn.Module:
    """A small convolutional network for images of 8x8."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def tensors() -> dict[str, tuple[Tensor, Tensor]]:
    """Your own reading goes here: samples and labels of each split."""
    known = digits()
    return {name: (split.x, split.y) for name in ("train", "validation", "test") if (split := getattr(known, name))}


def noise(x: Tensor, generator: Generator) -> Tensor:
    """An augmentation: any tensor code on a batch that draws from the generator it is given."""
    return x + 0.1 * x.new_empty(x.shape).normal_(generator=generator)


def data() -> Data:
    """Held in memory, the fast path: tensors, and an augmentation if there is one."""
    x = tensors()
    train = Split(*x["train"], augment=noise)
    return Data(name="my-digits", train=train, validation=Split(*x["validation"]), test=Split(*x["test"]))


def loaders() -> Data:
    """The same from `DataLoader`s. Any iterable of `(x, y)` batches that can be gone through again will do."""
    x = {name: TensorDataset(*pair) for name, pair in tensors().items()}
    return Data(
        name="my-digits-from-loaders",
        train=DataLoader(x["train"], batch_size=64, shuffle=True),
        validation=DataLoader(x["validation"], batch_size=300),
        test=DataLoader(x["test"], batch_size=300),
    )
