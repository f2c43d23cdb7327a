"""Data readers, and going through data."""

from sparsight.data.augment import Chain, Crop, Flip
from sparsight.data.batches import batches, move, to_device
from sparsight.data.download import DownloadError
from sparsight.data.fashion import DataNotFound, fashion_mnist, find_fashion_mnist
from sparsight.data.fingerprint import fingerprint
from sparsight.data.load import KNOWN, load
from sparsight.data.mnist_idx import find_mnist, mnist
from sparsight.data.optdigits import digits
from sparsight.data.stratified import stratified

__all__ = [
    "KNOWN", "Chain", "Crop", "DataNotFound", "DownloadError", "Flip", "batches", "digits", "fashion_mnist",
    "find_fashion_mnist", "find_mnist", "fingerprint", "load", "mnist", "move", "stratified", "to_device",
]  # fmt: skip
