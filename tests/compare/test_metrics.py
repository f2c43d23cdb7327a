"""Metrics of answers against slow references, sample by sample."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from sparsight import Split
from sparsight.compare.evaluation import (
    Outputs,
    accuracy,
    agreement,
    brier,
    calibration_error,
    classes,
    corruption_error,
    excess_error,
    flips,
    negative_log_likelihood,
    outputs_of,
    prune_potential,
)
from sparsight.compare.evaluation.metrics import average, share
from sparsight.numerics.intervals import wilson
from sparsight.train.parallel import runtime


def drawn(n: int = 400, classes: int = 5, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    scores = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    scores[torch.arange(n), labels] += 1.0
    return Outputs(scores, labels)


# -- alone ---------------------------------------------------------------------------------------------------------


def test_accuracy_counts():
    found = drawn()
    right = sum(int(np.argmax(s)) == y for s, y in zip(found.scores.tolist(), found.labels.tolist(), strict=True))
    mine = accuracy(found)
    assert (mine.value, mine.n) == (right / 400, 400)
    assert (mine.low, mine.high) == wilson(right / 400, 400)
    theirs = MulticlassAccuracy(5, average="micro")(found.scores, found.labels)
    assert mine.value == pytest.approx(float(theirs))


def test_an_answer_that_is_not_a_number_is_wrong():
    scores = torch.tensor([[torch.nan, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert accuracy(Outputs(scores, torch.zeros(2).long())).value == 0.5


def test_loss_and_brier_answer_by_answer():
    found = drawn()
    losses, scores = [], []
    for row, y in zip(found.scores.tolist(), found.labels.tolist(), strict=True):
        total = math.fsum(map(math.exp, row))
        p = [math.exp(s) / total for s in row]
        losses.append(-math.log(p[y]))
        scores.append(math.fsum((q - (k == y)) ** 2 for k, q in enumerate(p)))
    for mine, values in ((negative_log_likelihood(found), losses), (brier(found), scores)):
        half = 1.959963984540054 * np.std(values, ddof=1) / math.sqrt(400)
        assert (mine.value, mine.n) == (pytest.approx(np.mean(values), rel=1e-12), 400)
        assert (mine.low, mine.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half))


@pytest.mark.parametrize(("n", "bins"), [(400, 15), (7, 15), (31, 3), (1, 15)])
def test_calibration_error_bin_by_bin(n, bins):
    found = drawn(n)
    answers = sorted(
        zip(found.probabilities.max(1).values.tolist(), found.right.tolist(), strict=True), key=lambda pair: pair[0]
    )
    bins = min(n, bins)
    sizes = [n // bins + (i < n % bins) for i in range(bins)]
    total, start = Fraction(0), 0
    for size in sizes:
        part = answers[start : start + size]
        total += abs(sum(Fraction(c) - right for c, right in part)) / n
        start += size
    mine = calibration_error(found, bins)
    assert mine.value == pytest.approx(float(total), abs=1e-12)
    assert 0 <= mine.low <= mine.value <= mine.high <= 1


def test_calibration_error_with_one_bin_is_the_gap():
    """There bins of equal mass and of equal width are the same, and torchmetrics has the latter."""
    found = drawn()
    theirs = MulticlassCalibrationError(5, n_bins=1)(found.scores, found.labels)
    assert calibration_error(found, 1).value == pytest.approx(float(theirs), abs=1e-6)


def test_a_calibrated_network_has_little_error():
    p = torch.rand(20_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 2 + 0.5
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(2)) >= p).long()  # class 0 with probability p
    scores = torch.stack([p.log(), (1 - p).log()], 1)
    assert calibration_error(Outputs(scores, labels)).value < 0.02
    assert calibration_error(Outputs(10 * scores, labels)).value > 0.1


def test_nothing_and_one():
    assert math.isnan(share(torch.zeros(0, dtype=torch.bool)).value)
    assert average(torch.tensor([2.0])).low is None


# -- beside a parent -----------------------------------------------------------------------------------------------


def test_classes_and_flips_sample_by_sample():
    mine, before = drawn(seed=0), drawn(seed=1)
    labels = mine.labels
    pairs = list(zip(mine.predictions.tolist(), before.predictions.tolist(), labels.tolist(), strict=True))
    for each in classes(mine.predictions, labels, before.predictions):
        here = [(a == y, b == y) for a, b, y in pairs if y == each.label]
        assert each.accuracy.value == pytest.approx(np.mean([a for a, _ in here]))
        assert each.impact.value == pytest.approx(np.mean([int(a) - int(b) for a, b in here]))
        assert each.impact.n == len(here)
        assert each.impact.low < each.impact.value < each.impact.high
    lost, gained = flips(mine.predictions, labels, before.predictions)
    assert lost.value == pytest.approx(np.mean([b == y != a for a, b, y in pairs]))
    assert gained.value == pytest.approx(np.mean([a == y != b for a, b, y in pairs]))
    assert agreement(mine.predictions, before.predictions).value == pytest.approx(
        np.mean([a == b for a, b, _ in pairs])
    )
    assert [each.impact for each in classes(mine.predictions, labels)] == [None] * 5


def test_a_network_agrees_with_itself():
    p = drawn().predictions
    assert agreement(p, p).value == 1.0
    assert [estimate.value for estimate in flips(p, drawn().labels, p)] == [0.0, 0.0]


# -- potential -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("margin", "expected", "monotone"), [(0.0, 0.5, 0.5), (0.005, 0.9, 0.5), (0.02, 0.9, 0.9), (1.0, 0.95, 0.95)]
)
def test_potential_is_the_largest_sparsity_within(margin, expected, monotone):
    errors = {0.0: 0.1, 0.5: 0.1, 0.8: 0.11, 0.9: 0.105, 0.95: 0.5}
    assert prune_potential(errors, 0.1, margin) == expected
    assert prune_potential(errors, 0.1, margin, monotone=True) == monotone


def test_potential_of_nothing_within_is_zero():
    assert prune_potential({0.5: 0.3, 0.9: math.nan}, 0.1, 0.05) == prune_potential({}, 0.1, 0.5) == 0.0


def test_excess_and_corruption_error():
    assert excess_error(0.30, 0.12, 0.22, 0.10) == pytest.approx(0.06)
    mine, dense = {"a": (0.2, 0.4), "b": (0.1, 0.1)}, {"a": (0.1, 0.2), "b": (0.1, 0.1)}
    assert corruption_error(mine, dense) == pytest.approx(1.5)
    assert corruption_error(dense, dense) == 1.0
    assert corruption_error({"a": (0.1,)}, {"a": (0.0,)}) == math.inf
    assert corruption_error({"a": (0.0,)}, {"a": (0.0,)}) == 1.0


# -- outputs -------------------------------------------------------------------------------------------------------


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, -x], 1)


def test_outputs_of_label_maps_leave_out_what_does_not_count():
    x = torch.tensor([[[1.0, -1.0], [2.0, 3.0]]])
    y = torch.tensor([[[0, 1], [1, -100]]])
    found = outputs_of(Maps(), Split(x, y), runtime("cpu"))
    assert found.labels.tolist() == [0, 1, 1]
    assert found.right.tolist() == [True, True, False]
    assert found.scores.tolist() == [[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]]


def test_outputs_leave_the_network_as_it_is():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    split = Split(torch.randn(10, 3, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 4)
    one, other = (outputs_of(model, split, runtime("cpu"), batch_size=size) for size in (3, 10))
    assert torch.allclose(one.scores, other.scores, atol=1e-6)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_outputs_need_classes_and_answers():
    split = Split(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="cross-entropy needs scores of at least two classes"):
        outputs_of(nn.Linear(3, 1), split, runtime("cpu"))
    with pytest.raises(ValueError, match="without answers"):
        outputs_of(nn.Linear(3, 2), Split(torch.zeros(2, 3), torch.tensor([-100, -100])), runtime("cpu"))
