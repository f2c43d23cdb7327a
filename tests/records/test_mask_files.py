from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from sparsight import DamagedFile, apply_, counts, dense, execute, load_masks, masks_from, save_masks
from sparsight.model import check, counts_by_tensor
from sparsight.recipes import lottery
from sparsight.records import AccidentalZeros


def pruned_network() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 7))
    generator = torch.Generator().manual_seed(1)
    masks = {name: torch.rand(mask.shape, generator=generator) < 0.3 for name, mask in dense(model).items()}
    apply_(model, masks)
    return model, masks


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_masks_come_back(tmp_path):
    _, masks = pruned_network()
    masks["empty"] = torch.ones(0, 3, dtype=torch.bool)
    masks["odd"] = torch.tensor([[True, False, True]])
    save_masks(masks, tmp_path / "masks.safetensors")
    assert equal(load_masks(tmp_path / "masks.safetensors"), masks)
    assert (tmp_path / "masks.safetensors").stat().st_size < 2500


def test_those_of_a_run(tmp_path):
    outcome = execute(
        lottery(levels=1, epochs=1, control=False), model="linear", data="digits", out=tmp_path / "run", threads=1
    )
    level = outcome.levels[-1]
    masks = load_masks(tmp_path / "run" / "levels" / "001" / "masks.safetensors")
    assert counts(masks) == (level.kept, level.total)
    assert equal(masks_from(tmp_path / "run" / "levels" / "001" / "model.safetensors"), masks)


@pytest.mark.parametrize("change", ["cut", "byte", "other"])
def test_a_file_that_is_not_what_was_written(tmp_path, change):
    path = tmp_path / "masks.safetensors"
    save_masks(pruned_network()[1], path)
    content = bytearray(path.read_bytes())
    if change == "other":
        save_file({"x": torch.ones(2)}, path)
    else:
        content[-1] ^= 1
        path.write_bytes(content[:-3] if change == "cut" else content)
    with pytest.raises(DamagedFile):
        load_masks(path)


def test_from_the_zeros_of_a_model_tensors_or_a_file(tmp_path):
    model, masks = pruned_network()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    for source in (model, model.state_dict(), tmp_path / "a.safetensors", str(tmp_path / "a.safetensors")):
        assert equal(masks_from(source), masks)


def test_counts_of_each_tensor():
    model, masks = pruned_network()
    found = counts_by_tensor(masks_from(model))
    assert found == {name: (int(p.count_nonzero()), p.numel()) for name, p in model.named_parameters() if p.dim() > 1}
    assert tuple(map(sum, zip(*found.values(), strict=True))) == counts(masks)


def test_minus_zero_is_pruned_and_nan_is_kept():
    layer = nn.Linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, -0.0, float("nan"), 1.0]]))
    assert masks_from(layer)["weight"].tolist() == [[False, False, True, True]]


def test_include_and_exclude():
    model, masks = pruned_network()
    assert list(masks_from(model, exclude="0.*")) == ["2.weight"]
    assert set(masks_from(model, include="*.bias")) == {*masks, "0.bias", "2.bias"}


def test_a_few_zeros_may_be_chance():
    layer = nn.Linear(100, 100)
    with torch.no_grad():
        layer.weight[0, :3] = 0
    with pytest.warns(AccidentalZeros, match=r"may be accidental: weight \(3 of 10,000\)"):
        found = masks_from(layer)
    assert counts(found) == (9_997, 10_000)


def test_nothing_to_make_masks_of(tmp_path):
    save_file({"bias": torch.zeros(3), "tokens": torch.zeros(3, 3, dtype=torch.int64)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="two dimensions or more"):
        masks_from(tmp_path / "a.safetensors")


def test_what_is_no_masks_and_where_there_is_no_file(tmp_path):
    for wrong, said in (
        (None, "got NoneType"),
        ({"a": None}, "of 'a': .* got NoneType"),
        ({"a": torch.ones(2)}, "float32"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            save_masks(wrong, tmp_path / "masks.safetensors")
    with pytest.raises(FileNotFoundError, match="masks.safetensors does not exist"):
        load_masks(tmp_path / "masks.safetensors")


def test_weights_that_torch_holds_at_zero_are_pruned(tmp_path):
    model, _ = pruned_network()
    prune.l1_unstructured(model[2], "weight", amount=900)  # some of these are 0 anyway
    weight = model[2].weight.detach() != 0
    torch.save(model.state_dict(), tmp_path / "pruned.pt")
    for source in (model, model.state_dict(), tmp_path / "pruned.pt"):
        found = masks_from(source)
        assert set(found) == {"0.weight", "2.weight_orig"}
        assert torch.equal(found["2.weight_orig"], weight)
    check(model, masks_from(model))
