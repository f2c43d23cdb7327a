from __future__ import annotations

import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sparsight import CheckpointError
from sparsight.model import WeightsNote, load_into


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 36, 3))


class Wrapped(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.model = network(seed)

    def forward(self, x):
        return self.model(x)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "net.backbone."])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_prefixes_are_stripped_and_told(tmp_path, prefix, kind):
    right, model = network(1), network(2)
    state = {prefix + name: value for name, value in right.state_dict().items()}
    path = tmp_path / f"weights.{kind}"
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    if prefix:
        with pytest.warns(WeightsNote, match=f"the prefix '{prefix}' was stripped"):
            load_into(path, model)
    else:
        assert load_into(path, model) == f"9 tensors from {path}"
    assert same(model, right)


def test_a_state_dict_inside_a_training_checkpoint(tmp_path):
    right, model = network(1), network(2)
    optimizer = torch.optim.SGD(right.parameters(), 0.1)
    torch.save({"epoch": 3, "state_dict": right.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    load_into(tmp_path / "a.pt", model)
    assert same(model, right)


def test_a_model_that_wraps_the_one_in_the_file(tmp_path):
    right, model = network(1), Wrapped(2)
    save_file(right.state_dict(), tmp_path / "a.safetensors")
    with pytest.warns(WeightsNote, match=r"names lack the prefix 'model\.'"):
        load_into(tmp_path / "a.safetensors", model)
    assert same(model.model, right)


def test_tensors_that_were_not_used_are_named(tmp_path):
    right = network(1)
    save_file({**right.state_dict(), "head.weight": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    model = network(2)
    with pytest.warns(WeightsNote, match="not used: 'head.weight'"):
        load_into(tmp_path / "a.safetensors", model)
    assert same(model, right)


def test_what_is_missing_is_named_and_nothing_loaded(tmp_path):
    model, before = network(2), network(2)
    state = network(1).state_dict()
    del state["3.weight"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"does not fit Sequential: it lacks '3.weight' \(1 of 9 tensors"):
        load_into(tmp_path / "a.safetensors", model)
    state["3.weight"] = torch.ones(3, 5)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"'3.weight' has shape \(3, 5\) in the file and \(3, 72\) in the model"):
        load_into(tmp_path / "a.safetensors", model)
    assert same(model, before)


def test_a_tied_weight_is_in_the_file_once(tmp_path):
    def tied(seed: int) -> nn.ModuleDict:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            parts = nn.ModuleDict({"table": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
        parts["head"].weight = parts["table"].weight
        return parts

    right, model = tied(1), tied(2)
    save_file({"table.weight": right["table"].weight.detach()}, tmp_path / "a.safetensors")
    load_into(tmp_path / "a.safetensors", model)
    assert torch.equal(model["head"].weight, right["table"].weight)
    assert model["head"].weight is model["table"].weight


def test_other_files(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError):
        load_into(tmp_path / "a.safetensors", network())
    save_file({"x": torch.ones(2)}, tmp_path / "b.safetensors")
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"lacks '0.weight'.*it holds 'x'"):
        load_into(tmp_path / "b.safetensors", network())


def test_a_model_without_memory_is_refused(tmp_path):
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "model.safetensors")
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="'weight' is on device 'meta' .*to_empty"):
        load_into(tmp_path / "model.safetensors", model)
    load_into(tmp_path / "model.safetensors", model.to_empty(device="cpu"))
