from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sparsight.records import files
from sparsight.records import tensors as tensor_files
from sparsight.records.files import DamagedFile, read_json, read_lines, write_atomically, write_json, write_lines
from sparsight.records.tensors import read_tensors, tensors_digest, write_tensors

DTYPES = sorted(tensor_files._DTYPES, key=str)
REMEDY = "ask the cook"


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in type, shape and every bit: NaNs and signs of zeros too."""
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def of_bytes(dtype: torch.dtype, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """A tensor of random bits, so that NaNs of all kinds and denormals occur."""
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    size = torch.empty((), dtype=dtype).element_size()
    return torch.randint(0, 256, (count * size,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


@st.composite
def dictionaries(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    names = draw(st.lists(st.text(min_size=1).filter(lambda n: n != "__metadata__"), unique=True, max_size=5))
    shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    return {name: of_bytes(draw(st.sampled_from(DTYPES)), draw(shapes), generator) for name in names}


class TestTensors:
    @given(dictionaries())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_was_written_is_read(self, tmp_path, tensors):
        path = tmp_path / "t.safetensors"
        facts = {"a": [1, None, "x"], "b": {"c": 0.1}}
        digest = write_tensors(path, tensors, facts)
        read, found, checked = read_tensors(path, REMEDY)
        assert digest == checked == tensors_digest(tensors) == tensors_digest(read)
        assert found == facts
        assert list(read) == list(tensors)  # parameter order decides ties
        assert all(same(read[n], tensors[n]) for n in tensors)
        plain = safetensors.torch.load_file(path)
        assert plain.keys() == tensors.keys()
        assert all(same(plain[n], tensors[n]) for n in tensors)

    def test_channels_last_transposed_and_expanded_tensors_are_stored_by_value(self, tmp_path):
        base = torch.arange(48.0).reshape(2, 2, 3, 4)
        odd = {
            "last": base.to(memory_format=torch.channels_last),
            "t": base[0, 0].t(),
            "wide": torch.ones(1).expand(3, 2),
            "every other": base.reshape(-1)[::2],
            "conj": torch.complex(base[0, 0], base[0, 1]).conj(),
            "neg": torch.complex(base[0, 0], base[0, 1]).conj().imag,
        }
        write_tensors(tmp_path / "t", odd, {})
        read, *_ = read_tensors(tmp_path / "t", REMEDY)
        assert all(torch.equal(read[n], odd[n]) for n in odd)

    def test_tied_weights_load_into_the_plain_model(self, tmp_path):
        def build() -> nn.Module:
            net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
            net[2].weight = net[0].weight
            return net

        net = build()
        net(torch.randn(8, 4))  # BatchNorm counts batches in a 0-d int64 buffer
        write_tensors(tmp_path / "m.safetensors", net.state_dict(), {})
        other = build()
        other.load_state_dict(safetensors.torch.load_file(tmp_path / "m.safetensors"), strict=True)
        assert tensors_digest(other.state_dict()) == tensors_digest(net.state_dict())
        assert other[1].num_batches_tracked == 1

    def test_equal_tensors_give_equal_bytes_whatever_their_layout(self, tmp_path):
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
        write_tensors(tmp_path / "a", {"x": x}, {"f": 1, "g": 2})
        write_tensors(tmp_path / "b", {"x": x.to(memory_format=torch.channels_last)}, {"g": 2, "f": 1})
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize("bad", [torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2).cdouble()])
    def test_what_cannot_be_stored_is_refused_by_name_and_nothing_is_written(self, tmp_path, bad):
        with pytest.raises(ValueError, match=r"'conv\.weight'"):
            write_tensors(tmp_path / "t", {"conv.weight": bad}, {})
        assert not list(tmp_path.iterdir())


class TestDigest:
    def test_is_the_documented_formula(self):
        tensors = {"b": torch.tensor([1.0, -0.0]), "a": torch.tensor(7)}
        sha = hashlib.sha256()
        sha.update(b'["a", "I64", []]\n' + (7).to_bytes(8, "little"))
        sha.update(b'["b", "F32", [2]]\n' + bytes([0, 0, 0x80, 0x3F, 0, 0, 0, 0x80]))
        assert tensors_digest(tensors) == sha.hexdigest()

    def test_depends_on_names_types_shapes_and_bits_only(self):
        x = torch.arange(6.0).reshape(2, 3)
        same_as = {"x": x, "y": x.int()}
        different = [
            {"x": x, "z": x.int()},
            {"x": x, "y": x.long()},
            {"x": x.reshape(3, 2), "y": x.int()},
            {"x": -x.neg().abs().neg() * -1, "y": x.int(), "e": torch.empty(0)},
            {"x": x * torch.tensor([[-1.0], [1.0]]), "y": x.int()},
            {"x": x.clone().index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(-0.0)), "y": x.int()},
        ]
        assert tensors_digest({"y": x.int(), "x": x.t().contiguous().t()}) == tensors_digest(same_as)
        digests = {tensors_digest(d) for d in [same_as, *different]}
        assert len(digests) == 1 + len(different)

    def test_does_not_copy_what_lies_plainly(self):
        x = torch.arange(4.0)
        assert tensor_files._bytes(tensor_files._plain("x", x)).ctypes.data == x.data_ptr()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class TestJson:
    @given(VALUES)
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_what_was_written_is_read(self, tmp_path, value):
        write_json(tmp_path / "d.json", {"record": value})
        assert read_json(tmp_path / "d.json", REMEDY) == {"record": value}
        lines = [json.dumps(value), "{}"]
        write_lines(tmp_path / "l.jsonl", lines, {"kind": "k"})
        assert read_lines(tmp_path / "l.jsonl", REMEDY) == (lines, {"kind": "k"})

    def test_no_lines_at_all(self, tmp_path):
        write_lines(tmp_path / "l", [], {})
        assert read_lines(tmp_path / "l", REMEDY) == ([], {})

    def test_a_number_that_json_lacks_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(ValueError):
            write_json(tmp_path / "d", {"x": float("nan")})
        assert not list(tmp_path.iterdir())

    def test_lines_lost_at_a_line_end_or_put_in_another_order_are_noticed(self, tmp_path):
        write_lines(tmp_path / "l", ["1", "2", "3"], {})
        text = (tmp_path / "l").read_text().splitlines(keepends=True)
        for other in (
            text[:3],
            text[:2],
            text[1:],
            [text[1], text[0], *text[2:]],
            [*text[:1], *text],
            [*text, text[-1]],
        ):
            (tmp_path / "l").write_text("".join(other))
            with pytest.raises(DamagedFile):
                read_lines(tmp_path / "l", REMEDY)


def damage(data: bytes) -> list[bytes]:
    """Truncated at every offset, one bit flipped in every byte, and more at the end."""
    cut = [data[:i] for i in range(len(data))]
    flipped = [data[:i] + bytes([data[i] ^ (1 << (i * 5 % 8))]) + data[i + 1 :] for i in range(len(data))]
    return [*cut, *flipped, data + b"\0", data + data, b"\0" * len(data)]


class TestDamage:
    def check(self, path: Path, read) -> None:
        data = path.read_bytes()
        read(path, REMEDY)
        for other in damage(data):
            path.write_bytes(other)
            with pytest.raises(DamagedFile, match=REMEDY) as caught:
                read(path, REMEDY)
            assert str(path) in str(caught.value)
            assert caught.value.path == path

    def test_of_tensors(self, tmp_path):
        tensors = {
            "w": torch.tensor([1.5, -2.0]),
            "n": torch.tensor(3),
            "e": torch.empty(0, 2),
            "b": torch.ones(3).bool(),
        }
        write_tensors(tmp_path / "t.safetensors", tensors, {"kind": "model"})
        self.check(tmp_path / "t.safetensors", read_tensors)

    def test_of_a_document(self, tmp_path):
        write_json(tmp_path / "d.json", {"kind": "run", "record": {"seed": 12, "x": [0.25, None, True, "a\nb"]}})
        self.check(tmp_path / "d.json", read_json)

    def test_of_lines(self, tmp_path):
        write_lines(tmp_path / "l.jsonl", ['{"level":0}', '{"level":1}'], {"kind": "levels"})
        self.check(tmp_path / "l.jsonl", read_lines)

    @pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 99_999_999, 100_000_001, 0, 1, 7])
    def test_absurd_header_lengths(self, tmp_path, length):
        (tmp_path / "t").write_bytes(length.to_bytes(8, "little") + b"{}" * 20)
        with pytest.raises(DamagedFile, match="safetensors"):
            read_tensors(tmp_path / "t", REMEDY)

    def test_a_foreign_safetensors_file(self, tmp_path):
        safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "t")
        with pytest.raises(DamagedFile, match="unknown schema"):
            read_tensors(tmp_path / "t", REMEDY)

    @pytest.mark.parametrize(
        "text", ["[" * 100_000 + "\n", "9" * 10_000 + "\n", '{"schema":1}\n', "[]\n", "NaN\n", "\n", ""]
    )
    def test_json_that_is_not_ours(self, tmp_path, text):
        (tmp_path / "d").write_text(text)
        for read in (read_json, read_lines):
            with pytest.raises(DamagedFile):
                read(tmp_path / "d", REMEDY)

    def test_schema_of_another_version_is_told_apart_from_damage(self, tmp_path):
        sealed = {"kind": "run", "schema": 2}
        text = json.dumps({**sealed, "sha256": hashlib.sha256(files.canonical(sealed).encode()).hexdigest()})
        (tmp_path / "d").write_text(text + "\n")
        with pytest.raises(DamagedFile, match="unknown schema 2, expected 1"):
            read_json(tmp_path / "d", REMEDY)

    def test_missing_files_and_folders_in_their_place(self, tmp_path):
        (tmp_path / "folder").mkdir()
        for name in ("nothing", "folder"):
            for read in (read_json, read_lines, read_tensors):
                with pytest.raises(DamagedFile, match="the file is missing"):
                    read(tmp_path / name, REMEDY)

    def test_the_error_survives_the_way_between_processes(self):
        error = DamagedFile(Path("x/run.json"), "truncated", REMEDY)
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error) == "x/run.json is damaged: truncated. What to do: ask the cook"


class Break:
    """A stand-in for one function of `os` that fails when called."""

    def __init__(self, monkeypatch, name: str, error: BaseException) -> None:
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(os, name, fail)


class TestAtomic:
    @pytest.mark.parametrize("step", ["fsync", "replace"])
    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, step, error):
        path = tmp_path / "f"
        write_atomically(path, [b"old"])
        with monkeypatch.context() as patch:
            Break(patch, step, error)
            with pytest.raises(type(error)) as caught:
                write_atomically(path, [b"new", b"er"])
        assert [p.name for p in tmp_path.iterdir()] == ["f"]
        assert path.read_bytes() == b"old"
        if isinstance(error, OSError):
            assert caught.value.errno == errno.ENOSPC
            assert str(path) in str(caught.value)
            assert "resume the run" in str(caught.value)

    def test_a_disk_that_fills_up_while_writing(self, tmp_path):
        def chunks():
            yield b"some"
            raise OSError(errno.ENOSPC, "No space left on device")

        write_atomically(tmp_path / "f", [b"old"])
        with pytest.raises(OSError, match="cannot write .*f: No space left on device.*intact"):
            write_atomically(tmp_path / "f", chunks())
        assert (tmp_path / "f").read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 1

    def test_flushed_to_the_disk_before_and_after_the_rename(self, tmp_path, monkeypatch):
        seen = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
        monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("replace"), replace(a, b)))
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc")
        write_atomically(tmp_path / "f", [b"x"])
        assert seen[0].endswith(".part")
        assert seen[1:] == ["replace", str(tmp_path)]

    def test_a_reader_sees_the_old_or_the_new_file(self, tmp_path):
        path, bodies, seen = tmp_path / "f", [bytes([i]) * 50_000 for i in range(30)], set()
        write_atomically(path, [bodies[0]])

        def write() -> None:
            for body in bodies:
                write_atomically(path, [body[:10], body[10:]])

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            seen.add(path.read_bytes())
        writer.join()
        assert seen <= set(bodies)
        assert path.read_bytes() == bodies[-1]

    def test_a_folder_in_the_place_of_the_file_or_none_for_it(self, tmp_path):
        (tmp_path / "f").mkdir()
        with pytest.raises(OSError, match=f"cannot write {tmp_path / 'f'}"):
            write_atomically(tmp_path / "f", [b"x"])
        with pytest.raises(FileNotFoundError, match="cannot write"):
            write_atomically(tmp_path / "no" / "f", [b"x"])
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    def test_what_killed_processes_left_is_removed_and_nothing_else(self, tmp_path):
        (tmp_path / "levels").mkdir()
        for name in (".run.json.12-34.part", "levels/.m.1-1.part", "mine.part", "run.json", ".hidden"):
            (tmp_path / name).write_text("x")
        files.remove_parts(tmp_path)
        assert sorted(p.name for p in tmp_path.rglob("*")) == [".hidden", "levels", "mine.part", "run.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_is_appended_to_is_a_file_and_no_link(tmp_path):
    log, other = tmp_path / "log", tmp_path / "other"
    for text in (b"one\n", b"two\n"):
        with files.appending(log) as file:
            file.write(text)
    assert log.read_bytes() == b"one\ntwo\n"
    for make in (lambda: log.symlink_to(other), lambda: os.mkfifo(log), log.mkdir):
        log.unlink()
        make()
        with pytest.raises(OSError, match=rf"cannot write {log}: it is not a regular file"):
            files.appending(log)
        assert not other.exists()
        if log.is_dir():
            break
