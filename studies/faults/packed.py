"""Damage packed files, read them, and compare what is read with what was packed.

    python studies/faults/packed.py [--mutations 10000] [--seed 0] [--json studies/faults/packed.json]

Mutation i is drawn from (seed, i) alone: one of the packed files, and what is done to it. The answer must be one
CheckpointError whose text names the file, or the tensors that were packed, bit for bit; within 5 seconds of processor
time and 256 MiB. One mutation in three is a forger's: a head or a chunk is changed and all checksums made right again.
Other tensors may be read from those, and nothing else may happen.

The figures are saved after every 100 mutations; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from files import EVERY, Overrun, Tensors, bits, damage, damaged, measured
from safetensors.torch import save_file
from torch import Tensor

from sparsight.checkpoint import CheckpointError, load, pack
from sparsight.checkpoint.packed import write

FORGED = "forged"


def sparse(shape: tuple[int, ...], density: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.where(torch.rand(shape) < density, torch.randn(shape), torch.zeros(())).to(dtype)


def things() -> dict[str, Tensors]:
    torch.manual_seed(0)
    w = sparse((30, 40), 0.1)
    floats = {str(t): sparse((25, 31), 0.2, t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    whole = {str(t): (sparse((400,), 0.3) * 50).to(t) for t in (torch.int64, torch.int32, torch.int8, torch.uint8)}
    odd = {"ones": torch.ones(300), "zeros": torch.zeros(50, 60), "kept": sparse((900,), 0.8), "b": w > 0}
    odd |= {"noise": torch.randint(0, 256, (300,), dtype=torch.uint8), "steps": torch.tensor(3), "none": torch.empty(0)}
    return {
        "one": {"w": w},
        "tied": {"w": w, "v": w, "n": torch.arange(3)},
        "floats": floats,
        "whole": whole,
        "odd": odd,
    }


def sources(folder: Path) -> dict[str, Path]:
    """A packed file of each thing, one of small chunks, and a folder of packed shards."""
    found = {}
    for name, tensors in things().items():
        found[name] = folder / f"{name}.safetensors"
        pack(tensors, found[name])
    usual, write.CHUNK = write.CHUNK, 6
    try:
        found["chunks"] = folder / "chunks.safetensors"
        pack(things()["floats"], found["chunks"])
    finally:
        write.CHUNK = usual
    tensors, plain = things()["floats"], folder / "plain"
    plain.mkdir()
    where = {name: f"{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in {*where.values()}:
        save_file({name: tensors[name] for name in where if where[name] == shard}, plain / shard)
    (plain / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    found["shards"] = folder / "shards"
    pack(plain, found["shards"])
    return found


# -- a forger ----------------------------------------------------------------------------------------------------


def forged(source: Path, target: Path, draw: random.Random) -> Path:
    """A copy of a packed file in which a head or a chunk of one tensor is changed, and all checksums are right."""
    content = bytearray(source.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    name = draw.choice([name for name in header if name.endswith("::packed")])
    start, end = (8 + length + at for at in header[name]["data_offsets"])
    blob = content[start:end]
    head = 8 + 8 * blob[2]
    count = (head_end(blob, head) - head) // 8
    if draw.random() < 0.3:
        changed = damaged(bytes(blob[: head + 8 * count]), draw)[: head + 8 * count]
        blob[: len(changed)] = changed
    else:
        i = draw.randrange(count)
        sizes = [struct.unpack_from("<I", blob, head + 8 * j)[0] for j in range(count)]
        first = head + 8 * count + sum(sizes[:i])
        near = 40 if draw.random() < 0.6 else sizes[i]
        changed = damaged(bytes(blob[first : first + min(near, sizes[i])]), draw)[: min(near, sizes[i])]
        blob[first : first + len(changed)] = changed
        struct.pack_into("<I", blob, head + 8 * i + 4, zlib.crc32(blob[first : first + sizes[i]]))
    text = name.removesuffix("::packed").encode()
    end_of_head = head_end(blob, 8 + 8 * blob[2])
    struct.pack_into("<I", blob, 4, zlib.crc32(blob[8:end_of_head], zlib.crc32(bytes(blob[:4]) + text)))
    content[start:end] = blob
    target = target.with_suffix(source.suffix)
    target.write_bytes(content)
    return target


def head_end(blob: bytearray, head: int) -> int:
    """Where the head of a packed tensor ends, by what it says of its shape."""
    if head > len(blob):
        return len(blob)
    count = 1
    for size in struct.unpack_from(f"<{blob[2]}Q", blob, 8):
        count *= size
    chunks = 1 if blob[0] == 1 else -(-count // (1 << min(blob[3], 63)))
    return min(head + 8 * chunks, len(blob))


# -- one mutation ------------------------------------------------------------------------------------------------


def judged(path: Path, right: Tensors, kind: str) -> str:
    """The verdict on a file; what starts with "wrong" is a fault."""
    try:
        found = measured(lambda: load(path))
    except CheckpointError as error:
        clear = str(error.path) in str(error) and str(path) in str(error) and "\n" not in str(error)
        return "refused" if clear else f"wrong: an unclear error: {error!r:.200}"
    except Overrun as error:
        return f"wrong: {error}"
    except BaseException as error:  # whatever gets out is a fault
        return f"wrong: {type(error).__name__}: {error!s:.200}"
    if found.keys() == right.keys() and all(bits(found[name]) == bits(right[name]) for name in right):
        return "equal"
    return "other tensors" if kind == FORGED else "wrong: other tensors than were packed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("packed.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    done: dict[str, Any] = {"seed": args.seed, "mutations": 0, "verdicts": {}, "wrong": []}
    if args.json.exists() and json.loads(args.json.read_text())["seed"] == args.seed:
        done = json.loads(args.json.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sources(folder)
        right = {kind: load(path) for kind, path in files.items()}
        while done["mutations"] < args.mutations:
            i = done["mutations"]
            draw = random.Random(f"{args.seed} {i}")
            kind = draw.choice(sorted(files))
            forge = kind != "shards" and draw.random() < 0.35
            path = (forged if forge else damage)(files[kind], folder / f"damaged-{i}", draw)
            verdict = judged(path, right[kind], FORGED if forge else kind)
            counts = done["verdicts"].setdefault(FORGED if forge else kind, {})
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
