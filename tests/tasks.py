"""Networks and data of other kinds than images with a class, as `package.module:attribute` names them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from sparsight import Data, Split
from sparsight.train import Judged, Metric
from sparsight.zoo.data import digits


def _drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- transformers ----------------------------------------------------------------------------------------------


def classifier() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=30, max_position_embeddings=16, num_labels=3, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


def sentences() -> Data:
    """The class is the word at the fourth place."""
    ids = torch.randint(5, 30, (360, 10), generator=_drawn())
    labels = torch.randint(0, 3, (360,), generator=_drawn(1))
    ids[:, 3] = labels + 1
    rows = [{"input_ids": i, "attention_mask": torch.ones_like(i), "label": y, "idx": k}
            for k, (i, y) in enumerate(zip(ids, labels, strict=True))]  # fmt: skip
    parts = {"train": rows[:240], "validation": rows[240:300], "test": rows[300:]}
    return Data(name="sentences", **{name: DataLoader(part, 24) for name, part in parts.items()})  # type: ignore


def language_model() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_embd=32, n_layer=1, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


def counting() -> Data:
    """Every word is the one after the word before."""
    ids = (torch.randint(0, 20, (240, 1), generator=_drawn()) + torch.arange(10)) % 20
    rows = [{"input_ids": i, "labels": i} for i in ids]
    return Data(name="counting", train=DataLoader(rows[:200], 20), validation=DataLoader(rows[200:], 20))  # type: ignore


# -- pixels and boxes ------------------------------------------------------------------------------------------


def segmenter() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
                             nn.Conv2d(8, 2, 1))  # fmt: skip


def maps() -> Data:
    """Bright pixels are class 1; a border is not labelled."""
    x = torch.randn(120, 1, 8, 8, generator=_drawn())
    y = (x[:, 0] > 0.5).long()
    y[:, 0] = -100
    parts = {"train": slice(80), "validation": slice(80, 100), "test": slice(100, None)}
    return Data(name="maps", **{name: Split(x[part], y[part]) for name, part in parts.items()})


class Detector(nn.Module):
    """A box and whether there is one, as a dictionary; its loss is not its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())
        self.box, self.score = nn.Linear(32, 4), nn.Linear(32, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.body(images)
        return {"boxes": self.box(found), "scores": self.score(found)[:, 0]}


def detector() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Detector()


def boxes() -> Data:
    """A bright square on a dark image: (left, top, right, bottom) in shares of its side."""
    corners = torch.randint(0, 5, (200, 2), generator=_drawn())
    images = 0.1 * torch.randn(200, 8, 8, generator=_drawn(1))
    for image, (x, y) in zip(images, corners, strict=True):
        image[y : y + 3, x : x + 3] += 2
    target = torch.cat([corners, corners + 3], 1) / 8
    rows = [{"images": i, "targets": {"boxes": t, "scores": torch.ones(())}}
            for i, t in zip(images, target, strict=True)]  # fmt: skip
    return Data(name="boxes", train=DataLoader(rows[:160], 16), validation=DataLoader(rows[160:], 20))  # type: ignore


def box_loss(model: nn.Module, batch: Any) -> Tensor:
    found = model(batch["images"])
    there = functional.binary_cross_entropy_with_logits(found["scores"], batch["targets"]["scores"])
    return (found["boxes"] - batch["targets"]["boxes"]).abs().mean() + there


def overlap(model: nn.Module, batch: Any) -> dict[str, tuple[Tensor, int]]:
    a, b = model(batch["images"])["boxes"], batch["targets"]["boxes"]
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    both = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return {"IoU": ((shared / both.clamp(min=1e-9)).sum(), len(a))}


box_metric = Judged(overlap, (Metric("IoU", "higher", share=True),))


# -- pretrained networks that are packages -----------------------------------------------------------------------


def installed(package: str) -> dict[str, Path]:
    """The files of a package by name; empty where it is not installed."""
    try:
        return {file.name: Path(str(file.locate())) for file in importlib.metadata.files(package) or ()}
    except importlib.metadata.PackageNotFoundError:
        return {}


def digit_recognizer() -> nn.Module:
    """The network of digit-recognizer-py, without its weights."""
    path = installed("digit-recognizer-py")["model.py"]
    spec = importlib.util.spec_from_file_location("digit_recognizer_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CNN()


def large_digits() -> Data:
    """The digits that come with sparsight, as large as MNIST's and normalised like these."""
    data = digits()

    def large(split: Any) -> Split:
        x = functional.interpolate((split.x * 0.3757 + 0.3044).clamp(0, 1), (20, 20), mode="bicubic").clamp(0, 1)
        return Split((functional.pad(x, (4, 4, 4, 4)) - 0.1307) / 0.3081, split.y)

    return Data(name="large digits", train=large(data.train), validation=large(data.validation), test=large(data.test))
