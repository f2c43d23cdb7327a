"""What a mask cuts off, against a walk over all connections, and what a run and its report say of it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import sample
from torch import nn
from torch.nn import functional as F

from sparsight import report
from sparsight.cli.show import tell
from sparsight.model.collapse import Collapse, find_collapse
from sparsight.model.masks import all_kept, dense
from sparsight.pruning.allocate.fixed import Global
from sparsight.pruning.score.magnitude import Magnitude
from sparsight.records.record import LevelRecord, from_json, to_json
from sparsight.runs import Level, Recipe, run
from sparsight.train import TrainingPlan
from sparsight.zoo.data import digits
from sparsight.zoo.networks import cnn, mlp, resnet8

SIZES = (3, 4, 2, 3)


def chain(sizes=SIZES, activation=nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), activation()]
    return nn.Sequential(*layers[:-1])


def walked(masks: list[torch.Tensor]) -> tuple[bool, list[int]]:
    """(connected, kept weights on no path of each layer), by marking units from both ends."""
    ahead = [torch.ones(masks[0].shape[1], dtype=torch.bool)]
    for mask in masks:
        ahead.append((mask & ahead[-1]).any(1))
    back = [torch.ones(masks[-1].shape[0], dtype=torch.bool)]
    for mask in reversed(masks):
        back.insert(0, (mask & back[0][:, None]).any(0))
    on = [mask & ahead[i] & back[i + 1][:, None] for i, mask in enumerate(masks)]
    return all(bool(o.any()) for o in on), [int((m & ~o).sum()) for m, o in zip(masks, on, strict=True)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.1, 0.8))
def test_paths_are_those_of_a_walk(seed, density):
    model, g = chain(), torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(m.shape, generator=g) < density for n, m in dense(model).items()}
    connected, cut_off = walked(list(masks.values()))
    found = find_collapse(masks, model, torch.zeros(5, 3))
    assert found.disconnected == (not connected)
    assert found.cut_off == {n: c for n, c in zip(masks, cut_off, strict=True) if c}
    assert found.empty == tuple(n for n, m in masks.items() if not m.any())
    assert found.dead_outputs == {n: int((~m.any(1)).sum()) for n, m in masks.items() if not m.any(1).all()}
    assert found.dead_inputs == {n: int((~m.any(0)).sum()) for n, m in masks.items() if not m.any(0).all()}


def test_depth_is_no_limit():
    """Path counts would overflow float64 (20^300 of them), and one lost link among 300 layers must not be missed."""
    model = chain((20,) * 301)
    masks = dense(model)
    whole = find_collapse(masks, model, torch.zeros(1, 20))
    assert whole == Collapse(cut_off={}, disconnected=False)
    line = {n: torch.zeros_like(m) for n, m in masks.items()}
    for mask in line.values():
        mask[7, 7] = True
    found = find_collapse(line, model, torch.zeros(1, 20))
    assert found.disconnected is False
    assert found.cut_off == {}
    assert set(found.nearly_empty) == set(masks)
    line["300.weight"][7, 7], line["300.weight"][7, 8] = False, True
    broken = find_collapse(line, model, torch.zeros(1, 20))
    assert broken.disconnected
    assert sum(broken.cut_off.values()) == 300
    assert broken.empty == ()


def test_a_shortcut_is_a_path():
    model = resnet8((1, 8, 8), 10, seed=0)
    masks, x = dense(model), torch.zeros(2, 1, 8, 8)
    assert find_collapse(masks, model, x) == Collapse(cut_off={}, disconnected=False)
    masks["blocks.1.conv1.weight"] = torch.zeros_like(masks["blocks.1.conv1.weight"])
    found = find_collapse(masks, model, (x, None))
    assert found.empty == ("blocks.1.conv1.weight",)
    assert not found.disconnected
    assert found.cut_off == {
        "blocks.1.conv2.weight": masks["blocks.1.conv2.weight"].numel(),
        "blocks.2.conv1.weight": 64 * 16 * 9,  # half of its inputs: the channels that the shortcut filled with zeros
    }
    masks["fc.weight"] = torch.zeros_like(masks["fc.weight"])
    assert find_collapse(masks, model, x).disconnected


@pytest.mark.parametrize("pool", [nn.MaxPool2d(4), nn.AdaptiveMaxPool2d(1), nn.AvgPool2d(4)], ids=str)
def test_pooling_hides_no_path(pool):
    """The largest is the first of equals, which would be the corner; a filter on one point has eight idle weights."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(2, 2, 3, padding=1), nn.Flatten(), nn.Linear(2, 3)
    )
    found = find_collapse(dense(model), model, torch.zeros(1, 1, 4, 4))
    assert found.disconnected is False
    assert found.cut_off == {"3.weight": 2 * 2 * 8}


def test_the_networks_of_the_zoo_are_whole():
    for model in (cnn((1, 16, 16), 10, width=0.1, seed=0), resnet8((1, 16, 16), 10, seed=0)):
        found = find_collapse(dense(model), model, torch.zeros(1, 1, 16, 16))
        assert found.disconnected is False
        assert found.cut_off == {}


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.BatchNorm1d(6), nn.RMSNorm(6), nn.GroupNorm(2, 6)], ids=str)
def test_a_norm_is_no_way_round(norm):
    model = nn.Sequential(nn.Linear(4, 6), norm, nn.GELU(), nn.Linear(6, 3))
    masks = dense(model)
    assert not find_collapse(masks, model, torch.zeros(1, 4)).disconnected
    masks["0.weight"] = torch.zeros_like(masks["0.weight"])
    assert find_collapse(masks, model, torch.zeros(1, 4)).disconnected


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.silu(self.a(self.embed(x)))).mean(1)


def test_tokens_are_an_input_too():
    model = Words()
    masks = all_kept(model)
    x = torch.zeros(2, 5, dtype=torch.long)
    assert find_collapse(masks, model, x) == Collapse(cut_off={}, disconnected=False)
    masks["a.weight"] = torch.zeros_like(masks["a.weight"])
    assert find_collapse(masks, model, x).disconnected


class Own(nn.Module):
    """A forward of two layers with something of its own between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Linear(4, 4), nn.Linear(4, 2), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(self.a, x))


@pytest.mark.parametrize(
    "between",
    [
        lambda a, x: x - a(x),
        lambda a, x: F.relu(-a(x)) + F.relu(a(x)),
        lambda a, x: a((x - 1) / 1),
        lambda a, x: a((x - 127.5) / -127.5),
        lambda a, x: a(1 - x),
        lambda a, x: (a(x) - a(x).mean(1, keepdim=True)) / (a(x).var(1, keepdim=True) + 1e-5).sqrt(),
        lambda a, x: torch.sub(a(x), torch.ones(4)).neg().div_(3),
    ],
)
def test_differences_norms_by_hand_and_shifts_raise_no_alarm(between):
    model = Own(between)
    masks = dense(model)
    assert find_collapse(masks, model, torch.zeros(1, 4)) == Collapse(cut_off={}, disconnected=False)
    masks["b.weight"] = torch.zeros_like(masks["b.weight"])
    assert find_collapse(masks, model, torch.zeros(1, 4)).disconnected


def test_a_network_whose_paths_are_lost_without_a_mask_is_not_known():
    model = Own(lambda a, x: a(x * -1.0))
    masks = dense(model)
    masks["b.weight"][0, 0] = False
    found = find_collapse(masks, model, torch.zeros(1, 4))
    assert (found.disconnected, found.cut_off) == (None, None)


def test_inference_mode_cuts_nothing_off():
    with torch.inference_mode():
        model = resnet8((1, 8, 8), 10, seed=0)
        assert find_collapse(dense(model), model, torch.zeros(1, 1, 8, 8)).disconnected is False


def test_what_cannot_be_followed_is_not_known():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.a(x)}

    masks = dense(Odd())
    for found in (find_collapse(masks, Odd(), torch.zeros(1, 4)), find_collapse(masks, Odd()), find_collapse(masks)):
        assert found.disconnected is None
        assert found.cut_off is None


def test_nearly_empty_is_a_share_of_the_narrower_side():
    masks = {"a": torch.zeros(50, 40, dtype=torch.bool)}
    masks["a"].view(-1)[:3] = True
    assert find_collapse(masks).nearly_empty == ("a",)
    masks["a"].view(-1)[:4] = True
    assert find_collapse(masks).nearly_empty == ()
    assert find_collapse(masks, share=0.2).nearly_empty == ("a",)
    assert find_collapse({"one": torch.ones(1, 1, dtype=torch.bool)}).nearly_empty == ()
    with pytest.raises(ValueError, match="share must be"):
        find_collapse(masks, share=-1.0)
    with pytest.raises(ValueError, match="no parameter 'a'"):
        find_collapse(masks, chain(), torch.zeros(1, 3))


def test_the_model_stays_as_it_was():
    model = resnet8((1, 8, 8), 10, seed=0)
    before, state = {n: p.clone() for n, p in model.state_dict().items()}, torch.get_rng_state()
    find_collapse(dense(model), model, torch.zeros(1, 1, 8, 8))
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


# -- on record ---------------------------------------------------------------------------------------------------


class Backwards(nn.Module):
    """A network whose last layer has the smallest weights by far, so that magnitude empties it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp((1, 8, 8), 10, hidden=(16,), seed=0)
        self.net.fc2.weight.data.mul_(1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.mark.parametrize(("min_keep", "empty"), [(0, ("net.fc2.weight",)), (1, ())])
def test_a_run_records_collapse_and_the_floor_guards_against_it(min_keep, empty):
    level = Level((Global(0.1, min_keep=min_keep),), train=TrainingPlan(epochs=1, batch_size=200))
    recipe = Recipe(name="test", score=Magnitude(), levels=(level,))
    (result,) = run(recipe, Backwards(), digits(), device="cpu")
    record = result.record
    assert record.collapsed == empty
    assert record.collapse == find_collapse(result.masks, Backwards(), torch.zeros(1, 1, 8, 8))
    assert record.collapse.empty == empty
    assert record.collapse.disconnected == bool(empty)
    assert record.floors == (() if empty else ("net.fc2.weight",))
    assert from_json(LevelRecord, to_json(record)) == record


def test_a_record_without_it_is_read():
    record = sample(2).levels[1]
    old = to_json(record)
    del old["collapse"]
    assert from_json(LevelRecord, old) == record
    assert record.collapse is None


def test_the_report_says_it():
    s = sample(3)
    name = s.levels[2].layers[1].name
    collapse = Collapse(nearly_empty=(name,), cut_off={name: 1234}, disconnected=False)

    def page(collapse) -> str:
        levels = (*s.levels[:2], dataclasses.replace(s.levels[2], collapse=collapse), *s.levels[3:])
        return report.page(s.run, levels, s.times, s.evaluation)

    said = page(collapse)
    assert "Level 2: 1,234 kept weights lie on no path from the input to the output." in said
    assert f"Level 2: hardly a weight is left in &#39;{name}&#39;." in said
    gone = page(dataclasses.replace(collapse, disconnected=True, nearly_empty=()))
    assert "Level 2: no path is left from the input to the output." in gone
    assert "hardly a weight" not in gone
    assert "no path" not in page(None)


def test_show_says_it_once(tmp_path, capsys):
    s = sample(4)
    one, two = (layer.name for layer in s.levels[2].layers[:2])
    gone = Collapse(empty=(one,), disconnected=True)
    levels = (
        *s.levels[:2],
        dataclasses.replace(s.levels[2], collapse=gone, collapsed=(one,)),
        dataclasses.replace(s.levels[3], collapse=gone, collapsed=(one, two)),
    )
    tell(s.run, levels, s.evaluation, tmp_path / "report.html")
    told = capsys.readouterr().out
    assert told.count("no weight is left") == 2
    assert f"Note: Levels 2 and 3: no weight is left in '{one}'.\n" in told
    assert f"Note: Level 3: no weight is left in '{two}'.\n" in told
    assert told.count("no path is left") == 1
    assert "Note: Levels 2 and 3: no path is left from the input to the output.\n" in told
