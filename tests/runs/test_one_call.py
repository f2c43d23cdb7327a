from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sparsight
from sparsight import counts, verify
from sparsight.recipes import oneshot
from sparsight.zoo import data as readers
from sparsight.zoo.networks import linear


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A linear classifier of digits, trained by a loop that is nobody's."""
    torch.set_num_threads(1)
    split, model = readers.load("digits").train, linear((1, 8, 8), 10, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(split.x), split.y).backward()  # type: ignore[union-attr]
        optimizer.step()
    return model


def test_in_memory(trained):
    before = copy.deepcopy(trained.state_dict())
    pruned = sparsight.prune(trained, readers.load("digits"), density=0.25, epochs=2)
    assert counts(pruned.masks) == (160, 640)
    verify(pruned.model, pruned.masks)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), before.values(), strict=True))
    assert [level.kept for level in pruned.levels] == [640, 453, 321, 227, 160]
    assert pruned.levels[0].epochs == 0
    assert pruned.levels[0].steps == 0
    assert pruned.record.value is not None
    assert pruned.record.value > 0.85
    words = r"160 of 640 weights \(25.0 %\) at validation accuracy (\S+) % \(95 % interval (\S+) % to (\S+) %"
    told = re.match(words + r", of 300 answers\), against \d+\.\d\d % dense$", str(pruned))
    assert told is not None
    share, n, z = pruned.record.value, 300, 1.959964
    ends = [100 * (share + z * z / (2 * n) + side * z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5)
            / (1 + z * z / n) for side in (-1, 1)]  # fmt: skip
    assert [float(told[2]), float(told[3])] == pytest.approx(ends, abs=0.006)
    assert pruned.path is None


def test_into_a_run_folder(trained, tmp_path):
    there = sparsight.prune(trained, readers.load("digits"), density=0.25, epochs=1, out=tmp_path / "run")
    here = sparsight.prune(trained, readers.load("digits"), density=0.25, epochs=1)
    assert there.record.id == here.record.id
    assert there.path == tmp_path / "run"
    assert all(torch.equal(there.masks[name], here.masks[name]) for name in here.masks)
    for a, b in zip(there.model.state_dict().values(), here.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_loaders_of_batches(trained):
    digits = readers.load("digits")
    loaders = [DataLoader(TensorDataset(s.x, s.y), 64) for s in (digits.train, digits.validation)]  # type: ignore
    pruned = sparsight.prune(trained, (loaders[0], loaders[1]), density=0.5, epochs=1)
    assert counts(pruned.masks) == (320, 640)


def test_an_untrained_network_is_trained_first():
    pruned = sparsight.prune(linear((1, 8, 8), 10, seed=0), readers.load("digits"), 0.5, epochs=1, pretrained=False)
    assert pruned.levels[0].epochs == 1


def test_another_recipe(trained):
    data = readers.load("digits")
    recipe = oneshot(target_density=0.3, levels=1, epochs=1, control=False)
    fresh = sparsight.prune(trained, data, recipe=recipe)
    assert (fresh.levels[0].epochs, fresh.record.kept) == (1, 192)
    pruned = sparsight.prune(trained, data, recipe=recipe, pretrained=True, metric="loss")
    assert (pruned.levels[0].epochs, pruned.record.kept, pruned.record.metric.name) == (0, 192, "loss")


def test_a_floor_above_the_density_is_told(trained):
    pruned = sparsight.prune(trained, readers.load("digits"), 0.0001, epochs=0)  # 0.064 of 640 weights: 0
    assert counts(pruned.masks) == (1, 640)
    assert "the target density of 0.01 % was missed" in str(pruned)


@pytest.mark.parametrize(("data", "got"), [(5, "int"), (None, "NoneType"), (("a",), "1 of them"), ([1, 2, 3], "3 of")])
def test_data_that_are_no_pair(trained, data, got):
    with pytest.raises(TypeError, match=f"data must be Data, or a pair of training and validation splits, got {got}"):
        sparsight.prune(trained, data)


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan"), "0.1", None])
def test_densities_that_are_none(trained, density):
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]"):
        sparsight.prune(trained, readers.load("digits"), density)


def test_a_run_is_opened_by_a_string_too(trained, tmp_path):
    pruned = sparsight.prune(trained, readers.load("digits"), 0.5, epochs=1, out=str(tmp_path / "run"))
    with sparsight.RunFolder.open(str(tmp_path / "run")) as folder:
        assert folder.levels()[-1].id == pruned.record.id
