"""Prune inside a training loop of your own: score, allocate, hold. Run it: python examples/own_loop.py"""

from __future__ import annotations

import torch
from torch import Generator, nn
from torch.nn import functional as F

from sparsight import Magnitude, Shrink, dense, held, verify
from sparsight.model import density
from sparsight.train.batches import batches
from sparsight.zoo.data import digits

torch.manual_seed(0)
data, shuffle = digits(), Generator().manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
masks = dense(model)  # True = kept, for the weights of Linear and convolution layers

for rate in (0.0, 0.5, 0.5, 0.5):
    scores = Magnitude()(model, masks)  # |w|
    masks = Shrink(rate=rate)(scores, masks)  # removes this share of what is left
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with held(model, masks, optimizer):  # pruned weights are +0.0 at entry and after every step
        for _ in range(5):
            for x, y in batches(data.train, 64, generator=shuffle):  # your loader, your loss, your optimiser
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    verify(model, masks)
    accuracy = (model(data.validation.x).argmax(1) == data.validation.y).float().mean()
    print(f"density {density(masks):6.2%}   validation accuracy {accuracy:.2%}")
