"""The UCI optical digits, which come with the package.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, CC BY 4.0. The licence note is next to the file.
"""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np
import torch

from sparsight.numerics.stratified import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data.prepared import described

MEAN, STD = 0.3044, 0.3757  # of the training split, scaled to [0, 1]
VALIDATION, TEST = 300, 300  # samples; the rest is for training


def digits() -> Data:
    """1,797 handwritten digits as float32 of shape (N, 1, 8, 8), labels int64: 1,197 / 300 / 300 samples.

    A pixel counts the set points of a 4×4 block of the scan, 0 to 16; x = (pixel / 16 - 0.3044) / 0.3757. The three
    splits are stratified and fixed: see `stratified`.
    """
    packed = files("sparsight.zoo.data").joinpath("digits", "digits.csv.gz").read_bytes()
    table = np.loadtxt(gzip.decompress(packed).decode("ascii").splitlines(), delimiter=",", dtype=np.int64)
    y = torch.from_numpy(table[:, 64].copy())
    pixels = torch.from_numpy(table[:, :64].astype(np.float32))
    x = pixels.div_(16).sub_(MEAN).div_(STD).reshape(-1, 1, 8, 8)
    test, validation, train = (Split(x[part], y[part]) for part in stratified(y, [TEST, VALIDATION]))
    facts = {
        "source": "UCI Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998, "
        "doi:10.24432/C50P49, CC BY 4.0 (its 1797 test images)",
        "validation": "stratified, the same for every seed; so is the test split",
    }
    splits = train, validation, test
    return described("digits", splits, "0123456789", MEAN, STD, **facts)
