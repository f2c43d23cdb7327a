from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from sparsight import Data, Split, execute
from sparsight.recipes import lottery
from sparsight.zoo.data import DataNote, from_path, load, prepared

image = pytest.importorskip("PIL.Image")


def pictures(n: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def normalised(x: np.ndarray, of: np.ndarray) -> torch.Tensor:
    """By channel, the channels first; in float64."""
    axes = (0, 2, 3)
    scaled, whole = x / 255.0, of / 255.0
    return torch.from_numpy((scaled - whole.mean(axes, keepdims=True)) / whole.std(axes, keepdims=True))


class TestArrays:
    @pytest.mark.parametrize(
        "names",
        [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels"),
         ("X_train", "Y_train", "X_test", "Y_test")],
    )  # fmt: skip
    def test_names(self, tmp_path, names):
        x, t = pictures(50, (6, 6)), pictures(10, (6, 6), 1)
        y = np.arange(50) % 5
        np.savez(tmp_path / "mine.npz", **dict(zip(names, (x, y, t, np.arange(10) % 5), strict=True)))
        with pytest.warns(DataNote, match=r"mine: uint8 images were scaled to \[0, 1\] and normalised"):
            data = load(str(tmp_path / "mine.npz"))
        assert isinstance(data.train, Split)
        assert isinstance(data.validation, Split)
        assert isinstance(data.test, Split)
        assert (len(data.train), len(data.validation), len(data.test)) == (45, 5, 10)
        assert sorted(data.validation.y.tolist()) == [0, 1, 2, 3, 4]
        assert data.train.x.shape == (45, 1, 6, 6)
        assert abs(float(data.train.x.mean())) < 1e-5
        assert float(data.train.x.std(correction=0)) == pytest.approx(1, abs=1e-5)

    def test_a_validation_split_of_its_own_and_channels_last(self, tmp_path):
        x, v = pictures(20, (5, 4, 3)), pictures(6, (5, 4, 3), 1)
        np.savez(tmp_path / "a.npz", x_train=x, y_train=np.zeros(20, int), x_val=v, y_val=np.zeros(6, int))
        with pytest.warns(DataNote, match="channels were moved to the front"):
            data = from_path(tmp_path / "a.npz")
        assert isinstance(data.validation, Split)
        front = (0, 3, 1, 2)
        torch.testing.assert_close(
            data.validation.x.double(), normalised(v.transpose(front), x.transpose(front)), atol=1e-5, rtol=1e-5
        )

    def test_floats_stay_as_they_are(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(40, 7))
        np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 4)
        data = from_path(tmp_path / "a.npz")
        assert isinstance(data.train, Split)
        rows = {tuple(row) for row in x.astype(np.float32).tolist()}
        assert {tuple(row) for row in data.train.x.tolist()} < rows

    def test_what_is_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", weights=np.ones(3))
        with pytest.raises(ValueError, match="must hold x_train and y_train .*it holds weights"):
            from_path(tmp_path / "a.npz")
        np.savez(tmp_path / "b.npz", x=np.array([{"a": 1}], dtype=object), y=np.ones(1))
        with pytest.raises(ValueError, match=r"cannot read .*b\.npz"):
            from_path(tmp_path / "b.npz")
        (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 nothing")
        with pytest.raises(ValueError, match=r"cannot read .*c\.npz"):
            from_path(tmp_path / "c.npz")
        (tmp_path / "d.csv").write_text("1,2")
        with pytest.raises(ValueError, match=r"expected a \.npz file or a folder"):
            from_path(tmp_path / "d.csv")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            from_path(tmp_path / "e.npz")


class TestFolders:
    def fill(self, root, parts, classes=("cat", "dog"), count=10, size=(6, 5), mode="RGB"):
        for p, part in enumerate(parts):
            for c, name in enumerate(classes):
                folder = root / part / name
                folder.mkdir(parents=True)
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                for i, array in enumerate(pictures(count, shape, 10 * p + c)):
                    image.fromarray(array, mode).save(folder / f"{i:02d}.png")

    def test_one_folder_for_each_class(self, tmp_path):
        self.fill(tmp_path, [""])
        with pytest.warns(DataNote):
            data = load(str(tmp_path))
        assert isinstance(data.train, Split)
        assert isinstance(data.validation, Split)
        assert (len(data.train), len(data.validation), data.test) == (18, 2, None)
        assert data.facts["class_names"] == ["cat", "dog"]
        assert data.train.x.shape == (18, 3, 5, 6)

    def test_train_val_and_test(self, tmp_path):
        self.fill(tmp_path, ["train", "val", "test"])
        with pytest.warns(DataNote):
            data = from_path(tmp_path)
        x = np.concatenate([pictures(10, (5, 6, 3), c) for c in (0, 1)]).transpose(0, 3, 1, 2)
        t = np.concatenate([pictures(10, (5, 6, 3), 20 + c) for c in (0, 1)]).transpose(0, 3, 1, 2)
        assert isinstance(data.test, Split)
        torch.testing.assert_close(data.test.x.double(), normalised(t, x), atol=1e-5, rtol=1e-5)
        assert data.test.y.tolist() == [0] * 10 + [1] * 10

    def test_grey_images_have_one_channel_and_odd_sizes_are_told(self, tmp_path):
        self.fill(tmp_path, [""], mode="L")
        image.fromarray(pictures(1, (9, 9))[0], "L").save(tmp_path / "cat" / "big.png")
        with pytest.warns(DataNote) as told:
            data = from_path(tmp_path)
        assert isinstance(data.train, Split)
        assert data.train.x.shape[1:] == (1, 5, 6)
        assert "1 images of other sizes were resized to 6×5" in [str(note.message) for note in told]

    def test_a_class_that_was_never_trained(self, tmp_path):
        self.fill(tmp_path, ["train"])
        self.fill(tmp_path, ["test"], classes=("cat", "cow"))
        with pytest.raises(ValueError, match="classes that the training folder lacks: cow"):
            from_path(tmp_path)

    def test_nothing_of_the_kind(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(ValueError, match="expected a folder of images per class.*found notes.txt"):
            from_path(tmp_path)

    def test_a_broken_image_is_named(self, tmp_path):
        self.fill(tmp_path, [""])
        whole = (tmp_path / "dog" / "03.png").read_bytes()
        (tmp_path / "dog" / "03.png").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"cannot read the image .*03\.png"):
            from_path(tmp_path)


class TestCifar:
    def write(self, path, n, labels=1, seed=0):
        x, y = pictures(n, (3, 32, 32), seed), np.random.default_rng(seed).integers(0, 10, (n, labels), np.uint8)
        np.concatenate([y, x.reshape(n, -1)], axis=1).tofile(path)
        return x, y

    def test_ten(self, tmp_path):
        parts = [self.write(tmp_path / f"data_batch_{i}.bin", 20, seed=i) for i in range(1, 6)]
        t, labels = self.write(tmp_path / "test_batch.bin", 15, seed=9)
        with pytest.warns(DataNote):
            data = from_path(tmp_path)
        assert isinstance(data.train, Split)
        assert isinstance(data.test, Split)
        assert len(data.train) == 90
        assert data.test.y.tolist() == labels[:, 0].tolist()
        assert sum(len(y) for _, y in parts) == 100
        assert data.test.x.shape == t.shape

    def test_hundred_takes_the_fine_labels(self, tmp_path):
        self.write(tmp_path / "train.bin", 30, labels=2)
        _, labels = self.write(tmp_path / "test.bin", 10, labels=2, seed=1)
        with pytest.warns(DataNote):
            data = from_path(tmp_path)
        assert isinstance(data.test, Split)
        assert data.test.y.tolist() == labels[:, 1].tolist()

    def test_a_cut_file(self, tmp_path):
        self.write(tmp_path / "data_batch_1.bin", 5)
        self.write(tmp_path / "test_batch.bin", 5)
        (tmp_path / "test_batch.bin").write_bytes((tmp_path / "test_batch.bin").read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"test_batch\.bin has 15,364 bytes, expected records of 3073"):
            from_path(tmp_path)


class Table:
    """What `datasets` gives back: columns by name, and their kinds."""

    def __init__(self, columns: dict, names: list[str] | None = None) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: type("Kind", (), {"names": names})() for name in columns}

    def __getitem__(self, name: str) -> list:
        return self.columns[name]


class TestSaved:
    @pytest.fixture
    def saved(self, tmp_path, monkeypatch):
        def write(found):
            (tmp_path / "state.json").write_text("{}")
            module = types.ModuleType("datasets")
            module.load_from_disk = lambda path: found  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, "datasets", module)
            return tmp_path

        return write

    def test_images(self, saved):
        arrays = pictures(30, (6, 6))
        tables = {name: Table({"image": [image.fromarray(a, "L") for a in part], "label": [0, 1, 2] * (len(part) // 3)},
                              ["a", "b", "c"]) for name, part in (("train", arrays), ("test", arrays[:6]))}  # fmt: skip
        with pytest.warns(DataNote):
            data = from_path(saved(tables))
        assert isinstance(data.train, Split)
        assert isinstance(data.test, Split)
        assert (data.train.x.shape, len(data.test)) == ((27, 1, 6, 6), 6)
        assert data.facts["class_names"] == ["a", "b", "c"]

    def test_numbers(self, saved):
        data = from_path(saved(Table({"x": [[1.0, 2.0]] * 20, "label": [0, 1] * 10})))
        assert isinstance(data.train, Split)
        assert data.train.x.shape == (18, 2)

    def test_text_needs_a_function(self, saved):
        with pytest.raises(
            ValueError, match=r"must have a column of images .*got text, label; for text use package\.module"
        ):
            from_path(saved(Table({"text": ["a", "b"], "label": [0, 1]})))


def test_images_of_bytes_that_were_given_as_data(tmp_path):
    x = torch.from_numpy(pictures(60, (1, 4, 4)))
    y = torch.arange(60) % 3
    data = Data(name="mine", train=Split(x[:40], y[:40]), validation=Split(x[40:], y[40:]))
    recipe = lottery(levels=1, epochs=1, batch_size=10, control=False)
    with pytest.warns(DataNote, match="mine: uint8 images were scaled"):
        outcome = execute(recipe, model="linear", data=data, out=tmp_path / "run", threads=1)
    assert outcome.levels[0].value is not None
    floats = Data(name="mine", train=Split(x[:40].float(), y[:40]), validation=Split(x[40:].float(), y[40:]))
    assert prepared(floats) is floats
