"""Your own data from files: .npz arrays, a folder of images by class, CIFAR's binary files, a saved dataset."""

from __future__ import annotations

import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsight.numerics.stratified import stratified
from sparsight.types import Data, Split
from sparsight.zoo.data.prepared import DataNote, prepared

HELD_OUT = 10
"""Without a validation split, one in this many training samples is used for validation."""

_PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_INPUTS, _LABELS = ("x", "images", "image", "data", "img", "pixel_values"), ("y", "labels", "label", "target")
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def from_path(path: Path | str) -> Data:
    """The data at `path`:

    - a `.npz` of arrays: `x_train, y_train`, also `x_test` and `x_val`, with `images` or `data` for x and `labels` or
      `target` for y, in either order (`train_images`); or just x and y;
    - a folder with a folder of images per class; or with `train`, `val` and `test` folders of that kind;
    - a folder of CIFAR's binary version: `data_batch_1.bin` … `test_batch.bin`, or CIFAR-100's `train.bin`, `test.bin`;
    - a folder saved by `datasets` (`save_to_disk`), with a column of images and one of labels.

    Without a validation split, a fixed, stratified tenth of the training split is used. See `prepared` for uint8
    images.

    Raises: FileNotFoundError; ValueError for anything else, with what was found; ModuleNotFoundError if Pillow or
    datasets is needed but not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a file or folder of data")
    try:
        return _found(path)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ValueError(f"cannot read data from {path}: {error.strerror or error}{where}") from error


def _found(path: Path) -> Data:
    if not path.is_dir():
        if path.suffix != ".npz" or not path.is_file():
            raise ValueError(f"cannot read data from {path}: expected a .npz file or a folder")
        return _data(path.stem, _npz(path), None)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _data(path.name, *_saved(path))
    if cifar := _cifar(path):
        return _data(path.name, cifar, None)
    return _data(path.resolve().name, *_folders(path))


def _data(name: str, splits: Mapping[str, tuple[Tensor, Tensor]], class_names: Sequence[str] | None) -> Data:
    """Data of the given splits; takes a missing validation split from the training split."""
    parts = {part: Split(*pair) for part, pair in splits.items()}
    facts: dict[str, Any] = {}
    if "train" not in parts:
        raise ValueError(f"{name} has no training split, only {', '.join(parts) or 'none'}")
    if "validation" not in parts:
        train = parts["train"]
        count = len(train) // HELD_OUT
        if count < 1:
            raise ValueError(
                f"{name} needs at least {HELD_OUT} training samples for a validation split, got {len(train)}"
            )
        whole = train.y.dim() == 1 and not train.y.is_floating_point()
        held, rest = stratified(train.y if whole else torch.zeros(len(train), dtype=torch.int64), [count])
        parts["train"], parts["validation"] = Split(train.x[rest], train.y[rest]), Split(train.x[held], train.y[held])
        facts["validation"] = "one in ten of the training samples, stratified, the same for every seed"
    if class_names is not None:
        facts |= {"classes": len(class_names), "class_names": list(class_names)}
    facts["sizes"] = {part: len(split) for part, split in parts.items()}
    return prepared(Data(name=name, facts=facts, **parts))


# -- arrays ----------------------------------------------------------------------------------------------------


def _npz(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {path}: {error}; expected a .npz file of numbers") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, array in arrays.items():
        place = _place(key)
        if place is not None:
            found.setdefault(place[0], {})[place[1]] = _tensor(path, key, array)
    splits = {part: (pair["x"], pair["y"]) for part, pair in found.items() if len(pair) == 2}
    if not splits:
        raise ValueError(
            f"{path} must hold x_train and y_train (and x_val, x_test, …), train_images and train_labels, or x and y; "
            f"it holds {', '.join(arrays) or 'nothing'}"
        )
    return splits


def _tensor(path: Path, key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {key!r} must hold numbers, got {array.dtype}")
    tensor = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    return tensor.float() if tensor.dtype in (torch.float64, torch.float16) else tensor


def _place(key: str) -> tuple[str, str] | None:
    """The split, and "x" or "y", for the name of an array."""
    words = key.lower().replace("-", "_").split("_")
    part = next((p for p, names in _PARTS.items() if any(word in names for word in words)), None)
    what = "x" if any(w in _INPUTS for w in words) else "y" if any(w in _LABELS for w in words) else None
    if what is None or (part is None and len(words) > 1 and "_".join(words) not in (*_INPUTS, *_LABELS)):
        return None
    return part or "train", what


# -- folders ---------------------------------------------------------------------------------------------------


def _regular(path: Path) -> Path:
    """The path. Raises: ValueError for a FIFO, which would wait for a writer, a device or a folder."""
    if not path.is_file():
        raise ValueError(f"cannot read {path}: it is not a regular file")
    return path


def _cifar(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """CIFAR-10 or -100 in the binary version; {} for anything else."""
    ten = sorted(folder.glob("data_batch_*.bin"))
    if ten and (folder / "test_batch.bin").exists():
        return {"train": _records(ten, 1), "test": _records([folder / "test_batch.bin"], 1)}
    if (folder / "train.bin").exists() and (folder / "test.bin").exists():
        return {part: _records([folder / f"{part}.bin"], 2) for part in ("train", "test")}
    return {}


def _records(paths: Sequence[Path], labels: int) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32], and the last of the labels before each."""
    size, parts = labels + 3072, []
    for path in paths:
        content = np.fromfile(_regular(path), np.uint8)
        if not len(content) or len(content) % size:
            raise ValueError(f"{path} has {len(content):,} bytes, expected records of {size} (CIFAR's binary version)")
        parts.append(content.reshape(-1, size))
    table = torch.from_numpy(np.concatenate(parts))
    return table[:, labels:].reshape(-1, 3, 32, 32), table[:, labels - 1].long()


def _folders(root: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """Images by class."""
    inside = _subfolders(root)
    parts = {part: root / name for part, names in _PARTS.items() for name in names if name in inside}
    parts = parts if "train" in parts else {"train": root}
    classes = _subfolders(parts["train"])
    listed = {part: _listing(folder, classes) for part, folder in parts.items()}
    if len(classes) < 2 or not listed["train"]:
        raise ValueError(
            f"cannot read data from {root}: expected a folder of images per class, or train, val and test folders with "
            f"these; found {', '.join(sorted(p.name for p in root.iterdir())[:6]) or 'nothing'}"
        )
    size, mode = _form(path for path, _ in listed["train"])
    found = {}
    for part, files in listed.items():
        if files:
            x = _stacked([_opened(path) for path, _ in files], size, mode)
            found[part] = x, torch.tensor([label for _, label in files])
    return found, classes


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listing(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    found = _subfolders(folder)
    if unknown := [name for name in found if name not in classes]:
        raise ValueError(f"{folder} has classes that the training folder lacks: {', '.join(unknown)}")
    return [
        (_regular(path), number)
        for number, name in enumerate(classes)
        if name in found
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _IMAGES
    ]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading images needs Pillow: pip install pillow") from error
    return Image


def _form(paths: Iterable[Path]) -> tuple[tuple[int, int], str]:
    """The most common size (width, height), and "L" if all are grey, else "RGB"."""
    image, sizes, grey = _pillow(), Counter[tuple[int, int]](), True
    for path in paths:
        with image.open(path) as picture:
            sizes[picture.size] += 1
            grey = grey and picture.mode in ("L", "1", "I;16")
    size = sizes.most_common(1)[0][0]
    if len(sizes) > 1:
        others = sum(sizes.values()) - sizes[size]
        warnings.warn(f"{others:,} images of other sizes were resized to {size[0]}×{size[1]}", DataNote, stacklevel=2)
    return size, "L" if grey else "RGB"


def _opened(path: Path) -> Any:
    try:
        with _pillow().open(path) as picture:
            picture.load()
            return picture.copy()
    except OSError as error:
        raise ValueError(f"cannot read the image {path}: {error}") from error


def _stacked(pictures: Sequence[Any], size: tuple[int, int], mode: str) -> Tensor:
    """Images as uint8 [N, 1 or 3, H, W]."""
    arrays = [np.asarray(p.convert(mode) if p.size == size else p.convert(mode).resize(size)) for p in pictures]
    x = torch.from_numpy(np.stack(arrays))
    return x.unsqueeze(1) if mode == "L" else x.permute(0, 3, 1, 2).contiguous()


# -- datasets --------------------------------------------------------------------------------------------------


def _saved(path: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str] | None]:
    """A data set saved by `datasets`: a column of images, or of numbers of one shape, and one of labels."""
    try:
        import datasets  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} was saved by datasets: pip install sparsight[datasets]") from error
    found = datasets.load_from_disk(str(path))
    tables = dict(found) if isinstance(found, Mapping) else {"train": found}
    splits, names = {}, None
    for name, table in tables.items():
        part = next((p for p, words in _PARTS.items() if name in words), None)
        x = next((c for c in table.column_names if c in _INPUTS), None)
        y = next((c for c in table.column_names if c in (*_LABELS, "fine_label")), None)
        if part is None:
            continue
        if x is None or y is None:
            raise ValueError(
                f"{path} must have a column of images ({', '.join(_INPUTS)}) and one of labels ({', '.join(_LABELS)}), "
                f"got {', '.join(table.column_names)}; for text use package.module:function that returns a Data"
            )
        names = getattr(table.features[y], "names", names)
        values = table[x]
        first = values[0]
        if hasattr(first, "convert"):
            grey = all(picture.mode in ("L", "1") for picture in values)
            inputs = _stacked(list(values), first.size, "L" if grey else "RGB")
        else:
            inputs = _tensor(path, x, np.asarray(values))
        splits[part] = inputs, torch.as_tensor(np.asarray(table[y]))
    return splits, names
