"""Small reference networks: plain modules, each initialised from its own seed."""

from sparsight.zoo.networks.build import KNOWN, build, classes, input_shape
from sparsight.zoo.networks.plain import cnn, lenet5, lenet_300_100, linear, mlp, vanilla_cnn
from sparsight.zoo.networks.resnet import resnet8, resnet18, resnet20, resnet32

__all__ = ["KNOWN", "build", "classes", "cnn", "input_shape", "lenet5", "lenet_300_100", "linear", "mlp", "resnet8"]
__all__ += ["resnet18", "resnet20", "resnet32", "vanilla_cnn"]
