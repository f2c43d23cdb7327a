"""Packed files give back every bit: names, order, shapes, dtypes, signed zeros, NaN, denormals."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparsight import load, load_into
from sparsight.analysis import analyze
from sparsight.checkpoint import CheckpointError, nonzeros, open_checkpoint, pack, unpack
from sparsight.checkpoint.packed import head, write
from sparsight.checkpoint.packed.chunks import Layout, decode, encode

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
OTHERS = [
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
]  # fmt: skip
SPECIAL = {
    torch.float64: [1 << 63, 0x7FF8000000000001, 0xFFF0000000000123, 1, 0x7FF0000000000000, 0x3FF0000000000000],
    torch.float32: [1 << 31, 0x7FC00001, 0xFF800123, 1, 0x7F800000, 0x3F800000],
    torch.float16: [1 << 15, 0x7E01, 0xFC05, 1, 0x7C00, 0x3C00],
    torch.bfloat16: [1 << 15, 0x7FC1, 0xFF83, 1, 0x7F80, 0x3F80],
}
"""Bits of -0.0, a NaN, a NaN of another sign and payload, the smallest denormal, infinity, 1."""


def of_words(words: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(words.copy().view(np.uint8)).view(dtype).reshape(shape)


def bits(tensor: Tensor) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(bits(a[name]) == bits(b[name]) for name in a)


def sparse(shape: tuple[int, ...], density: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=g) < density
    return torch.where(kept, torch.randn(shape, generator=g) * 0.02, torch.zeros(())).to(dtype)


@st.composite
def tensors(draw) -> Tensor:
    """Any bits, of any dtype and shape; of floats mostly those that matter."""
    dtype = draw(st.sampled_from(FLOATS + OTHERS + [torch.bool]))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    size, width = int(np.prod(shape)), dtype.itemsize
    if dtype == torch.bool:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=dtype).reshape(shape)
    word = st.integers(0, (1 << 8 * width) - 1)
    some = draw(st.lists(word | st.sampled_from(SPECIAL.get(dtype, [1])), min_size=1, max_size=6))
    kept = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    words = rng.choice(np.array(some, f"u{width}"), size) * (rng.random(size) < kept).astype(f"u{width}")
    return of_words(words, dtype, shape)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(tensors(), min_size=1, max_size=5))
def test_any_tensors_come_back(tmp_path, found):
    state = {f"t{i}": tensor for i, tensor in enumerate(found)}
    pack(state, tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors"), state)
    unpack(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert same(dict(sorted(load_file(tmp_path / "b.safetensors").items())), state)


@settings(deadline=None, max_examples=300)
@given(st.integers(1, 5000), st.sampled_from([0.0, 0.001, 0.1, 0.4, 0.6, 0.99, 1.0]), st.integers(0, 99), st.data())
def test_any_words_come_back(size, share, seed, data):
    layout = data.draw(st.sampled_from([*head.LAYOUTS.values()]))
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 1 << min(8 * layout.size, 63), 40, layout.word)
    words = rng.choice(few, size) * (rng.random(size) < share).astype(layout.word)
    out = np.empty_like(words)
    decode(memoryview(encode(words, layout)), layout, out)
    assert out.tobytes() == words.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_negative_zero_is_a_value_and_positive_zero_is_not(tmp_path, dtype):
    words = np.zeros(4000, f"u{dtype.itemsize}")
    words[[3, 700, 701, 3999]] = SPECIAL[dtype][:4]
    state = {"w": of_words(words, dtype, (40, 100))}
    done = pack(state, tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors"), state)
    assert done.size < state["w"].nbytes
    (entry,) = open_checkpoint(tmp_path / "a.safetensors").entries
    ((places, values),) = nonzeros(entry)
    assert places.tolist() == [3, 700, 701, 3999]
    assert values.tolist() == SPECIAL[dtype][:4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_pruned_weights_take_little(tmp_path, dtype):
    state = {"w": sparse((1000, 1000), 0.1, dtype)}
    done = pack(state, tmp_path / "a.safetensors")
    n, rest = int((state["w"] != 0).sum()), {8: 53, 4: 24, 2: 8}[dtype.itemsize] + 3 * (dtype == torch.float16)
    floor = (1e6 * 0.469 + n * (rest + 1.8)) / 8
    assert done.payload < 1.06 * floor
    assert done.header <= 512
    assert same(load(tmp_path / "a.safetensors"), state)


def test_what_is_alike_takes_next_to_nothing(tmp_path):
    state = {"ones": torch.ones(5000), "zeros": torch.zeros(300, 50), "minus": torch.full((4000,), -0.0)}
    done = pack(state, tmp_path / "a.safetensors")
    assert done.payload == 12
    assert same(load(tmp_path / "a.safetensors"), state)


def test_what_does_not_pay_is_stored_as_it_is(tmp_path):
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4096,), generator=g, dtype=torch.uint8)
    pack({"noise": noise, "steps": torch.tensor(7)}, tmp_path / "a.safetensors")
    read = load_file(tmp_path / "a.safetensors")  # as any reader of safetensors does
    assert torch.equal(read["noise"], noise)
    assert read["steps"].item() == 7


def test_a_packed_file_is_safetensors(tmp_path):
    pack({"w": sparse((64, 64), 0.1), "odd": torch.tensor([1, 2, 3], dtype=torch.uint8)}, tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["format"] == "sparsight-packed"
        assert file.metadata()["version"] == "1"
        assert {*file.keys()} == {"w::packed", "odd::packed"}
        assert all(file.get_tensor(name).dtype == torch.uint8 for name in {*file.keys()})


def test_chunks_are_joined_where_they_meet(tmp_path, monkeypatch):
    state = {"w": sparse((123, 457), 0.2), "v": sparse((1000,), 0.9, torch.bfloat16), "i": torch.arange(777)}
    for power in (4, 7, 13):
        monkeypatch.setattr(write, "CHUNK", power)
        pack(state, tmp_path / "a.safetensors")
        assert same(load(tmp_path / "a.safetensors"), state)
        entry = open_checkpoint(tmp_path / "a.safetensors").entries[0]
        assert len(entry.packed.starts) - 1 == -(-123 * 457 // (1 << power))
        places, values = (np.concatenate(part) for part in zip(*nonzeros(entry), strict=True))
        dense = np.zeros(123 * 457, np.uint32)
        dense[places] = values
        assert dense.tobytes() == bits(state["w"])[2]


def test_tied_tensors_are_stored_once(tmp_path):
    shared = sparse((100, 100), 0.3)
    state = {"embedding": shared, "between": torch.ones(3), "head": shared, "turned": shared.t()}
    done = pack(state, tmp_path / "a.safetensors")
    assert done.tensors == 3
    read = load(tmp_path / "a.safetensors")
    assert read["head"] is read["embedding"]
    assert all(bits(read[name]) == bits(state[name]) for name in state)
    unpack(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert same(load_file(tmp_path / "b.safetensors"), dict(sorted(state.items()))) or all(
        bits(load_file(tmp_path / "b.safetensors")[name]) == bits(state[name]) for name in state
    )


def test_tied_tensors_of_a_file_of_pytorch(tmp_path):
    shared = sparse((50, 60), 0.3)
    torch.save({"a": shared, "b": shared, "turned": shared.t()}, tmp_path / "a.pt")
    assert pack(tmp_path / "a.pt", tmp_path / "p.safetensors").tensors == 2
    read = load(tmp_path / "p.safetensors")
    assert read["a"] is read["b"]
    assert bits(read["turned"]) == bits(shared.t())


def test_names_that_look_packed(tmp_path):
    state = {"a": torch.ones(9), "a::packed": torch.arange(16, dtype=torch.uint8), "b::packed": torch.randn(2)}
    pack(state, tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors"), state)
    with pytest.raises(CheckpointError, match="a name that packed files use"):
        pack({"__metadata__": torch.ones(2)}, tmp_path / "b.safetensors")
    for long in ({"a" * 993: torch.ones(2)}, dict.fromkeys(("a", "b" * 1001), torch.ones(2))):  # cannot be read again
        with pytest.raises(CheckpointError, match="1,001 characters, expected at most 1,000"):
            pack(long, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_what_the_source_says_of_itself_comes_back(tmp_path):
    save_file({"w": sparse((64, 64), 0.1)}, tmp_path / "a.safetensors", {"format": "pt", "note": 'a "b"'})
    pack(tmp_path / "a.safetensors", tmp_path / "p.safetensors")
    assert open_checkpoint(tmp_path / "p.safetensors").metadata == {"format": "pt", "note": 'a "b"'}
    unpack(tmp_path / "p.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_a_packed_file_may_replace_its_source(tmp_path):
    state = {"w": sparse((64, 64), 0.1)}
    save_file(state, tmp_path / "a.safetensors")
    pack(tmp_path / "a.safetensors", tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors"), state)
    pack(tmp_path / "a.safetensors", tmp_path / "a.safetensors")  # of a packed one: the same again
    assert same(load(tmp_path / "a.safetensors"), state)


def test_lossy_is_asked_for_and_named(tmp_path):
    wide, whole = sparse((100, 100), 0.2), torch.arange(9)
    pack({"w": wide, "n": whole, "d": wide.double()}, tmp_path / "a.safetensors", lossy="bfloat16")
    read = load(tmp_path / "a.safetensors")
    assert bits(read["w"]) == bits(read["d"]) == bits(wide.bfloat16())
    assert bits(read["n"]) == bits(whole)
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["facts"])["lossy"] == "wider floats rounded to bfloat16"
    with pytest.raises(ValueError, match="expected lossy to be one of bfloat16, float16, got 'int8'"):
        pack({"w": wide}, tmp_path / "b.safetensors", lossy="int8")


def test_what_rounding_would_make_infinite_is_refused(tmp_path):
    state = {"w": torch.tensor([1e5, torch.inf, torch.nan] * 100)}
    with pytest.raises(CheckpointError, match="'w' has values that are too large for float16"):
        pack(state, tmp_path / "a.safetensors", lossy="float16")
    assert not list(tmp_path.iterdir())
    pack(state, tmp_path / "a.safetensors", lossy="bfloat16")


@pytest.mark.parametrize("state", [{"epoch": 3}, {"model": {"w": torch.ones(2)}}])
def test_what_holds_more_than_tensors_is_refused(tmp_path, state):
    with pytest.raises(CheckpointError, match="expected tensors by name, got .*: give the state dict alone"):
        pack(state, tmp_path / "a.safetensors")


def shards(folder: Path, kind: str = "safetensors") -> dict[str, Tensor]:
    state = {f"layer{i}.weight": sparse((60, 50 + i), 0.2, seed=i) for i in range(5)}
    folder.mkdir()
    where = {name: f"part-{i % 2}.{kind}" for i, name in enumerate(state)}
    for shard in {*where.values()}:
        part = {name: state[name] for name in where if where[name] == shard}
        save_file(part, folder / shard, {"format": "pt"}) if kind == "safetensors" else torch.save(part, folder / shard)
    index = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(json.dumps({"weight_map": where}))
    return state


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_packed_one_by_one(tmp_path, kind):
    state = shards(tmp_path / "in", kind)
    done = pack(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in done.files] == ["part-0.safetensors", "part-1.safetensors"]
    assert done.size == sum(path.stat().st_size for path in done.files)
    for path in (tmp_path / "out", tmp_path / "out" / "model.safetensors.index.json"):
        assert dict(sorted(load(path).items())).keys() == state.keys()
        assert all(bits(tensor) == bits(state[name]) for name, tensor in load(path).items())
    unpack(tmp_path / "out", tmp_path / "again")
    assert all(bits(tensor) == bits(state[name]) for name, tensor in load(tmp_path / "again").items())
    assert load_file(tmp_path / "again" / "part-0.safetensors").keys() == {f"layer{i}.weight" for i in (0, 2, 4)}


def test_a_model_is_packed_and_loaded_into(tmp_path):
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(30, 20)) for _ in range(2))
    pack(model, tmp_path / "a.safetensors")
    assert load_into(tmp_path / "a.safetensors", other) == f"9 tensors from {tmp_path / 'a.safetensors'}"
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_a_training_checkpoint_tells_what_is_left_out(tmp_path):
    model = nn.Linear(30, 20)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    saved = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(saved, tmp_path / "a.pt")
    done = pack(tmp_path / "a.pt", tmp_path / "p.safetensors")
    assert same(load(tmp_path / "p.safetensors"), dict(model.state_dict()))
    assert any("exp_avg" in name for name in done.left_out)


@pytest.mark.parametrize("budget", [32 << 20, 256 << 20])
def test_analyze_reads_the_same_numbers(tmp_path, budget):
    state = {"a.weight": sparse((1030, 1100), 0.1), "b.weight": sparse((300, 7), 0.5, torch.bfloat16)}
    save_file(state, tmp_path / "a.safetensors")
    pack(tmp_path / "a.safetensors", tmp_path / "p.safetensors")
    for more in ({}, {"exact": True, "rows": True}):
        dense, packed = (analyze(tmp_path / f"{x}.safetensors", budget=budget, **more) for x in "ap")
        assert (packed.whole, packed.tensors, packed.listed) == (dense.whole, dense.tensors, dense.listed)


def test_tensors_that_cannot_be_packed_are_named(tmp_path):
    for name, tensor in {"s": torch.eye(3).to_sparse(), "c": torch.ones(2, dtype=torch.complex128)}.items():
        with pytest.raises(CheckpointError, match=f"'{name}'"):
            pack({"w": torch.ones(2), name: tensor}, tmp_path / "a.safetensors")
        assert not [*tmp_path.iterdir()]


def test_unpack_takes_packed_files_alone(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="it is not a packed file but a safetensors file"):
        unpack(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(IsADirectoryError, match=r"cannot write .*: it is a folder"):
        pack(tmp_path / "a.safetensors", tmp_path)


def test_the_bytes_are_those_that_are_specified(tmp_path):
    """docs/packed-format.md, read by hand: four bfloat16 at known places."""
    words = np.zeros(600, np.uint16)
    words[[2, 3, 400]] = [0x3F80, 0xBF81, 0x4000]  # 1, -1.0078125, 2: exponents 127, 127, 128
    pack({"w": of_words(words, torch.bfloat16, (20, 30))}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    blob = content[8 + length :]
    assert len(blob) % 8 == 0
    assert blob[:4] == bytes([2, 3, 2, 20])
    assert struct.unpack_from("<2Q", blob, 8) == (20, 30)
    size, _ = struct.unpack_from("<II", blob, 24)
    assert 32 + size == len(blob)
    chunk = blob[32:]
    assert struct.unpack_from("<IIIBBHIII", chunk) == (3, 4, 4, 1, 2, 0, 2, 0, 3)
    gaps, ranks, rest = [2, 0, 255, 141], [0x00, 0x01], [0x00, 0x81, 0x00]
    assert chunk[28 : 28 + 11] == bytes([127, 128, *gaps, *ranks, *rest])
    assert not any(chunk[39:])


def test_layouts_cover_their_words():
    for layout in head.LAYOUTS.values():
        assert layout.low + layout.width + 1 == 8 * layout.size
        assert Layout(layout.size, layout.low, layout.width) == layout
