"""The entropy floor against its formula, and what counts as a zero."""

from __future__ import annotations

import math

import pytest
import torch

from sparsight.checkpoint import CheckpointError, open_checkpoint, pack
from sparsight.checkpoint.entry import in_memory
from sparsight.checkpoint.packed.floor import Content, content, entropy


def of(tensor: torch.Tensor) -> Content:
    (entry,) = in_memory("", "tensors", [("w", tensor)]).entries
    return content(entry)


def h(share: float) -> float:
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


@pytest.mark.parametrize(
    ("values", "dtype", "alive", "bits"),
    [
        ([0.0, 0.0, 0.0, 1.0], torch.float32, 1, 4 * h(1 / 4) + 24),  # one exponent: sign and mantissa
        ([0.0, 0.0, 1.0, 2.0], torch.float32, 2, 4 + 2 * (1 + 24)),  # two exponents, a bit each
        ([0.0, 0.0, 1.0, 2.0], torch.bfloat16, 2, 4 + 2 * (1 + 8)),
        ([0.0, 0.0, 1.0, 2.0], torch.float16, 2, 4 + 2 * (1 + 11)),
        ([0, 0, 0, 7], torch.int16, 1, 4 * h(1 / 4) + 16),  # whole numbers have no exponent
        ([-0.0, 0.0, 1.0, 1.5], torch.float32, 2, 4 * 1.5 + 2 * 24),  # -0.0 is a zero of its own
        ([0.0, 0.0, 0.0, 0.0], torch.float32, 0, 32),  # equal words are one word
        ([3.0, 3.0, 3.0, 3.0], torch.float32, 4, 32),
        ([], torch.float32, 0, 0),
    ],
)
def test_floor_and_zeros(values, dtype, alive, bits):
    found = of(torch.tensor(values, dtype=dtype))
    assert (found.count, found.alive) == (len(values), alive)
    assert found.minus == sum(str(value) == "-0.0" for value in values)
    assert 8 * found.floor == pytest.approx(bits)


def test_chunks_are_coded_apart():
    half = 1 << 20
    g = torch.Generator().manual_seed(0)
    full, empty = torch.randn(half, generator=g), torch.zeros(half)
    apart = of(torch.cat([full, empty]))
    assert apart.alive == half
    assert apart.floor == pytest.approx(of(full).floor)
    assert of(torch.stack([full, empty], 1)).floor == pytest.approx(2 * half / 8 + of(full).floor, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_file_is_just_above_it_and_has_it_too(tmp_path, dtype):
    g = torch.Generator().manual_seed(0)
    kept = torch.rand(400, 500, generator=g) < 0.1
    tensor = torch.randn(400, 500, generator=g).masked_fill(~kept, 0).to(dtype)
    done = pack({"w": tensor}, tmp_path / "p.safetensors")
    floor = of(tensor).floor
    assert floor < done.payload < 1.06 * floor
    (entry,) = open_checkpoint(tmp_path / "p.safetensors").entries
    assert content(entry) == of(tensor)


def test_a_small_tensor_is_just_above_it_too(tmp_path):
    g = torch.Generator().manual_seed(0)
    kept = torch.rand(16, 16, 3, 3, generator=g) < 0.35
    tensor = torch.randn(16, 16, 3, 3, generator=g).masked_fill(~kept, 0).bfloat16()
    done = pack({"w": tensor}, tmp_path / "p.safetensors")
    assert of(tensor).floor < done.payload < 1.07 * of(tensor).floor
    assert done.header <= 500


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(CheckpointError, match="has the dtype 'complex128'"):
        of(torch.zeros(2, dtype=torch.complex128))


def test_entropy():
    assert entropy([0, 0]) == entropy([7]) == entropy([]) == 0.0
    assert entropy([1, 1, 2]) == 1.5
