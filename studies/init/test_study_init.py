"""The studies of pruning at initialisation: their file of rows, their arithmetic by hand, networks side by side."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from study_files import study_modules
from torch.nn import functional as F

from sparsight import Global, Random, Split, dense, held
from sparsight.train.batches import batches
from sparsight.train.plan import constant
from sparsight.zoo import networks as zoo

parts = study_modules(
    "init", "cells", "deep", "growth", "methods", "pruned", "results", "side_by_side", "tables", "trainability"
)
T2 = 4.302652729911275  # t(0.975) with 2 degrees of freedom


# -- the file of rows ------------------------------------------------------------------------------------------


def halves(count: int) -> list[dict[str, Any]]:
    return [{"half": i / 2} for i in range(count)]


def job(parts, name: str, count: int = 1, measure=halves):
    keys = tuple(f"{name} {i}" for i in range(count))
    return parts.cells.Job("block", 0, keys, measure, {"count": count}, 1.0)


def test_a_second_start_does_what_is_left(parts, tmp_path):
    path, jobs = tmp_path / "new" / "rows.jsonl", [job(parts, "a"), job(parts, "b", 2)]
    assert parts.cells._run(jobs[:1], path, 1) == 0
    assert [j.keys[0] for j in parts.cells.left(jobs, path)] == ["b 0"]
    assert parts.cells._run(parts.cells.left(jobs, path), path, 1) == 0
    assert [(row["key"], row["half"]) for row in parts.cells.rows_of(path)] == [
        ("a 0", 0.0),
        ("b 0", 0.0),
        ("b 1", 0.5),
    ]
    assert parts.cells.left(jobs, path) == []


def test_a_torn_line_is_done_again_and_no_row_twice(parts, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "b 0", "half": 7}\n{"key": "b 1", "ha')
    assert [row["key"] for row in parts.cells.rows_of(path)] == ["b 0"]
    assert parts.cells._run(parts.cells.left([job(parts, "b", 2)], path), path, 1) == 0
    assert [(row["key"], row["half"]) for row in parts.cells.rows_of(path)] == [("b 0", 7), ("b 1", 0.5)]


def test_a_failed_job_stops_no_other(parts, tmp_path, capsys):
    def fails(count: int) -> None:
        raise ValueError("no luck")

    path = tmp_path / "rows.jsonl"
    assert parts.cells._run([job(parts, "a", measure=fails), job(parts, "b")], path, 1) == 1
    assert [row["key"] for row in parts.cells.rows_of(path)] == ["b 0"]
    assert "no luck" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["methods", "trainability"])
def test_jobs_have_keys_of_their_own_and_come_by_seed(parts, study):
    jobs = getattr(parts, study).jobs_of((0, 1, 2), False)
    keys = [key for job in jobs for key in job.keys]
    assert len(set(keys)) == len(keys)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert len({job.seed for job in getattr(parts, study).jobs_of((0, 1, 2), True)}) == 1


# -- arithmetic ------------------------------------------------------------------------------------------------


def test_means_are_percents_with_the_interval_of_three_seeds(parts):
    rows = [{"method": "snip", "test_accuracy": value} for value in (0.80, 0.81, 0.82)]
    found = parts.tables.means(rows, ("method",), "test_accuracy")[("snip",)]
    assert (found["n"], found["mean"]) == (3, pytest.approx(81.0))
    assert found["half_width"] == pytest.approx(T2 / math.sqrt(3))  # deviation 1
    assert parts.tables.said(found) == "81.0 ± 2.5"


@pytest.mark.parametrize(("mean", "half", "text"), [(-1.25, None, "−1.2"), (-0.04, 0.26, "0.0 ± 0.3")])
def test_numbers_are_said(parts, mean, half, text):
    assert parts.tables.said({"mean": mean, "half_width": half}) == text
    assert parts.tables.said(None) == "–"


def ablation(method: str, variant: str, seed: int, accuracy: float, density: float = 0.1) -> dict[str, Any]:
    return {"network": "lenet5", "method": method, "variant": variant, "density": density, "seed": seed,
            "test_accuracy": accuracy}  # fmt: skip


def test_differences_are_paired_by_seed(parts):
    rows = [ablation("snip", "as it is", seed, at) for seed, at in ((0, 0.80), (1, 0.70), (2, 0.90), (3, 0.1))]
    rows += [ablation("snip", "shuffled", seed, at) for seed, at in ((0, 0.79), (1, 0.68), (2, 0.87), (4, 0.9))]
    found = parts.tables.paired(rows, ("method",), "variant", "shuffled", "as it is")[("snip",)]
    assert (found["n"], found["mean"]) == (3, pytest.approx(-2.0))  # -1, -2, -3; seeds 3 and 4 are alone
    assert found["half_width"] == pytest.approx(T2 / math.sqrt(3))


def test_the_order_is_that_of_the_means_without_ablations(parts):
    rows = [ablation("snip", "as it is", 0, 0.8), ablation("snip", "as it is", 1, 0.6)]
    rows += [ablation("random", "as it is", 0, 0.71), ablation("random", "shuffled", 0, 0.9)]
    rows += [ablation("grasp", "as it is", 0, 0.75), ablation("synflow", "as it is", 0, 0.99, density=0.5)]
    assert parts.tables.order(rows, "lenet5", 0.1) == ["grasp", "random", "snip"]


def test_rows_survive_the_csv_file(parts, tmp_path):
    rows = [{"key": "a", "block": "map", "seed": 1, "empty": 0, "disconnected": False, "gradient_ratio": None},
            {"key": "b", "block": "x", "seed": 0, "layers": {"fc1.weight": 0.5}}]  # fmt: skip
    tidy = parts.results.tidy(rows)
    parts.results.write_csv(tidy, tmp_path / "rows.csv")
    back = parts.results.read(tmp_path / "rows.csv")
    assert back[0] == {**rows[0], "layers": None}
    assert back[1]["layers"] == {"fc1.weight": 0.5}


def test_a_gradient_ratio_counts_kept_weights_alone(parts):
    mask = torch.tensor([[True, False], [False, True]])
    assert parts.deep._mean_square(torch.tensor([[1.0, 100.0], [100.0, 3.0]]), mask) == 5.0
    assert parts.deep._mean_square(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)) == 0.0


# -- networks side by side -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[list[Any], list[Any], Split]:
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(60, 1, 4, 4, generator=g), torch.randint(0, 3, (60,), generator=g))
    models = [zoo.mlp((1, 4, 4), 3, hidden=(6, 5), activation=torch.tanh, seed=seed) for seed in range(3)]
    masks = [
        Global(d)(Random(i)(m, dense(m)), dense(m)) for i, (m, d) in enumerate(zip(models, (1, 0.5, 0.2), strict=True))
    ]
    return models, masks, split


def alone(model, masks, rate: float, split: Split, steps: int) -> Any:
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    g, done = torch.Generator().manual_seed(5), 0
    with held(model, masks, optimizer):
        while done < steps:
            for x, y in batches(split, 20, generator=g, drop_last=True):
                if done < steps:
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    done += 1
    return model


def test_side_by_side_each_learns_what_it_would_alone(parts, small):
    models, masks, split = small
    rates = (0.1, 0.03, 0.3)
    together, _ = parts.side_by_side.train(
        models, masks, rates, split, steps=7, batch_size=20, schedule=constant, seed=5
    )
    for i, (model, mask, rate) in enumerate(zip(models, masks, rates, strict=True)):
        own = alone(model, mask, rate, split, 7)
        for name, value in own.named_parameters():
            both = dict(together.named_parameters())[name][i].reshape(value.shape)
            torch.testing.assert_close(both, value, rtol=1e-4, atol=1e-6)
            if name in mask:
                assert not both[~mask[name]].any()
        loss, accuracy = parts.side_by_side.judge(together, split, 25)
        assert float(loss[i]) == pytest.approx(F.cross_entropy(own(split.x), split.y).item(), rel=1e-4)
        assert float(accuracy[i]) == pytest.approx(float((own(split.x).argmax(1) == split.y).double().mean()))


def test_a_network_that_diverges_harms_no_other(parts, small):
    models, masks, split = small
    common = {"steps": 9, "batch_size": 20, "schedule": constant, "seed": 5}
    worse = [copy.deepcopy(models[0]), *models[1:]]
    with torch.no_grad():
        worse[0].fc1.weight.fill_(math.nan)
    good, _ = parts.side_by_side.train(models, masks, (0.1, 0.1, 0.1), split, **common)
    bad, ended = parts.side_by_side.train(worse, masks, (0.1, 0.1, 0.1), split, **common)
    assert not math.isfinite(float(ended[0]))
    for a, b in zip(good.parameters(), bad.parameters(), strict=True):
        torch.testing.assert_close(a[1:], b[1:])


def test_growth_is_bounded_in_a_stable_resnet_alone(parts):
    g = torch.Generator().manual_seed(0)
    batch = torch.randn(4, 1, 8, 8, generator=g), torch.randint(0, 10, (4,), generator=g)
    grown = {}
    for stable in (False, True):
        activations, gradients = parts.growth.along(parts.growth.network(30, stable, False, 0), batch)
        assert len(activations) == len(gradients) == 31
        grown[stable] = activations[-1] / activations[0], gradients[0] / gradients[-1]
    assert min(grown[False]) > 1e3
    assert max(grown[True]) < 30


def test_the_page_tells_what_is_there(parts):
    rows = [{**ablation("dense", "as it is", 0, 0.9, 1.0), "block": "lenet5"}, ablation("snip", "as it is", 0, 0.8)]
    page = parts.tables.methods(rows)
    assert "dense 90.0" in page
    assert "| snip | 80.0 |" in page
    assert "Ablations" not in page
    assert json.loads(json.dumps(rows)) == rows
