"""A training script of PyTorch as it was, and the four lines that make it prune.

Run it: python examples/training_script.py
"""

from __future__ import annotations

import torch
from torch import Generator, nn
from torch.nn import functional as F

from sparsight import Global, Magnitude, dense, held, verify  # (1)
from sparsight.pruning.schedules import Cubic
from sparsight.train.batches import batches
from sparsight.zoo.data import digits

EPOCHS = 20

torch.manual_seed(0)
data, shuffle = digits(), Generator().manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

masks = dense(model)  # (2) True = kept, for the weights of linear and convolution layers
with held(model, masks, optimizer) as hold:  # (3) pruned weights are +0.0 at entry and after every step
    for epoch in range(EPOCHS):
        density = Cubic(0.1)(min(1.0, epoch / (0.7 * EPOCHS)))  # gradually to a tenth
        hold.update(Global(density)(Magnitude()(model, hold.masks), hold.masks))  # (4) the smallest weights go
        for x, y in batches(data.train, 64, generator=shuffle):  # your loader, your loss, your optimiser
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        accuracy = (model(data.validation.x).argmax(1) == data.validation.y).float().mean()
        print(f"epoch {epoch:2}   density {density:6.1%}   validation accuracy {accuracy:.2%}")

verify(model, hold.masks)
torch.save(model.state_dict(), "sparse.pt")  # a plain state dict; sparsight.masks_from("sparse.pt") finds the masks
