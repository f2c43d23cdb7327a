"""Fashion-MNIST: 60,000 training and 10,000 test images of 28×28 grey values in 10 classes.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017, MIT licence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from platformdirs import user_cache_dir
from torch import Tensor

from sparsight.numerics.stratified import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data.download import download as fetch
from sparsight.zoo.data.idx import read_idx
from sparsight.zoo.data.prepared import described

MEAN, STD = 0.2860, 0.3530
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

SHA256 = {
    # Of the uncompressed content: Debian's files differ in the gzip header.
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
PUBLISHER = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_LIMIT = 64 << 20  # bytes; the largest file has 26.4 million


class DataNotFound(FileNotFoundError):
    """A data set was not found and could not be downloaded. The message says how to get it."""


def fashion_mnist(
    root: Path | str | None = None,
    *,
    validation: int = 5000,
    download: bool = True,
    publisher: Sequence[str] = PUBLISHER,
) -> Data:
    """Fashion-MNIST as float32 of shape (N, 1, 28, 28), (grey value / 255 - 0.2860) / 0.3530, labels int64.

    Searches its four files in `root`, or without it in $SPARSIGHT_DATA, the user's cache folder and the folder of
    Debian's package dataset-fashion-mnist; in each, also in "fashion-mnist" and "FashionMNIST/raw". If they are
    missing, downloads them from the publisher into the cache folder. Always checks the SHA-256 of their contents.

    The validation split is a fixed, stratified part of `validation` of the 60,000 training images, for any seed: see
    `stratified`. The test split is the publisher's.

    Raises: DataNotFound, with all ways to get the files; ValueError for a damaged or wrong file.
    """
    folder = find_fashion_mnist(root)
    if folder is None and root is None and download:
        folder = _download(publisher)
    if folder is None:
        raise _not_found(root, "" if root else "Downloading is off.")
    x, y = _read(folder, "train")
    held_out, rest = stratified(y, [validation])
    splits = Split(x[rest], y[rest]), Split(x[held_out], y[held_out]), Split(*_read(folder, "t10k"))
    facts = {
        "source": "Fashion-MNIST, Xiao, Rasul and Vollgraf 2017, MIT licence",
        "validation": "stratified part of the training images, the same for every seed",
    }
    return described("fashion-mnist", splits, CLASSES, MEAN, STD, **facts)


def cache_folder() -> Path:
    """The folder of downloaded files: "fashion-mnist" in the user's cache folder of sparsight."""
    return Path(user_cache_dir("sparsight", appauthor=False)) / "fashion-mnist"


def find_fashion_mnist(root: Path | str | None = None) -> Path | None:
    """The first folder with all four files, in the order of `fashion_mnist`; None without one."""
    for place in _places(root):
        for folder in (place, place / "fashion-mnist", place / "FashionMNIST" / "raw"):
            if all((folder / name).is_file() for name in SHA256):
                return folder
    return None


def _places(root: Path | str | None) -> list[Path]:
    if root is not None:
        return [Path(root)]
    named = os.environ.get("SPARSIGHT_DATA")
    return [*([Path(named)] if named else []), cache_folder(), DEBIAN]


def _read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images, labels = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
    x = read_idx(folder / images, sha256=SHA256[images])
    y = read_idx(folder / labels, sha256=SHA256[labels])
    return x.to(torch.float32).div_(255).sub_(MEAN).div_(STD).unsqueeze(1), y.to(torch.int64)


def _download(publisher: Sequence[str]) -> Path:
    folder = cache_folder()
    try:
        for name, sha256 in SHA256.items():
            if not (folder / name).is_file():
                addresses = [base.rstrip("/") + "/" + name for base in publisher]
                check = partial(read_idx, Path(name), sha256=sha256)
                fetch(addresses, folder / name, check=check, limit=_LIMIT)
    except OSError as error:
        raise _not_found(None, str(error)) from error
    return folder


def _not_found(root: Path | str | None, why: str) -> DataNotFound:
    looked = ", ".join(str(place) for place in _places(root))
    return DataNotFound(
        f"Fashion-MNIST was not found in {looked}. {why}\n"
        f"Ways to get it: install Debian's or Ubuntu's package dataset-fashion-mnist; or put its four files "
        f"({', '.join(SHA256)}) from {PUBLISHER[0]} into {cache_folder()}, or into the folder named by the "
        "environment variable SPARSIGHT_DATA. Or use --data digits, a small set of handwritten digits that comes with "
        "sparsight."
    )
