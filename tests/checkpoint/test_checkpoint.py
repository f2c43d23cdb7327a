"""Readers: they find what was written, and refuse what lies, whatever a file claims."""

import contextlib
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from sparsight.analysis import analyze
from sparsight.analysis.stream import stream
from sparsight.checkpoint import CheckpointError, Entry, load_tensors, open_checkpoint

WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.weight": torch.ones(2, 5, dtype=torch.bfloat16)}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(shape: object = (2, 2), dtype: object = "F32", offsets: object = (0, 16), **more: object) -> dict:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


def values(entry: Entry) -> np.ndarray:
    assert entry.path is not None
    kind = {"float32": np.float32, "bfloat16": np.uint16}[entry.dtype]
    data = entry.path.read_bytes()[entry.offset :]
    return np.frombuffer(data, kind, entry.count).reshape(entry.shape)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a"])
def test_what_stands_for_a_file_that_was_not_fetched_says_so(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(CheckpointError, match="it is a pointer of Git LFS, without the tensors: fetch them"):
        open_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="it is empty"):
        open_checkpoint(path)


def test_safetensors(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    save_file(WEIGHTS, path, {"format": "pt"})
    found = {e.name: e for e in open_checkpoint(path).entries}
    assert set(found) == set(WEIGHTS)
    assert (values(found["a.weight"]) == WEIGHTS["a.weight"].numpy()).all()
    assert found["b.weight"].dtype == "bfloat16"
    assert found["b.weight"].shape == (2, 5)


GOOD = raw(one(), bytes(16))
LIES = {
    "empty": b"",
    "short": b"\x01\x02",
    "header longer than the file": raw(one(), bytes(16), 10**6),
    "header of 2^63": raw(one(), bytes(16), 2**63),
    "not JSON": raw(b"{nonsense", b""),
    "a list": raw([1, 2], b""),
    "NaN": raw(b'{"w": NaN}', b""),
    "deep": raw(b"[" * 100_000, b""),
    "not UTF-8": raw(b'{"\xff\xfe": 1}', b""),
    "lone surrogate": raw(b'{"\\ud800": {"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', bytes(16)),
    "twice": raw(b'{"w": 1, "w": 2}', b""),
    "no entry": raw({"w": 3}, b""),
    "missing field": raw({"w": {"dtype": "F32", "shape": [4]}}, bytes(16)),
    "further field": raw(one(more=1), bytes(16)),
    "dtype": raw(one(dtype="F31"), bytes(16)),
    "dtype no text": raw(one(dtype=["F32"]), bytes(16)),
    "negative size": raw(one(shape=[-2, -2]), bytes(16)),
    "size no number": raw(one(shape=["2", 2]), bytes(16)),
    "size true": raw(one(shape=[True, 4]), bytes(16)),
    "too many dimensions": raw(one(shape=[1] * 65, offsets=[0, 4]), bytes(4)),
    "absurd shape": raw(one(shape=[2**62, 2**62]), bytes(16)),
    "huge number": raw(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}', bytes(16)),
    "outside": raw(one(shape=[2**40], offsets=[0, 2**42]), bytes(16)),
    "shape and span differ": raw(one(shape=[3]), bytes(16)),
    "backwards": raw(one(offsets=[16, 0]), bytes(16)),
    "three offsets": raw(one(offsets=[0, 8, 16]), bytes(16)),
    "float offsets": raw(one(offsets=[0.0, 16.0]), bytes(16)),
    "trailing bytes": raw(one(), bytes(20)),
    "hole": raw(one(offsets=[4, 20]), bytes(20)),
    "overlap": raw({**one(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}, bytes(16)),
    "metadata": raw({**one(), "__metadata__": {"a": 1}}, bytes(16)),
}


def test_the_file_that_the_lies_are_told_about_is_good(tmp_path: Path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(GOOD)
    assert [e.name for e in open_checkpoint(path).entries] == ["w"]


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_a_header(lie: str, tmp_path: Path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match="cannot read"):
        open_checkpoint(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_safetensors_are_refused_or_read(tmp_path: Path, data: st.DataObject):
    """Cut short, bits flipped or bytes replaced: CheckpointError, or an analysis; nothing else."""
    original = bytearray(
        raw({**one(), "v": {"dtype": "F64", "shape": [3, 2], "data_offsets": [16, 64]}}, bytes(range(64)))
    )
    if data.draw(st.booleans()):
        original = original[: data.draw(st.integers(0, len(original) - 1))]
    for _ in range(data.draw(st.integers(0, 4)) if original else 0):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.safetensors"
    path.write_bytes(original)
    with contextlib.suppress(CheckpointError):
        analyze(path, sample=False)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, content: bytes):
    for name in ("m.safetensors", "m.pt", "m.other"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            open_checkpoint(path)


def test_a_lie_costs_no_memory(tmp_path: Path):
    """A header that claims 4 TB is refused before anything of that size is asked for (the limit would say so)."""
    import resource

    path = tmp_path / "m.safetensors"
    path.write_bytes(raw(one(shape=[2**40], offsets=[0, 2**42]), bytes(16)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        open_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


# -- shards ----------------------------------------------------------------------------------------------------


def sharded(folder: Path, where: dict[str, str] | None = None) -> Path:
    save_file({"a.weight": WEIGHTS["a.weight"]}, folder / "s1.safetensors")
    save_file({"b.weight": WEIGHTS["b.weight"]}, folder / "s2.safetensors")
    where = {"a.weight": "s1.safetensors", "b.weight": "s2.safetensors"} if where is None else where
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return folder


def test_shards(tmp_path: Path):
    found = open_checkpoint(sharded(tmp_path))
    assert found.format == "sharded safetensors"
    assert [e.name for e in found.entries] == ["a.weight", "b.weight"]
    assert open_checkpoint(tmp_path / "model.safetensors.index.json").entries[0].name == "a.weight"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a.weight": "s3.safetensors"}, r"s3.safetensors' is missing.*a.weight"),
        ({"c.weight": "s1.safetensors"}, r"c.weight' should be in 's1.safetensors'"),
        ({"a.weight": "../s1.safetensors"}, "expected a file beside"),
        ({"a.weight": "/etc/passwd"}, "expected a file beside"),
        ({"a.weight": 3}, "expected a file beside"),
        ({}, "no weight_map"),
    ],
)
def test_wrong_index(tmp_path: Path, where: dict, message: str):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(sharded(tmp_path, where))


def test_folders(tmp_path: Path):
    with pytest.raises(CheckpointError, match="it has none"):
        open_checkpoint(tmp_path)
    save_file({"a.weight": WEIGHTS["a.weight"]}, tmp_path / "x.safetensors")
    assert open_checkpoint(tmp_path).entries[0].name == "a.weight"
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(tmp_path / "pipe.pt")


# -- torch.save ------------------------------------------------------------------------------------------------


def saved(folder: Path, thing: object, **more: bool) -> Path:
    torch.save(thing, folder / "m.pt", **more)
    return folder / "m.pt"


def test_torch_finds_values_where_they_lie(tmp_path: Path):
    w = WEIGHTS["a.weight"]
    found = {
        e.name: e for e in open_checkpoint(saved(tmp_path, {"x": w, "rows": w[1:], "p": nn.Parameter(w + 1)})).entries
    }
    assert (values(found["x"]) == w.numpy()).all()
    assert (values(found["rows"]) == w[1:].numpy()).all()
    assert (values(found["p"]) == (w + 1).numpy()).all()


def test_torch_flattens_and_leaves_the_optimizer(tmp_path: Path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    state = {"state_dict": model.state_dict(), "optimizer": {"state": {0: torch.ones(9)}}, "epoch": 3}
    found = open_checkpoint(saved(tmp_path, state))
    assert [e.name for e in found.entries if e.part == "network"] == list(model.state_dict())
    assert [(e.name, e.part) for e in found.entries if e.part != "network"] == [("optimizer.state.0", "optimizer")]
    assert {*load_tensors(found)} == {*model.state_dict()}


def test_torch_counts_tied_tensors_once(tmp_path: Path):
    w = torch.randn(4, 6)
    (entry,) = open_checkpoint(saved(tmp_path, {"a": w, "b": w, "c": w.t()})).entries
    assert (entry.name, entry.aliases) == ("a", ("b", "c"))


def test_torch_reads_transposed_tensors_in_logical_order(tmp_path: Path):
    w = torch.randn(30, 7).t()
    conv = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    thing = {"t.weight": w, "c.weight": conv}
    assert analyze(saved(tmp_path, thing), rows=True).tensors == analyze(thing, rows=True).tensors


def test_torch_views_that_repeat_are_listed(tmp_path: Path):
    found = analyze(saved(tmp_path, {"big.weight": torch.ones(1).expand(10**6, 10**6), "a.weight": torch.randn(3, 3)}))
    assert [t.name for t in found.tensors] == ["a.weight"]
    assert "more than once" in found.listed[0].why


def test_old_format(tmp_path: Path):
    path = saved(tmp_path, WEIGHTS, _use_new_zipfile_serialization=False)
    found = analyze(path)
    assert found.format == "torch, old format"
    assert found.tensors == analyze(WEIGHTS).tensors


def zipped(path: Path, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".zip"])
def test_archives_of_others_are_told_in_our_words(suffix: str, tmp_path: Path):
    path = tmp_path / f"m{suffix}"
    exported = torch.export.export(nn.Linear(3, 4), (torch.ones(2, 3),))
    torch.export.save(exported, tmp_path / "m.pt2")
    (tmp_path / "m.pt2").rename(path)
    with pytest.raises(CheckpointError, match=r"archive of torch\.export.*state_dict"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"archive of torch\.export"):
        open_checkpoint(zipped(path, **{"serialized_exported_program.json": b"{}"}))
    with pytest.raises(CheckpointError, match="not one of torch.save: it has no data.pkl"):
        open_checkpoint(zipped(path, **{"word__document.xml": b"<a/>"}))
    torch.jit.save(torch.jit.trace(nn.Linear(3, 4), torch.ones(2, 3)), path)
    with pytest.raises(CheckpointError, match="TorchScript"):
        open_checkpoint(path)


class Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_listed_and_not_run(tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, {"w": torch.ones(2, 2), "x": Evil()}, _use_new_zipfile_serialization=zipped)
    found = analyze(path)
    assert [t.name for t in found.tensors] == ["w"]
    assert [(x.name, x.why) for x in found.listed] == [("x", "not a tensor but a posix.system, which is not rebuilt")]
    with pytest.raises(CheckpointError, match=r"needs code \(posix.system\)"):
        open_checkpoint(saved(tmp_path, Evil(), _use_new_zipfile_serialization=zipped))
    assert not (tmp_path / "pwned").exists()


def test_whole_modules_and_scripts_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"needs code \(torch.nn.modules.linear.Linear\)"):
        open_checkpoint(saved(tmp_path, nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="contains no tensors"):
        open_checkpoint(saved(tmp_path, {"a": 1}))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_torch_files_are_refused_or_read(tmp_path: Path, data: st.DataObject):
    path = saved(tmp_path, {"a.weight": torch.arange(12.0).reshape(3, 4), "b": [torch.ones(2, 2)]})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 6)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        analyze(path, sample=False)


# -- where there is no reading at an offset --------------------------------------------------------------------


def everywhere(folder: Path) -> list[Path]:
    """A file of each kind: rows in pieces, several dtypes, shards, a zip, tensors that lie transposed."""
    tensors = {"a.weight": torch.randn(900, 1500), "b.weight": torch.randn(40, 30).bfloat16()}
    save_file(tensors, folder / "m.safetensors")
    torch.save(
        {**tensors, "c.weight": torch.randn(30, 50).t(), "d.weight": torch.randn(9, 9).double()}, folder / "m.pt"
    )
    (folder / "shards").mkdir()
    return [folder / "m.safetensors", folder / "m.pt", sharded(folder / "shards")]


@pytest.mark.parametrize("missing", [("preadv",), ("preadv", "pread", "readv", "pwritev", "pwrite", "writev")])
def test_reading_without_posix(missing: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = everywhere(tmp_path)
    before = [analyze(path, eta=0.1, exact=True, rows=True) for path in paths]
    for name in missing:
        monkeypatch.delattr(os, name, raising=False)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert [analyze(path, eta=0.1, exact=True, rows=True) for path in paths] == before
    torch.set_num_threads(1)


def test_short_reads_and_errors_without_posix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = everywhere(tmp_path)[0]
    before = analyze(path)
    monkeypatch.delattr(os, "preadv")
    monkeypatch.setattr("sparsight.checkpoint.entry._MOST", 1000)
    assert analyze(path) == before
    entries = open_checkpoint(path).entries
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"ends inside '[ab].weight'"):
        list(stream(entries, (1.0,), few=None, keep_rows=False, budget=32 << 20))
