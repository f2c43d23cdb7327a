"""A folder of images, one subfolder for each class, and out comes a sparse classifier.

python examples/image_folder.py IMAGES OUT

Needs Pillow. Images of other sizes than the most common one are resized; one in ten is taken for validation.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch import nn

from sparsight import prune
from sparsight.checkpoint import pack
from sparsight.deploy import ledger
from sparsight.report.ledger import sentence
from sparsight.zoo.data import load


def network(channels: int, classes: int) -> nn.Module:
    """Yours goes here."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(256, classes),
    )  # fmt: skip


def main(images: str, out: str, epochs: int = 5) -> None:
    data = load(images)
    first, label = data.train.x[:1], data.train.y
    model = network(first.shape[1], int(label.max()) + 1)
    pruned = prune(model, data, density=0.1, epochs=epochs, pretrained=False, optimizer="adam", lr=2e-3)
    print(pruned)
    Path(out).mkdir(parents=True, exist_ok=True)
    packed = Path(out) / "packed.safetensors"
    pack(pruned.model, packed)
    print(sentence(ledger(packed, first, model=pruned.model)))


if __name__ == "__main__":
    main(*sys.argv[1:])
