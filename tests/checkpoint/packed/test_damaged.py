"""Damaged and hostile packed files: one error that names the file, before anything is handed out or asked for."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
import torch
import zstandard
from torch import Tensor

from sparsight import load
from sparsight.checkpoint import CheckpointError, open_checkpoint, pack, unpack
from sparsight.checkpoint.packed import chunks
from sparsight.checkpoint.packed.head import LAYOUTS, RAW, SPARSE, head
from sparsight.checkpoint.writing import safetensors_header

BF16 = LAYOUTS["bfloat16"]


def state() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    kept = torch.rand(60, 70, generator=g) < 0.2
    w = torch.where(kept, torch.randn(60, 70, generator=g), torch.zeros(()))
    return {"w": w, "ones": torch.ones(400), "n": torch.arange(3), "b": w[:9, :9].bfloat16(), "tied": w}


@pytest.fixture
def packed(tmp_path) -> Path:
    pack(state(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def refused(path: Path, match: str | None = None) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_anywhere_in_the_values_is_noticed(packed):
    content = packed.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    for at in range(8 + length, len(content), 7):
        for bit in (0, 7):
            broken = bytearray(content)
            broken[at] ^= 1 << bit
            packed.write_bytes(broken)
            refused(packed, "damaged|checksum|times")


def test_a_flipped_bit_in_the_header_changes_no_tensor(packed):
    content, right = packed.read_bytes(), load(packed)
    (length,) = struct.unpack_from("<Q", content)
    for at in range(8, 8 + length):
        broken = bytearray(content)
        broken[at] ^= 1
        packed.write_bytes(broken)
        try:
            found = load(packed)
        except CheckpointError:
            continue
        assert found.keys() == right.keys()
        assert all(torch.equal(found[name], right[name]) for name in right)


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1, -8, -500])
def test_a_file_that_is_cut_short(packed, size):
    content = packed.read_bytes()
    packed.write_bytes(content[:size] if size else b"")
    refused(packed)


def test_nothing_is_written_from_a_damaged_file(packed, tmp_path):
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    with pytest.raises(CheckpointError):
        unpack(packed, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_renamed_tensor_is_noticed(packed):
    content = packed.read_bytes()
    for old, new in ((b'"w::packed"', b'"v::packed"'), (b'"n::packed"', b'"m::packed"')):
        if old in content:
            packed.write_bytes(content.replace(old, new))
            refused(packed, "checksum")


# -- what a forger writes: checksums are right -------------------------------------------------------------------


def forged(path: Path, blob: bytes, facts: dict | None = None, version: str = "1", size: int | None = None) -> Path:
    facts = {"tensors": 1, "plain": [], "aliases": {}, "metadata": {}, "lossy": "", **(facts or {})}
    text = json.dumps(facts)
    crc = f"{zlib.crc32(text.encode()):08x}"
    metadata = {"format": "sparsight-packed", "version": version, "facts": text, "crc32": crc}
    size = len(blob) if size is None else size
    path.write_bytes(safetensors_header(metadata, [("w::packed", "U8", [size], size)]) + blob)
    return path


def blob(shape: list[int], *bodies: bytes, encoding: int = SPARSE, power: int = 20, dtype: str = "bfloat16") -> bytes:
    sizes, sums = [len(body) for body in bodies], [zlib.crc32(body) for body in bodies]
    return head("w", encoding, dtype, shape, power, sizes, sums) + b"".join(bodies)


def chunk(
    n: int = 1, *, mask: bytes = b"\x02", whole: int = 1, kind: int = 1, table: bytes = b"\x7f", reserved: int = 0,
    ranks: bytes = b"\x00", escapes: bytes = b"", plane: bytes = b"\x01", more: bytes = b"",
) -> bytes:  # fmt: skip
    start = struct.pack("<IIIBBHII", n, len(mask), whole, kind, len(table), reserved, len(ranks), len(escapes))
    return start + struct.pack("<I", len(plane)) + table + mask + ranks + escapes + plane + more


def test_what_is_forged_well_is_read(tmp_path):
    found = load(forged(tmp_path / "a.safetensors", blob([4], chunk())))
    assert found["w"].tolist() == [0, 0, 1.0078125, 0]


@pytest.mark.parametrize("body", {
    "more words than weights": chunk(5, whole=5),
    "no mask for some words": chunk(kind=0, mask=b"", whole=0),
    "an unknown kind of mask": chunk(kind=3),
    "a mask beyond the end": chunk(mask=b"\x04"),
    "too many gaps": chunk(mask=b"\x00\x00", whole=2),
    "a mask of endless length": chunk(whole=(1 << 32) - 1),
    "bits of another length": chunk(kind=2, mask=b"\x01\x00", whole=2),
    "bits beyond the end": chunk(kind=2, mask=b"\x10"),
    "16 exponents": chunk(table=bytes(range(16))),
    "a rank without an exponent": chunk(ranks=b"\x01"),
    "an escape without an exponent": chunk(ranks=b"\x0f"),
    "an exponent too many": chunk(escapes=b"\x01"),
    "a word that is 0": chunk(table=b"\x00", plane=b"\x00"),
    "a plane too short": chunk(plane=b""),
    "a plane that is no zstd": chunk(plane=b"\x01\x02\x03"),
    "something in its reserve": chunk(reserved=1),
    "something after its parts": chunk(more=b"\x01"),
    "nothing": b"",
    "half a head": chunk()[:20],
}.items(), ids=lambda pair: pair[0])  # fmt: skip
def test_chunks_that_contradict_themselves(tmp_path, body):
    refused(forged(tmp_path / "a.safetensors", blob([4], body[1])), "'w' is damaged")


def frame(size: int, claimed: int | None = None) -> bytes:
    """A zstd frame of so many zeros, that claims another size."""
    found = bytearray(zstandard.ZstdCompressor().compress(bytes(size)))
    if claimed is not None:
        assert found[4] >> 6 == 2  # a content size of four bytes
        struct.pack_into("<I", found, 5, claimed)
    return bytes(found)


@pytest.mark.parametrize("plane", {
    "more than it says": frame(100_000),
    "a frame that lies": frame(100_000, 70_000),
    "two frames": frame(70_000) + frame(70_000),
    "half a frame": frame(70_000)[:-3],
}.items(), ids=lambda pair: pair[0])  # fmt: skip
def test_frames_that_are_not_what_they_say(tmp_path, plane):
    body = chunk(70_000, mask=b"", whole=0, kind=0, ranks=frame(35_000), plane=plane[1])
    refused(forged(tmp_path / "a.safetensors", blob([70_000], body)), "'w' is damaged")


HUGE = [1 << 62, 1 << 40, 1 << 33]


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("encoding", [0, 1, 2])
def test_no_memory_is_asked_for_on_the_word_of_a_file(tmp_path, size, encoding):
    path = forged(tmp_path / "a.safetensors", blob([size], chunk(), encoding=encoding))
    tracemalloc.start()
    refused(path, "more than 4096 times")
    refused(forged(path, blob([size, 0, size], chunk(), encoding=encoding)))
    refused(forged(path, blob([1 << 16] * 60, chunk(), encoding=encoding)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_tensor_of_zeros_is_as_large_as_it_must_be(tmp_path):
    done = pack({"w": torch.zeros(3000, 3000)}, tmp_path / "a.safetensors")
    assert 36_000_000 / 4096 < done.size < 36_000_000 / 4096 + 1000
    assert not load(tmp_path / "a.safetensors")["w"].any()


@pytest.mark.parametrize(("facts", "said"), [
    ({"tensors": 2}, "not as many as were packed"), ({"plain": [3]}, "not as many as were packed"),
    ({"aliases": {"v": "x"}}, "ties one"), ({"aliases": {"w": "w"}}, "names a tensor twice"),
    ({"aliases": {"v": 3}}, "ties one"), ({"metadata": {"a": 1}}, "not those of a packed file"),
    ({"tensors": "1"}, "not those of a packed file"), ({"new": 1}, "not those of a packed file"),
])  # fmt: skip
def test_facts_that_are_wrong(tmp_path, facts, said):
    refused(forged(tmp_path / "a.safetensors", blob([4], chunk()), facts), said)


def test_another_version_is_told(tmp_path):
    path = forged(tmp_path / "a.safetensors", blob([4], chunk()), version="2")
    refused(path, "a packed file of version '2', expected '1'; it needs another version of sparsight")


@pytest.mark.parametrize("content", [b"", b"\2\3", bytes(8), bytes([9, 3, 1, 20]) + bytes(60)])
def test_heads_that_are_none(tmp_path, content):
    refused(forged(tmp_path / "a.safetensors", content), "the packed tensor 'w'")


def test_chunks_that_do_not_fill_the_tensor(tmp_path):
    good = blob([4], chunk())
    refused(forged(tmp_path / "a.safetensors", good + bytes(8)), "do not fill its bytes")
    refused(forged(tmp_path / "a.safetensors", blob([4], b"\1\2\3", encoding=RAW)), "too few")
    refused(forged(tmp_path / "a.safetensors", blob([4], b"\1", encoding=1)), "its single value is missing")


def test_opening_reads_no_values(packed):
    content = bytearray(packed.read_bytes())
    content[content.index(b"}", 8 + struct.unpack_from("<Q", content)[0] - 20) + 700] ^= 1  # inside of w
    packed.write_bytes(content)
    assert {e.name for e in open_checkpoint(packed).entries} >= {"w", "ones"}
    refused(packed)


def test_words_are_not_zero_after_decoding():
    out = torch.zeros(4, dtype=torch.bfloat16).view(torch.uint8).numpy().view("u2")
    chunks.decode(memoryview(chunk()), BF16, out)
    assert out.tolist() == [0, 0, 0x3F81, 0]
