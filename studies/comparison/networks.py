"""The small convolutional network of the comparison."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu


class LeNet5(nn.Module):
    """LeNet-5 in its first sizes, with ReLU and max-pooling: 61,706 parameters, 61,470 of them prunable."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(relu(self.fc2(relu(self.fc1(x)))))


def small_cnn() -> nn.Module:
    """Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998."""
    return LeNet5()
