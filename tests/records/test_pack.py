from __future__ import annotations

import copy
import math
import tempfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsight.records.packing import pack_masks, pack_state, unpack_masks, unpack_state
from sparsight.records.tensors import read_tensors, write_tensors


def through(state):
    """Packed, stored in a file, read and unpacked."""
    tensors, skeleton = pack_state(state)
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "s", tensors, {"skeleton": skeleton})
        stored, facts, _ = read_tensors(Path(folder) / "s", "")
    return unpack_state(stored, facts["skeleton"])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


class TestState:
    @given(PLAIN)
    @settings(deadline=None, max_examples=60)
    def test_values_come_back_with_their_types(self, value):
        assert repr(through(value)) == repr(value)  # 1, 1.0 and True are equal but not the same; so are 0.0 and -0.0

    def test_nan_and_keys_that_look_like_ours(self):
        back = through(
            {"x": math.nan, "tensor": {"tensor": "0", "stride": [1]}, "tuple": [{"float": "inf"}], "dict": 1}
        )
        assert math.isnan(back.pop("x"))
        assert back == {"tensor": {"tensor": "0", "stride": [1]}, "tuple": [{"float": "inf"}], "dict": 1}

    def test_order_of_mappings(self):
        assert list(through(OrderedDict([("b", 1), ("a", 2)]))) == ["b", "a"]

    def test_a_tensor_that_occurs_twice_stays_one(self):
        x = torch.arange(4.0)
        tensors, _ = pack_state([x, x, x.view(2, 2), x.clone()])
        assert len(tensors) == 3
        one, two, _, three = through([x, x, x.view(2, 2), x.clone()])
        one[0] = 7
        assert two[0] == 7
        assert three[0] == 0

    def test_empty_tensors_are_not_taken_for_one_another(self):
        a, b = through([torch.empty(0, 3), torch.empty(0, dtype=torch.int64)])
        assert (a.shape, a.dtype, b.shape, b.dtype) == ((0, 3), torch.float32, (0,), torch.int64)

    @pytest.mark.parametrize(
        "make",
        [
            lambda x: x.to(memory_format=torch.channels_last),
            lambda x: x.permute(3, 1, 0, 2),
            lambda x: x[:, :1].to(memory_format=torch.channels_last),
            lambda x: x,
        ],
    )
    def test_memory_format_comes_back(self, make):
        x = make(torch.randn(2, 3, 4, 5))
        (back,) = through([x])
        assert torch.equal(back, x)
        if x.numel() == 120:
            assert back.stride() == x.stride()

    @pytest.mark.parametrize(
        "x", [torch.ones(1).expand(3), torch.arange(10.0)[::3], torch.arange(9.0).view(3, 3)[:, 1]]
    )
    def test_views_with_gaps_or_repeats_come_back_by_value(self, x):
        (back,) = through([x])
        assert torch.equal(back, x)
        assert back.is_contiguous()

    @pytest.mark.parametrize(
        ("state", "where"),
        [
            ({"a": [1, object()]}, r"state\['a'\]\[1\]: expected .* got object"),
            ({"f": print}, r"state\['f'\]"),
            ({(1, 2): 3}, r"state: expected str and int as keys, got \(1, 2\)"),
            ({True: 3}, "keys, got True"),
            ({"s": {1}}, "got set"),
            (b"bytes", "got bytes"),
        ],
    )
    def test_anything_else_is_refused_by_place(self, state, where):
        with pytest.raises(TypeError, match=where):
            pack_state(state)

    @pytest.mark.parametrize(
        "skeleton", [{"tensor": "9"}, {"what": 1}, {"dict": [1]}, {"tensor": "0", "stride": [1, 2, 3]}, {"tuple": 3}]
    )
    def test_a_skeleton_that_does_not_fit(self, skeleton):
        with pytest.raises(ValueError, match="do not match"):
            unpack_state({"0": torch.ones(2)}, skeleton)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3, history_size=2, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_with_the_same_bits(name):
    """Three steps, then three more: by the optimiser that made the first three, and by one that read its state."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
    if name != "lbfgs":  # which refuses other layouts
        net = net.to(memory_format=torch.channels_last)
    x, y = torch.randn(8, 2, 5, 5), torch.arange(8) % 3

    def train(net, optimizer) -> None:
        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)

    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer)
    state = through({"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(9.0)
    other.load_state_dict(state["model"])
    second = OPTIMIZERS[name](other.parameters())
    second.load_state_dict(state["optimizer"])
    train(net, optimizer)
    train(other, second)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))
    assert not torch.equal(net[3].weight, state["model"]["3.weight"])


class TestMasks:
    @given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2**31))
    @settings(deadline=None)
    def test_one_bit_a_weight(self, shape, seed):
        mask = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).bool()
        packed, shapes = pack_masks({"w": mask})
        assert packed["w"].shape == (math.ceil(mask.numel() / 8),)
        back = unpack_masks(packed, shapes)["w"]
        assert back.dtype == torch.bool
        assert back.shape == mask.shape
        assert torch.equal(back, mask)

    def test_bits_lie_as_documented(self):
        packed, shapes = pack_masks(
            {"w": torch.tensor([[True, False, False], [False, False, False], [True, True, True]])}
        )
        assert packed["w"].tolist() == [0b10000011, 0b10000000]
        assert shapes == {"w": [3, 3]}

    def test_layout_does_not_count_and_order_comes_back(self):
        mask = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5
        last = mask.to(memory_format=torch.channels_last)
        assert torch.equal(pack_masks({"w": mask})[0]["w"], pack_masks({"w": last})[0]["w"])
        assert list(unpack_masks(*pack_masks({"b": mask, "a": mask}))) == ["b", "a"]

    def test_only_masks(self):
        with pytest.raises(ValueError, match=r"mask of 'fc\.weight': expected torch\.bool, got torch\.float32"):
            pack_masks({"fc.weight": torch.ones(3)})

    @pytest.mark.parametrize(
        ("packed", "shapes", "words"),
        [
            ({"w": torch.zeros(2, dtype=torch.uint8)}, {"w": [3]}, "for 3 bits"),
            ({"w": torch.zeros(1)}, {"w": [3]}, "float32"),
            ({"w": torch.tensor([1], dtype=torch.uint8)}, {"w": [3]}, "after its 3 weights"),
            ({"w": torch.zeros(1, dtype=torch.uint8)}, {"v": [3]}, "different names"),
        ],
    )
    def test_bits_and_shapes_that_do_not_fit(self, packed, shapes, words):
        with pytest.raises(ValueError, match=words):
            unpack_masks(packed, shapes)
