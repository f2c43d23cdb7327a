"""A ledger's counts against numbers worked out by hand, from modules and files of every kind."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sparsight.checkpoint import CheckpointError, pack
from sparsight.deploy import Ledger, ledger
from sparsight.deploy.ledger import Latency, Measured, Memory, Request, Roles, Times
from sparsight.deploy.ledger.measure import filled, measured, rows
from sparsight.records.record import dumps, from_json


def tiny(seed: int = 0) -> nn.Sequential:
    """96 + 8 + 16 + 2 = 122 parameters, 112 of them prunable, 28 not 0; 16 numbers and a count in buffers."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        model[0].weight[2:] = 0
        model[2].weight[:, :6] = -0.0
        for layer in (model[0], model[2]):
            layer.bias.fill_(1)
    return model


def test_a_module():
    found = ledger(tiny(), torch.randn(1, 12))
    counted = found.counted
    assert (found.source, found.format) == ("Sequential", "module")
    assert (counted.parameters, counted.zeros) == (122, 72 + 12)
    assert (counted.prunable, counted.alive) == (112, 28)
    assert counted.dense_bytes == 4 * (122 + 16) + 8
    assert counted.file_bytes is None
    assert counted.packed_bytes > counted.floor_bytes > 28 * 3
    assert (counted.dense_macs, counted.effective_macs) == (112, 28)
    assert found.measured is None
    assert found.missing["file_bytes"] == "it is no file"
    assert found.missing["latency"] == "measured on request"


def test_a_module_without_prunable_weights():
    found = ledger(nn.LayerNorm(4), torch.randn(1, 4))
    assert found.counted.parameters == 8
    assert found.counted.prunable is None
    assert found.missing["prunable"] == "needs the network's code, or names"


def test_a_file_without_code_and_with_it(tmp_path):
    model, path = tiny(), tmp_path / "a.safetensors"
    save_file(model.state_dict(), path)
    bare = ledger(path)
    assert (bare.counted.parameters, bare.counted.prunable, bare.counted.alive) == (138, None, None)
    assert bare.counted.file_bytes == path.stat().st_size
    assert bare.counted.dense_macs is None
    assert bare.missing["dense_macs"] == "needs the network's code and the shape of its input"
    told = ledger(path, roles=Roles(["0.weight"], ["1.running_mean", "1.running_var", "1.num_batches_tracked"]))
    assert (told.counted.parameters, told.counted.prunable, told.counted.alive) == (122, 96, 24)
    coded = ledger(path, torch.randn(1, 12), model=tiny(seed=1))
    module = ledger(model, torch.randn(1, 12)).counted
    same = ("parameters", "zeros", "prunable", "alive", "dense_bytes", "floor_bytes", "dense_macs", "effective_macs")
    assert [getattr(coded.counted, name) for name in same] == [getattr(module, name) for name in same]


def test_a_file_whose_names_have_more_before_them(tmp_path):
    model, path = tiny(), tmp_path / "a.safetensors"
    save_file({f"module.{name}": value for name, value in model.state_dict().items()}, path)
    with pytest.warns(UserWarning, match="prefix .* was stripped"):
        found = ledger(path, model=tiny(seed=1)).counted
    assert (found.parameters, found.prunable, found.alive) == (122, 112, 28)


@pytest.mark.filterwarnings("ignore:.*not used. 'optimizer")
@pytest.mark.parametrize("kind", ["packed", "torch", "sharded", "sharded and packed"])
def test_every_kind_of_file_says_the_same(tmp_path, kind):
    state, path = tiny().state_dict(), tmp_path / "a"
    if kind == "packed":
        pack(state, path)
    elif kind == "torch":
        torch.save({"state_dict": state, "optimizer": {"state": {0: {"m": torch.ones(999)}}, "param_groups": []}}, path)
    else:
        path.mkdir()
        names = list(state)
        where = {name: f"{int(i > 2)}.safetensors" for i, name in enumerate(names)}
        for file in {*where.values()}:
            save_file({name: state[name] for name in names if where[name] == file}, path / file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
        if kind.endswith("packed"):
            pack(path, tmp_path / "b")
            path = tmp_path / "b"
    found, module = ledger(path, torch.randn(1, 12), model=tiny(seed=1)).counted, ledger(tiny()).counted
    for name in ("parameters", "zeros", "prunable", "alive", "dense_bytes", "floor_bytes"):
        assert getattr(found, name) == getattr(module, name), name
    assert found.effective_macs == 28
    files = [path] if path.is_file() else [*path.glob("*.safetensors")]
    assert found.file_bytes == sum(file.stat().st_size for file in files)
    if kind == "packed":
        assert found.packed_bytes == found.file_bytes


def test_tied_tensors_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    found = ledger(model, torch.randn(1, 4)).counted
    assert (found.parameters, found.prunable, found.dense_bytes, found.dense_macs) == (16, 16, 64, 32)


def test_a_model_is_not_changed_and_its_file_must_fit(tmp_path):
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / "a.safetensors"
    save_file(tiny(seed=3).state_dict(), path)
    ledger(path, torch.randn(1, 12), model=model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="does not fit Linear"):
        ledger(path, model=nn.Linear(12, 9))


def test_dtypes_that_cannot_be_packed_are_told(tmp_path):
    torch.save({"a.weight": torch.zeros(4, 4), "b": torch.zeros(3, dtype=torch.complex128)}, tmp_path / "a.pt")
    found = ledger(tmp_path / "a.pt")
    assert (found.counted.packed_bytes, found.counted.floor_bytes) == (None, None)
    assert found.missing["packed_bytes"] == "complex128 cannot be packed"
    assert (found.counted.zeros, found.counted.dense_bytes) == (16, 64 + 48)


def test_damaged_files_end_in_one_error(tmp_path):
    path = tmp_path / "a"
    pack({"w": torch.eye(300)}, path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a: the packed tensor 'w' is damaged"):
        ledger(path)
    for broken in (b"", bytes(content[:40]), b"\x80\x02garbage"):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError):
            ledger(path)


# -- measured ------------------------------------------------------------------------------------------------------


def test_times_stand_beside_dense_ones_in_the_same_runtime():
    missing: dict[str, str] = {}
    asked = Request(batches=(1, 3), threads=(1,), runtimes=("torch", "torch-csr"), rounds=2)
    found = measured("tiny", tiny(), (torch.randn(1, 12),), asked, missing)
    assert [(x.runtime, x.dense_in, x.batch, x.threads) for x in found.latency] == [
        (name, "torch", batch, 1) for batch in (1, 3) for name in ("sparsight", "torch")
    ]
    assert all(0 < x.minimum <= x.median and x.spread >= 0 for one in found.latency for x in (one.sparse, one.dense))
    assert "latency: torch-csr" in missing
    assert found.machine["processor"]
    if "memory" not in missing:
        assert [(x.runtime, x.batch) for x in found.memory] == [
            (name, batch) for batch in (1, 3) for name in ("sparsight", "torch")
        ]
        assert all(1e7 < x.sparse < 1e10 and x.dense for x in found.memory)
    whole = ledger(tiny(), torch.randn(1, 12))
    record = Ledger(whole.source, whole.format, whole.counted, found, {**whole.missing, **missing})
    assert from_json(Ledger, json.loads(dumps(record))) == record


def test_the_fastest_dense_way_stands_beside_the_runtime():
    from sparsight.deploy.bench import Comparison, Row, Timing

    def row(name, seconds, ours=False):
        return Row(name, "fp32", ours, False, 0.0, seconds, Timing(seconds, seconds, seconds, 0.1))

    ways = [row("sparsight", 1.0, True), row("torch", 5.0), row("openvino", 3.0)]
    found = [*rows(Comparison("x", 0.1, 2, 4, 0, (*ways, row("torch, dense", 4.0), row("openvino, dense", 2.0)), {}))]
    assert [(x.runtime, x.dense_in, x.ratio, x.faster) for x in found] == [
        ("sparsight", "openvino", 2.0, True), ("torch", "torch", 0.8, False), ("openvino", "openvino", 2 / 3, False),
    ]  # fmt: skip
    assert [*rows(Comparison("x", 0.1, 2, 4, 0, (*ways,), {}))] == []


@pytest.mark.parametrize(
    ("sparse", "dense", "faster"),
    [
        ((1.0, 0.9, 0.1), (2.0, 1.9, 0.1), True),
        ((1.0, 0.9, 0.6), (2.0, 1.9, 0.5), False),  # within the spreads
        ((1.0, 0.9, 0.0), (1.04, 0.91, 0.0), False),  # below 5 %
        ((2.0, 1.9, 0.1), (1.0, 0.9, 0.1), False),
    ],
)
def test_what_counts_as_faster(sparse, dense, faster):
    assert Latency("torch", 1, 1, Times(*sparse), Times(*dense), "torch").faster is faster


def test_the_dense_network_has_no_zeros_and_the_same_scale():
    model = tiny()
    full = filled(model)
    for name, weight in full.named_parameters():
        assert (weight != 0).all(), name
    before, after = model[0].weight.detach().square().mean(), full[0].weight.detach().square().mean()
    assert 0.5 < float(after / before) < 2
    assert torch.equal(full[0].bias, model[0].bias)
    assert int((model[0].weight == 0).sum()) == 72


@pytest.mark.parametrize(
    ("module", "inputs", "why"),
    [
        (tiny(), (torch.zeros(1, 12), torch.zeros(1)), "measured of networks that take one float32 tensor"),
        (nn.Embedding(9, 4).eval(), (torch.zeros(1, 3, dtype=torch.long),), "measured of networks that take one"),
        (nn.GRU(12, 4).eval(), (torch.zeros(1, 12),), "measured of networks that return one tensor"),
    ],
    ids=["two inputs", "whole numbers", "two outputs"],
)  # fmt: skip
def test_what_cannot_be_timed_is_told(module, inputs, why):
    missing: dict[str, str] = {}
    found = measured("x", module, inputs, Request(runtimes=("torch",), rounds=1), missing)
    assert missing["latency"].startswith(why)
    assert missing["memory"].startswith(why)
    assert found is None or found.latency == found.memory == ()


def test_a_network_that_cannot_be_traced_is_timed_too():
    class Odd(nn.Sequential):
        def forward(self, x):
            return super().forward(x if float(x.sum()) > 1e9 else x + 1)

    found = measured("x", Odd(*tiny()).eval(), (torch.zeros(1, 12),), Request(runtimes=("torch",), rounds=1), {})
    assert [one.runtime for one in found.latency] == ["sparsight", "torch"]


@pytest.mark.parametrize("wrong", [{"batches": (0,)}, {"threads": (0,)}, {"rounds": 0}])
def test_requests_are_checked(wrong):
    with pytest.raises(ValueError, match="got 0"):
        Request(**wrong)


def test_records_round_trip():
    found = ledger(tiny(), torch.randn(1, 12))
    times = Times(1.0, 0.5, 0.25)
    measure = Measured(
        {"processor": "x"}, 3, (Latency("torch", 1, 1, times, times, "torch"),), (Memory("torch", 1, 5, None),)
    )
    record = Ledger(found.source, found.format, found.counted, measure, found.missing)
    assert from_json(Ledger, json.loads(dumps(record))) == record
