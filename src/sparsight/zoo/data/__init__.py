"""Readers of data sets, which return a `sparsight.Data` with splits in memory."""

from sparsight.zoo.data.augment import Chain, Crop, Flip
from sparsight.zoo.data.files import from_path
from sparsight.zoo.data.load import KNOWN, is_path, load
from sparsight.zoo.data.mnist_family import DataNotFound, fashion_mnist, find_fashion_mnist, find_mnist, mnist
from sparsight.zoo.data.optdigits import digits
from sparsight.zoo.data.prepared import DataNote, prepared
from sparsight.zoo.data.published import DownloadError

__all__ = ["KNOWN", "Chain", "Crop", "DataNotFound", "DataNote", "DownloadError", "Flip", "digits", "fashion_mnist"]
__all__ += ["find_fashion_mnist", "find_mnist", "from_path", "is_path", "load", "mnist", "prepared"]
