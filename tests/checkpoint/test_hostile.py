"""Files that claim more than they hold, or would run code: refused in one error, or read for what is there."""

import argparse
import collections
import enum
import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsight.analysis import analyze
from sparsight.checkpoint import CheckpointError, Entry, entry, load_tensors, open_checkpoint, reading
from sparsight.checkpoint.entry import LONGEST_HEADER, MOST_ENTRIES
from sparsight.checkpoint.opcodes import MOST_OBJECTS, MOST_OPCODES

START = b"\x80\x02"
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    shape: tuple[int, ...], strides: tuple[int, ...], *, count: int, first: int = 0, kind: str = "Float", old=False
) -> bytes:
    storage = text("storage") + b"ctorch\n" + kind.encode() + b"Storage\n" + text("0") + text("cpu") + number(count)
    pid = b"(" + storage + (b"N" if old else b"") + b"tQ"
    rest = number(first) + numbers(shape) + numbers(strides) + b"\x89N"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + rest + b"tR"


def zipped(path: Path, pickle: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle)
        archive.writestr("m/version", b"3\n")
        for name, content in more.items():
            archive.writestr(f"m/data/{name.removeprefix('_')}", content)
    return path


def held(items: bytes) -> bytes:
    return START + b"}(" + items + b"u."


def one(value: bytes) -> bytes:
    """A network of one weight, and a value beside it."""
    return held(text("fc.weight") + tensor((2, 2), (2, 1), count=4) + text("odd") + value)


FOUR = np.arange(4, dtype=np.float32).tobytes()


def of_old_format(path: Path, pickle: bytes, keys: bytes = b"\x80\x02](X\x01\x00\x00\x000e.", count: int = 4) -> Path:
    path.write_bytes(OLD + pickle + keys + struct.pack("<q", count) + FOUR)
    return path


def header(path: Path, content: bytes, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content)
    return path


# -- what a number in a file claims ------------------------------------------------------------------------------

CLAIMS = {
    "bytearray": b"cbuiltins\nbytearray\n(" + number(3_000_000_000) + b"tR",
    "bytes": b"cbuiltins\nbytes\n(" + number(3_000_000_000) + b"tR",
    "an uninitialised tensor": b"ctorch\nTensor\n(" + number(30_000) + number(30_000) + b"tR",
    "a new tensor": b"ctorch\nFloatTensor\n(" + number(900_000_000) + b"t\x81",
    "a range made a list": b"cbuiltins\nlist\n(cbuiltins\nrange\n(" + number(1 << 60) + b"tRtR",
    "an array": b"cnumpy\nzeros\n(" + number(900_000_000) + b"tR",
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("old", [True, False])
def test_a_claim_is_listed_and_the_weights_are_analysed(claim: str, old: bool, tmp_path: Path):
    path = tmp_path / "m.pt"
    if old:
        weight = tensor((2, 2), (2, 1), count=4, old=True)
        of_old_format(path, held(text("fc.weight") + weight + text("odd") + CLAIMS[claim]))
    else:
        zipped(path, one(CLAIMS[claim]), _0=FOUR)
    found = analyze(path)
    assert [(t.name, t.summary.count) for t in found.tensors] == [("fc.weight", 4)]
    assert [x.name for x in found.listed] == ["odd"]
    assert "not rebuilt" in found.listed[0].why
    assert torch.equal(load_tensors(open_checkpoint(path))["fc.weight"], torch.arange(4.0).reshape(2, 2))


@pytest.mark.parametrize(
    ("shape", "strides", "first"),
    [((600_000, 1000), (0, 0), 0), ((1 << 31, 4), (0, 1), 0), ((2, 2), (0, 1), 1), ((9, 2), (0, 2), 0)],
)
@pytest.mark.parametrize("old", [True, False])
def test_a_view_larger_than_its_storage_is_listed(shape, strides, first: int, old: bool, tmp_path: Path):
    good = tensor((2, 2), (2, 1), count=4, old=old)
    pickle = held(text("a.weight") + good + text("b.weight") + tensor(shape, strides, count=4, first=first, old=old))
    path = of_old_format(tmp_path / "m.pt", pickle) if old else zipped(tmp_path / "m.pt", pickle, _0=FOUR)
    entries = {e.name: e for e in open_checkpoint(path).entries}
    if entries["b.weight"].count > 4:
        assert "more than once" in str(entries["b.weight"].obstacle)
    else:
        assert torch.equal(load_tensors(open_checkpoint(path))["b.weight"], torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    assert analyze(path, include="a*").tensors[0].summary.count == 4


BEYOND = {
    "shape": tensor((3, 2), (2, 1), count=4),
    "stride": tensor((2, 2), (3, 1), count=4),
    "offset": tensor((2, 2), (2, 1), count=4, first=1),
    "huge": tensor((1 << 40, 1 << 40), (1 << 40, 1), count=4),
    "negative stride": tensor((2, 2), (-1, 1), count=4),
    "negative offset": tensor((2, 2), (2, 1), count=4, first=-1),
    "negative size": tensor((-2, 2), (2, 1), count=4),
    "strides missing": tensor((2, 2), (1,), count=4),
    "65 dimensions": tensor((1,) * 65, (1,) * 65, count=4),
    "more than the record": tensor((2, 3), (3, 1), count=6),
    "a size of 2^63": tensor((1 << 63, 0), (0, 1), count=4),
    "a storage of its own": b"ctorch\nFloatStorage\n(" + number(900_000_000) + b"tR",
    "no storage": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89NtR",
    "an unknown storage": tensor((2, 2), (2, 1), count=4, kind="Evil"),
}


@pytest.mark.parametrize("claim", BEYOND)
def test_a_tensor_beyond_its_bytes_is_refused(claim: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"beyond|size|strides|shape|bytes|storage"):
        open_checkpoint(zipped(tmp_path / "m.pt", held(text("w") + BEYOND[claim]), _0=FOUR))


@pytest.mark.parametrize(
    ("keys", "count", "message"),
    [
        (START + b"].", 4, "'0' is missing"),
        (START + b"](X\x01\x00\x00\x001e.", 4, "'1' does not have the size"),
        (START + b"](X\x01\x00\x00\x000X\x01\x00\x00\x000e.", 4, "'0' does not have the size"),
        (START + b"](X\x01\x00\x00\x000e.", 1 << 60, "'0' does not have the size"),
        (START + b"K\x05.", 4, "does not name its storages"),
        (START + b"](]e.", 4, "does not name its storages"),
    ],
)
def test_storages_of_the_old_format(keys: bytes, count: int, message: str, tmp_path: Path):
    pickle = held(text("w") + tensor((2, 2), (2, 1), count=4, old=True))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(of_old_format(tmp_path / "m.pt", pickle, keys, count))
    path = of_old_format(tmp_path / "m.pt", pickle)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="it ends after"):
        open_checkpoint(path)


# -- limits, each by its name ------------------------------------------------------------------------------------


def names(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":1' % i for i in range(count)) + b"}"


LIMITS = {
    "header": lambda p: header(p, b"{" + b" " * LONGEST_HEADER, LONGEST_HEADER + 1),
    "entries": lambda p: header(p, names(MOST_ENTRIES + 1)),
    "values": lambda p: header(p, b'{"a":[' + b"[]," * 1_250_000),
    "pickle": lambda p: zipped(p, START + b" " * LONGEST_HEADER),
    "opcodes": lambda p: zipped(p, START + b"N0" * (MOST_OPCODES // 2) + b"N."),
    "objects": lambda p: zipped(p, START + b"]" * 16_000_000),
    "objects, marks": lambda p: zipped(p, START + b"(" * (MOST_OBJECTS + 1)),
    "objects, dictionaries": lambda p: zipped(p, START + b"](" + b"}K\x01K\x01s" * (MOST_OBJECTS // 3 + 1) + b"e."),
    "objects, kept": lambda p: zipped(p, START + b"Nr\xff\xff\xff\x7f."),
    "objects, old": lambda p: (p.write_bytes(OLD + START + b"]" * 16_000_000), p)[1],
    "deep": lambda p: zipped(p, START + b"]" * 900_000 + tensor((1,), (1,), count=1) + b"a" * 900_000 + b".", _0=FOUR),
    "deep, tuples": lambda p: zipped(p, START + tensor((1,), (1,), count=1) + b"\x85" * 900_000 + b".", _0=FOUR),
    "a long name": lambda p: zipped(p, held(text("a" * 1001) + tensor((1,), (1,), count=1)), _0=FOUR),
    "many entries": lambda p: zipped(
        p, START + b"](" + tensor((1,), (1,), count=1) + b"q\x01" + b"h\x01" * MOST_ENTRIES + b"e.", _0=FOUR
    ),
}
WORDS = {
    "header": "header has 25,000,001 bytes, expected at most 25,000,000", "entries": "more than 250,000 entries",
    "values": "more than 2,500,000 values", "pickle": "pickle has 25,000,002 bytes, expected at most 25,000,000",
    "opcodes": "more than 5,000,000 opcodes", "objects": "makes more than 1,000,000 objects",
    "deep": "nested more than 64 deep", "a long name": "1,001 characters, expected at most 1,000",
    "many entries": "more than 250,000 entries",
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_named_by_the_error_that_meets_it(limit: str, tmp_path: Path):
    kind = "safetensors" if limit in ("header", "entries", "values") else "pt"
    with pytest.raises(CheckpointError, match=WORDS.get(limit) or WORDS[limit.partition(",")[0]]):
        open_checkpoint(LIMITS[limit](tmp_path / f"m.{kind}"))


def test_a_name_twice_among_many(tmp_path: Path):
    with pytest.raises(CheckpointError, match="names '7' twice"):
        open_checkpoint(header(tmp_path / "m.safetensors", names(200_000)[:-1] + b',"7":1}'))


def test_tensors_named_as_the_fields_are_tensors(tmp_path: Path):
    three = {name: torch.ones(2, 2) for name in ("dtype", "shape", "data_offsets")}
    save_file(three, tmp_path / "m.safetensors", dict.fromkeys(three, "x"))
    found = open_checkpoint(tmp_path / "m.safetensors")
    assert {e.name for e in found.entries} == {*three}
    assert found.metadata == dict.fromkeys(three, "x")


MEASURE = """
import sys
from pathlib import Path
import torch
from sparsight.checkpoint import CheckpointError, open_checkpoint
most = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = most()
for name in sys.argv[1:]:
    try:
        open_checkpoint(Path(name))
    except CheckpointError:
        continue
print(most() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_no_file_takes_more_than_256_mib(tmp_path: Path):
    kinds = ("values", "objects", "objects, dictionaries", "objects, kept")
    paths = [LIMITS[kind](tmp_path / f"{i}.{'safetensors' if not i else 'pt'}") for i, kind in enumerate(kinds)]
    paths += [zipped(tmp_path / f"claim{i}.pt", one(claim), _0=FOUR) for i, claim in enumerate(CLAIMS.values())]
    kept = b"".join(b"]r" + struct.pack("<I", i) + b"K\x01a" for i in range(MOST_OBJECTS - 2))
    paths.append(zipped(tmp_path / "kept.pt", START + b"](" + kept + b"e."))
    letters = text("a" * (LONGEST_HEADER - 1000) + "\U0001f600")
    paths.append(zipped(tmp_path / "letters.pt", START + letters + b"."))
    encoded = b"c_codecs\nencode\nq\x00" + text("a" * 9_000_000) + b"\x85q\x01" + b"h\x00h\x01R" * 100_000
    paths.append(zipped(tmp_path / "encoded.pt", START + b"(" + encoded + b"t."))
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 256 << 10


# -- archives ----------------------------------------------------------------------------------------------------


def archive() -> bytearray:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.arange(12.0).reshape(3, 4), "b.weight": torch.ones(2, 2)}, buffer)
    return bytearray(buffer.getvalue())


def patched(at: int, form: str, value: int) -> bytearray:
    content = archive()
    struct.pack_into(form, content, at % len(content), value)
    return content


def second_directory() -> bytearray:
    """The old directory stays where it was; the numbers of 64 bits and those of 32 name two."""
    content = archive()
    struct.pack_into("<I", content, len(content) - 22 + 16, 64)
    return content


def overlapping() -> bytearray:
    content = archive()
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return content


def compressed() -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("m/data.pkl", START + b"]" * 1_000_000)
    return bytearray(buffer.getvalue())


ARCHIVES = {
    "two directories": (second_directory, "two directories"),
    "a directory elsewhere": (lambda: patched(-22 - 20 - 56 + 48, "<Q", 64), "two directories|not where its end says"),
    "overlapping records": (overlapping, "has another name|share bytes"),
    "compressed": (compressed, "compressed"),
    "1.5 million records": (lambda: patched(-22 - 20 - 56 + 32, "<Q", 1_500_000), "two directories"),
    "bytes after its end": (lambda: archive() + b"x", "does not end with its directory"),
    "a comment": (lambda: patched(-2, "<H", 1) + b"x", "does not end with its directory"),
    "cut": (lambda: archive()[:-40], "does not end with its directory"),
    "nothing but its end": (lambda: bytearray(b"PK\3\4") + archive()[-22:], "not where|damaged"),
}


@pytest.mark.parametrize("lie", ARCHIVES)
def test_an_archive_that_lies_is_refused(lie: str, tmp_path: Path):
    make, message = ARCHIVES[lie]
    (tmp_path / "m.pt").write_bytes(make())
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "m.pt")


def test_a_directory_of_many_entries_is_refused_unread(tmp_path: Path):
    """Its 64-bit end claims 1.5 million entries in 70 MB that are not there: a sparse file."""
    path, entries, length = tmp_path / "m.pt", 1_500_000, 70_000_000
    with open(path, "wb") as file:
        file.write(b"PK\3\4")
        file.seek(4 + length)
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, length, 4))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, 4 + length, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    with pytest.raises(CheckpointError, match="more than 250,000 entries"):
        open_checkpoint(path)


# -- nothing that does anything ----------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    pass


class Loud:
    def __init__(self) -> None:
        self.weight = torch.ones(3, 3)

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("code of a file was run")


OBJECTS = {
    "an enum": Colour.RED,
    "a deque": collections.deque([1, 2], maxlen=9),
    "a function": np.sum,
    "a class": Loud,
    "an object": Loud(),
    "a dictionary of a class": Config(a=1),
    "arguments": argparse.Namespace(lr=0.1, nested=argparse.Namespace(x=Colour.RED)),
    "a set": {1, 2},
    "a module": nn.Linear(2, 2),
    "a device": torch.device("cpu"),
    "a dtype": torch.float16,
    "a number of NumPy": np.float32(0.5),
    "a generator": torch.Generator().get_state().numpy(),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("old", [True, False])
def test_objects_are_listed_and_not_rebuilt(kind: str, old: bool, tmp_path: Path):
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    thing = {"model": {"fc.weight": weight}, "args": OBJECTS[kind], "many": [OBJECTS[kind]] * 3}
    torch.save(thing, tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    found = analyze(tmp_path / "m.pt")
    assert [t.name for t in found.tensors] == ["fc.weight"]
    assert found.tensors[0].summary == analyze({"fc.weight": weight}).tensors[0].summary
    assert [x.name for x in found.listed] == ["args", "many"]
    assert "not a tensor but a list of" in found.listed[1].why
    assert torch.equal(load_tensors(open_checkpoint(tmp_path / "m.pt"))["fc.weight"], weight)


class Shadowing:
    """Pickled as a dictionary of a class whose state hides its own methods."""

    def __init__(self, kind: type, items: dict[str, Tensor]) -> None:
        other = torch.full((9, 9), 7.0)
        state = {"items": 3, "keys": {"other": other}, "values": [other], "get": other, "__len__": 0, "update": other}
        self.reduced = (kind, (), state, None, iter(items.items()))

    def __reduce__(self) -> tuple:
        return self.reduced


def hidden(tensor: Tensor) -> Tensor:
    """The tensor, or a parameter of it, whose attributes hide its own methods."""
    tensor.numel = tensor.view = tensor.items = 7
    return tensor


TWO = {"items": torch.arange(6.0).reshape(2, 3), "fc.weight": torch.ones(3, 2)}
SHADOWS = {
    "an ordered dictionary": lambda: Shadowing(collections.OrderedDict, TWO),
    "one inside another": lambda: {"state_dict": Shadowing(collections.OrderedDict, TWO), "epoch": 3},
    "a counter": lambda: Shadowing(collections.Counter, TWO),
    "names of methods": lambda: {
        **TWO,
        "keys": torch.ones(2, 2),
        "__class__": torch.ones(3, 3),
        "shape": torch.ones(4),
    },
    "a tensor": lambda: {"items": hidden(TWO["items"].clone()), "fc.weight": TWO["fc.weight"]},
    "a parameter": lambda: {"items": hidden(nn.Parameter(TWO["items"])), "fc.weight": TWO["fc.weight"]},
}


@pytest.mark.parametrize("kind", SHADOWS)
@pytest.mark.parametrize("old", [True, False])
def test_what_hides_a_method_changes_nothing_that_is_read(kind: str, old: bool, tmp_path: Path):
    torch.save(SHADOWS[kind](), tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    found = load_tensors(open_checkpoint(tmp_path / "m.pt"))
    assert {name: value.tolist() for name, value in found.items() if name in TWO} == {
        name: value.tolist() for name, value in TWO.items()
    }
    assert len(found) == (5 if kind == "names of methods" else 2)


DAMAGED = {
    "a list as a key": held(b"]K\x01"),
    "a dictionary as a key": held(b"}K\x01"),
    "a key that nests": held(b")\x85\x85K\x01"),
    "a state of a list": START + b"]}b.",
    "a state of a tensor": held(text("w") + tensor((2, 2), (2, 1), count=4) + b")b"),
    "items of a number": START + b"K\x01K\x01K\x01s.",
    "appended to a function": START + b"ctorch._utils\n_rebuild_tensor\nK\x01a.",
    "a new function": START + b"ctorch._utils\n_rebuild_tensor\n)\x81.",
    "a call of a number": START + b"K\x01)R.",
    "a call with a list": START + b"ccollections\nOrderedDict\n]R.",
    "a dictionary with a list for a state": START + b"ccollections\nOrderedDict\n)R]b.",
    "a dictionary of a number": START + b"ccollections\nOrderedDict\nK\x01\x85R.",
    "an odd number of items": START + b"}(K\x01u.",
    "nothing kept there": START + b"Nq\x05h\x03.",
    "an empty stack": START + b"0.",
    "no mark": START + b"t.",
    "no name": START + b"cos\n\n.",
    "an unknown protocol": b"\x80\x63N.",
    "an unknown opcode": START + b"\x93.",
    "no end": START + b"N",
    "text cut": START + b"X\xff\xff\xff\xff.",
    "text not in UTF-8": START + b"X\x01\x00\x00\x00\xff.",
    "something stored that is no storage": START + b"(X\x01\x00\x00\x00atQ.",
    "a gradient of integers": held(text("w") + tensor((2, 2), (2, 1), count=2, kind="Long").replace(b"\x89", b"\x88")),
    "facts of a tensor that are none": held(text("w") + tensor((2, 2), (2, 1), count=4)[:-2] + b"K\x01tR"),
    "a storage twice": held(
        text("a") + tensor((2, 2), (2, 1), count=4) + text("b") + tensor((1,), (1,), count=2, kind="Half")
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_pickle_is_refused_where_it_is(damage: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"its pickle is damaged at byte|has the opcode"):
        open_checkpoint(zipped(tmp_path / "m.pt", DAMAGED[damage], _0=FOUR))


@pytest.mark.parametrize("fact", ["version", "byteorder", ".data/serialization_id", ".storage_alignment"])
@pytest.mark.parametrize("value", [b"\xff", b"99", b"x" * 2000])
def test_an_archive_that_is_not_of_pytorch_is_refused(fact: str, value: bytes, tmp_path: Path):
    path = tmp_path / "m.pt"
    pickle = held(text("w.weight") + tensor((2, 2), (2, 1), count=4))
    with zipfile.ZipFile(path, "w") as z:
        for name, content in {"data.pkl": pickle, "version": b"3", "data/0": FOUR, fact: value}.items():
            z.writestr(f"m/{name}", content)
    if value == b"99" and fact in (".data/serialization_id", ".storage_alignment"):
        assert [e.name for e in open_checkpoint(path).entries] == ["w.weight"]
        return
    with pytest.raises(CheckpointError, match=r"damaged|version|byte order|aligned"):
        open_checkpoint(path)


def test_a_record_that_is_a_folder_is_refused(tmp_path: Path):
    """PyTorch reads nothing of it, and gives what happens to lie in memory."""
    content = archive()
    at = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    content[at + 38] = 0x10
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="an entry of its directory is invalid"):
        open_checkpoint(tmp_path / "m.pt")


# -- equal to what PyTorch reads ---------------------------------------------------------------------------------


def layouts() -> dict[str, Tensor]:
    base = torch.arange(6 * 5 * 4 * 3, dtype=torch.float32).reshape(6, 5, 4, 3)
    return {
        "whole": base, "slice": base[1:3], "column": base[..., 1], "steps": base[::2, 1::3],
        "turned": base.permute(2, 0, 3, 1),
        "square": base.view(-1)[:36].view(6, 6), "square turned": base.view(-1)[:36].view(6, 6).t(),
        "number": base[1, 1, 1, 1], "empty": base[:0], "windows": base.view(-1).unfold(0, 3, 3)[:9],
        "overlapping": base.view(-1)[:7].unfold(0, 2, 1)[:3, :], "half": base.half(), "bool": base > 3,
        "integers": base.long(),
        "float8": base.to(torch.float8_e5m2), "uint16": base.to(torch.uint16), "complex": base.to(torch.complex128),
        "bfloat16": base.bfloat16().transpose(0, 3),
    }  # fmt: skip


@pytest.mark.parametrize("old", [True, False])
def test_every_layout_is_read_as_pytorch_reads_it(old: bool, tmp_path: Path):
    thing = {**layouts(), "parameter": nn.Parameter(torch.randn(3, 4)), "again": layouts()["whole"]}
    if old:  # PyTorch cannot read these from its own files
        del thing["uint16"], thing["float8"]
    torch.save(thing, tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    right = torch.load(tmp_path / "m.pt", weights_only=True)
    found = load_tensors(open_checkpoint(tmp_path / "m.pt"))
    assert found.keys() == right.keys()
    for name, value in right.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        bits = [x.contiguous().view(-1).view(torch.uint8) for x in (found[name], value)]
        assert torch.equal(*bits), name


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_elements_are_read_in_logical_order(data: st.DataObject):
    """Any shape and strides, any part, whatever may be read between the elements."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=5)))
    order = data.draw(st.permutations(range(len(shape))))
    strides, step = [0] * len(shape), 1
    for i in order:
        step *= data.draw(st.integers(1, 4))
        strides[i] = step
        step *= shape[i]
    memory = np.arange(1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)), dtype=np.uint16)
    right = np.lib.stride_tricks.as_strided(memory, shape, [2 * s for s in strides]).reshape(-1)
    first = data.draw(st.integers(0, right.size))
    last = data.draw(st.integers(first, right.size))
    gap, some = reading._GAP, data.draw(st.sampled_from([2, 8, 64, 1 << 15]))
    entry, asked = Entry("w", "uint16", shape, Path("w"), strides=tuple(strides)), []

    def read(entry: Entry, file: int, offset: int, out: np.ndarray) -> None:
        asked.append(out.size)
        out[:] = memory[offset // 2 : offset // 2 + out.size]

    found = np.empty(last - first, np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_GAP", some)
        patch.setattr(reading, "read_at", read)
        reading.read_elements(entry, 0, first, last, found)
    assert gap == reading._GAP
    assert (found == right[first:last]).all()
    assert max(asked, default=0) <= max(2 * found.size, some // 2)


def test_a_slice_is_read_by_its_extent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = torch.randn(2000, 1000)
    torch.save({"rows.weight": base[5:8], "column.weight": base[:, 3:4]}, tmp_path / "m.pt")
    read, plain = [], entry._read_some
    monkeypatch.setattr(entry, "_read_some", lambda *a: (read.append(len(a[2])), plain(*a))[1])
    found = load_tensors(open_checkpoint(tmp_path / "m.pt"))
    assert torch.equal(found["rows.weight"], base[5:8])
    assert torch.equal(found["column.weight"], base[:, 3:4])
    assert read[0] == 3 * 4000
    assert max(read[1:]) <= 1 << 15


@pytest.mark.parametrize("old", [True, False])
def test_transposed_tensors_are_streamed(old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In blocks, none of which asks for the whole; also where the budget is smaller than the tensor."""
    weights = torch.randn(3000, 3500)
    torch.save({"w.weight": weights.t()}, tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    right = analyze({"w.weight": weights.t()}, sample=False)
    read, plain = [], entry._read_some
    monkeypatch.setattr(entry, "_read_some", lambda *a: (read.append(len(a[2])), plain(*a))[1])
    assert analyze(tmp_path / "m.pt", sample=False, budget=32 << 20).tensors == right.tensors
    assert max(read) < 1 << 20


def test_views_that_span_the_file_many_times_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sparsight.checkpoint.pytorch._ALWAYS_SHOWN", 0)
    base = torch.randn(1000, 10)
    torch.save({f"c{i}.weight": base[:, i : i + 1].expand(-1, 1) for i in range(10)} | {"w": base}, tmp_path / "m.pt")
    obstacles = [e.obstacle for e in open_checkpoint(tmp_path / "m.pt").entries]
    assert obstacles[:4] == [None] * 4
    assert "span the file's bytes more than 4 times" in str(obstacles[-1])


def test_an_index_is_a_header(tmp_path: Path):
    index = tmp_path / "model.safetensors.index.json"
    with open(index, "wb") as file:
        file.truncate(LONGEST_HEADER + 1)
    with pytest.raises(CheckpointError, match="the index has 25,000,001 bytes, expected at most 25,000,000"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {str(i): f"{i}.safetensors" for i in range(1000)}}))
    with pytest.raises(CheckpointError, match="is missing"):
        open_checkpoint(tmp_path)
