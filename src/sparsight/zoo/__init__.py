"""Small reference networks and data sets, and objects named by "package.module:attribute"."""

from sparsight.zoo.networks import (
    cnn,
    lenet5,
    lenet_300_100,
    linear,
    mlp,
    resnet8,
    resnet18,
    resnet20,
    resnet32,
    vanilla_cnn,
)

__all__ = ["cnn", "lenet5", "lenet_300_100", "linear", "mlp", "resnet8", "resnet18", "resnet20", "resnet32"]
__all__ += ["vanilla_cnn"]
