"""Small reference networks: plain modules, each initialised from its own seed."""

from sparsight.zoo.networks.build import KNOWN, build, classes, input_shape
from sparsight.zoo.networks.convolutional import cnn, lenet5, vanilla_cnn
from sparsight.zoo.networks.mlp import lenet_300_100, linear, mlp
from sparsight.zoo.networks.resnet import resnet8, resnet18, resnet20, resnet32

__all__ = [
    "KNOWN",
    "build",
    "classes",
    "cnn",
    "input_shape",
    "lenet5",
    "lenet_300_100",
    "linear",
    "mlp",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet32",
    "vanilla_cnn",
]
