"""Damage files of every format, read them, and compare what is read with what PyTorch and safetensors read.

    python studies/faults/files.py [--mutations 5000] [--seed 0] [--json studies/faults/files.json]

Mutation i is drawn from (seed, i) alone: a file of one of the formats, and what is done to it. The answer must be one
CheckpointError whose text names the file, or tensors that equal, bit for bit, those of the reference reader. That is
torch.load(weights_only=True) or safetensors. Where torch.load refuses a file for the objects in it, the reference is
Python's own unpickler, with every class and function it does not know replaced by one that does nothing. It reads
storages by their places, and uses nothing of Sparsight.

The figures are saved after every 100 mutations; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import collections
import enum
import io
import json
import pickle
import random
import re
import resource
import shutil
import struct
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sparsight.checkpoint import CheckpointError, load_tensors, open_checkpoint

MOST_SECONDS, MOST_BYTES = 5.0, 256 << 20
EVERY = 100
Tensors = dict[str, Tensor]


class Colour(enum.Enum):
    RED = 1


# -- the files ---------------------------------------------------------------------------------------------------


def things() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Linear(4, 5))
    base = torch.randn(6, 8)
    views = {"a": base, "rows": base[2:4], "columns": base[:, 1::2], "turned": base.t(), "half": base.half()}
    state = {"model": model.state_dict(), "epoch": 3, "best": torch.tensor(0.5)}
    objects = {"state_dict": {"w": base, "n": torch.arange(4)}, "args": argparse.Namespace(lr=0.1), "c": Colour.RED}
    odd = {"w": base, "s": torch.eye(3).to_sparse(), "p": nn.Parameter(base + 1), "u": base.to(torch.uint8)}
    return {"state dict": model.state_dict(), "views": views, "training": state, "objects": objects, "odd": odd}


def files(folder: Path) -> dict[str, Path]:
    """A file, or a folder of them, for each format."""
    found = {}
    for name, thing in things().items():
        for kind, zipped in (("zip", True), ("old", False)):
            found[f"{kind}: {name}"] = folder / f"{kind}-{name.replace(' ', '-')}.pt"
            torch.save(thing, found[f"{kind}: {name}"], _use_new_zipfile_serialization=zipped)
            if not zipped:
                renumber(found[f"{kind}: {name}"])
    tensors = {"a.weight": torch.randn(6, 8), "b.weight": torch.ones(3, 5, dtype=torch.bfloat16), "n": torch.arange(3)}
    found["safetensors"] = folder / "m.safetensors"
    safetensors.torch.save_file(tensors, found["safetensors"], {"format": "pt"})
    shards = (("shards", "model.safetensors", "safetensors"), ("torch shards", "pytorch_model.bin", "bin"))
    for kind, single, suffix in shards:
        found[kind] = folder / kind.replace(" ", "-")
        found[kind].mkdir()
        where = {name: f"{i % 2}.{suffix}" for i, name in enumerate(tensors)}
        for shard in {*where.values()}:
            part = {name: tensors[name] for name in where if where[name] == shard}
            write = safetensors.torch.save_file if suffix == "safetensors" else torch.save
            write(part, found[kind] / shard)
        (found[kind] / f"{single}.index.json").write_text(json.dumps({"weight_map": where}))
    return found


def renumber(path: Path) -> None:
    """Storages of the old format are called by their addresses, which differ from run to run: count them instead."""
    content = path.read_bytes()
    for i, key in enumerate(dict.fromkeys(re.findall(rb"X[\x0c-\x0f]\0\0\0(\d{12,15})", content))):
        content = content.replace(b"X%c\0\0\0%s" % (len(key), key), b"X\3\0\0\0%03d" % i)
    path.write_bytes(content)


# -- the damage --------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 255, 256, 65535, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
PIECES = (  # of pickles, of archives and of JSON
    b"]", b"}", b"(", b")", b"t", b"R", b"b", b"e", b"u", b"a", b"s", b"Q", b"0", b"1", b"2", b"N", b"\x88", b"\x89",
    b"K\x00", b"h\x00", b"q\x01", b".", b"cos\nsystem\n", b"ctorch\nTensor\n", b"cbuiltins\nbytearray\n", b"PK\5\6",
    b"PK\1\2", b"PK\3\4", b"{", b"[", b'"a.weight"', b",", b"[0,0]", b"1e9", b"-1",
)  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to four changes; those to a file's beginning and end, where it says what it holds, are likelier."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        near = draw.choice((len(data), len(data), min(len(data), 400)))
        at = draw.randrange(near) if draw.random() < 0.8 else len(data) - 1 - draw.randrange(min(len(data), 300))
        what = draw.randrange(8)
        if what == 0:
            data[at] = draw.randrange(256)
        elif what == 1:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 2:
            del data[at : len(data) if draw.random() < 0.3 else at + draw.randint(1, 8)]
        elif what == 3:
            data[at:at] = draw.choice(PIECES)
        elif what == 4:
            piece = draw.choice(PIECES)
            data[at : at + len(piece)] = piece
        elif what == 5:
            number = struct.pack("<Q", draw.choice(NUMBERS))[: draw.choice((1, 2, 4, 8))]
            data[at : at + len(number)] = number
        elif what == 6:
            other, length = draw.randrange(len(data)), draw.randint(1, 40)
            data[at : at + length] = data[other : other + length]
        else:
            data[at:at] = data[at : at + draw.randint(1, 60)] * draw.randint(1, 3)
    return bytes(data)


def rezipped(content: bytes, draw: random.Random) -> bytes:
    """The archive with its pickle damaged, its sums right again: what a deliberate forger would write."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            record = old.read(info)
            new.writestr(info.filename, damaged(record, draw) if info.filename.endswith("data.pkl") else record)
    return buffer.getvalue()


def damage(source: Path, target: Path, draw: random.Random) -> Path:
    """A damaged copy of a file, or of a folder in which one file is."""
    if source.is_dir():
        shutil.copytree(source, target)
        victim = draw.choice(sorted(target.iterdir()))
    else:
        victim = target = target.with_suffix(source.suffix)
        shutil.copy(source, target)
    content = victim.read_bytes()
    zipped = content[:4] == b"PK\3\4" and draw.random() < 0.7
    victim.write_bytes((rezipped if zipped else damaged)(content, draw))
    return target


# -- the reference -----------------------------------------------------------------------------------------------


class Quiet(type):
    def __setitem__(cls, *_: Any) -> None: ...


class Nothing(metaclass=Quiet):
    """Takes the place of any class or function, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Nothing:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any) -> Nothing:
        return self

    def __setitem__(self, *_: Any) -> None: ...

    @staticmethod
    def __setstate__(_: Any) -> None: ...

    @staticmethod
    def append(_: Any) -> None: ...

    @staticmethod
    def extend(_: Any) -> None: ...


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{
        ("torch", name): torch.serialization.StorageType(name)
        for name in ("FloatStorage", "HalfStorage", "LongStorage", "ByteStorage", "BFloat16Storage", "DoubleStorage",
                     "IntStorage", "ShortStorage", "CharStorage", "BoolStorage")
    },
}  # fmt: skip


class Tolerant(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return KNOWN.get((module, name), Nothing)


class Module:
    """What torch.load takes for the module pickle."""

    Unpickler = Tolerant
    __name__ = "tolerant"

    @staticmethod
    def load(file: Any, **more: Any) -> Any:
        return Tolerant(file, **more).load()


def by_safetensors(path: Path) -> tuple[Tensors, bool]:
    return safetensors.torch.load_file(path), True


def by_torch(path: Path) -> tuple[Any, bool]:
    """What PyTorch reads, and whether it does so without help."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True), True
    except Exception:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=Module), False


def tensors_of(path: Path, kind: str) -> tuple[list[Tensor], Tensors | None, bool]:
    """All tensors of the reference, in any order; by name, where it has names; and whether it was read without help."""
    if kind == "safetensors":
        found, alone = by_safetensors(path)
        return [*found.values()], found, alone
    if "shards" in kind:
        (index,) = path.glob("*.index.json")
        where = json.loads(index.read_text())["weight_map"]
        read = by_safetensors if kind == "shards" else by_torch
        shards = [read(path / name) for name in {*where.values()}]
        found = {k: v for shard, _ in shards for k, v in shard.items() if isinstance(v, Tensor)}
        return [*found.values()], found, all(alone for _, alone in shards)
    loaded, alone = by_torch(path)
    found: list[Tensor] = []
    collect(loaded, found, set())
    return found, None, alone


def collect(thing: Any, found: list[Tensor], seen: set[int]) -> None:
    if isinstance(thing, Tensor):
        found.append(thing)
    elif isinstance(thing, (dict, list, tuple)) and id(thing) not in seen:
        seen.add(id(thing))
        for value in thing.values() if isinstance(thing, dict) else thing:
            collect(value, found, seen)


def refused(path: Path, kind: str) -> bool:
    """Whether the reference, without help, refuses the file too, or finds no tensor in it."""
    try:
        every, _, alone = tensors_of(path, kind)
    except BaseException:  # some of its errors are SystemError
        return True
    return not alone or not every


def bits(tensor: Tensor) -> tuple[Any, ...]:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return (str(tensor.dtype), tuple(tensor.shape), raw)


# -- one mutation ------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Tensors, int]:
    """Every tensor that Sparsight gives under each of its names, and how many it lists with an obstacle."""
    checkpoint = open_checkpoint(path)
    found: Tensors = {}
    listed = 0
    for entry in checkpoint.entries:
        if entry.obstacle is not None or not entry.dtype:
            listed += 1
            continue
        one = type(checkpoint)(checkpoint.source, checkpoint.format, (_plain(entry),), checkpoint.files)
        found |= load_tensors(one)
    return found, listed


def _plain(entry: Any) -> Any:
    from dataclasses import replace

    turned = tuple(replace(other, part="network") for other in entry.turned)
    return replace(entry, part="network", turned=turned)


def judged(path: Path, kind: str) -> str:
    """The verdict on a file; what starts with "wrong" is a fault."""
    try:
        ours, listed = measured(lambda: read(path))
    except CheckpointError as error:
        shown = str(error.path) in str(error) and str(path) in str(error)
        if not shown or "\n" in str(error):
            return f"wrong: an unclear error: {error!r:.200}"
        return "refused" if refused(path, kind) else "refused, read by the reference"
    except Overrun as error:
        return f"wrong: {error}"
    except BaseException as error:  # whatever gets out is a fault
        return f"wrong: {type(error).__name__}: {error!s:.200}"
    try:
        every, by_name, alone = tensors_of(path, kind)
    except BaseException as error:
        return f"wrong: read where the reference says {type(error).__name__}: {error!s:.200}"
    if by_name is not None:
        same = ours.keys() == by_name.keys() and all(bits(ours[name]) == bits(by_name[name]) for name in ours)
    else:
        right = collections.Counter(bits(t) for t in every if t.layout == torch.strided and t.numel() * t.element_size()
                                    <= max(t.untyped_storage().nbytes(), 0))  # fmt: skip
        same = collections.Counter(map(bits, ours.values())) == right
    if not same:
        return "wrong: other tensors than the reference's"
    return ("equal, some listed" if listed else "equal") if alone else "equal, beside objects"


class Overrun(Exception):
    """More than a file may take."""


def measured(read: Callable[[], Any]) -> Any:
    tracemalloc.start()
    start = process_time()
    try:
        return read()
    finally:
        seconds, (_, peak) = process_time() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if seconds > MOST_SECONDS or peak > MOST_BYTES:
            raise Overrun(f"{seconds:.1f} s and {peak >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("files.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))  # the reference asks for what it is told
    done: dict[str, Any] = {"seed": args.seed, "mutations": 0, "verdicts": {}, "wrong": []}
    if args.json.exists() and json.loads(args.json.read_text())["seed"] == args.seed:
        done = json.loads(args.json.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = files(folder)
        undamaged = {kind: judged(path, kind.partition(":")[0]) for kind, path in sources.items()}
        done["undamaged"] = undamaged
        while done["mutations"] < args.mutations:
            i = done["mutations"]
            draw = random.Random(f"{args.seed} {i}")
            kind = draw.choice(sorted(sources))
            path = damage(sources[kind], folder / f"damaged-{i}", draw)
            verdict = judged(path, kind.partition(":")[0])
            counts = done["verdicts"].setdefault(kind.partition(":")[0], {})
            short = verdict.partition(":")[0]
            counts[short] = counts.get(short, 0) + 1
            if short == "wrong":
                done["wrong"].append([i, kind, verdict])
                print(i, kind, verdict, flush=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            done["mutations"] += 1
            if done["mutations"] % EVERY == 0 or done["mutations"] == args.mutations:
                args.json.write_text(json.dumps(done, indent=1) + "\n")
    print(json.dumps(done["verdicts"], indent=1))
    raise SystemExit(1 if done["wrong"] else 0)


if __name__ == "__main__":
    main()
