"""An accuracy is a share of what the judge counted: labels of any shape, ignored ones, judges of one's own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsight import Data, Split, cross_entropy, execute, run
from sparsight.recipes import lottery
from sparsight.train.batches import batches
from sparsight.train.evaluate import Worth, evaluate
from sparsight.train.judges import classify
from sparsight.train.metric import ACCURACY
from sparsight.train.parallel import runtime

CPU = runtime("cpu")


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def worth(x: Tensor, y: Tensor, judge=classify, batch_size: int = 1000) -> Worth:
    """Of a network that puts out `x`."""
    return evaluate(nn.Identity(), Split(x, y), judge, CPU, batch_size=batch_size)


def by_hand(x: Tensor, y: Tensor) -> tuple[float, float, int]:
    """(accuracy, mean loss, labels that count), one label after the other, in plain Python."""
    right, loss, counted = 0, 0.0, 0
    for place in itertools.product(*(range(n) for n in y.shape)):
        label = int(y[place])
        if label == -100:
            continue
        row = [float(v) for v in x[(place[0], slice(None), *place[1:])]]
        right += row.index(max(row)) == label
        loss += math.log(sum(math.exp(v) for v in row)) - row[label]
        counted += 1
    return right / counted, loss / counted, counted


class TestLabels:
    @pytest.mark.parametrize("shape", [(), (7,), (4, 5), (2, 3, 2)], ids=["classes", "tokens", "pixels", "voxels"])
    @pytest.mark.parametrize("ignored", [False, True])
    def test_every_label_that_counts_is_counted_once(self, shape, ignored):
        x, y = scores(11, 3, *shape), labels(11, *shape)
        if ignored:
            y = torch.where(torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.3, -100, y)
        found, (accuracy, loss, counted) = worth(x, y, batch_size=4), by_hand(x, y)
        assert (found.accuracy, found.samples) == (accuracy, counted)
        assert found.loss == pytest.approx(loss, rel=1e-5)
        assert found.loss == pytest.approx(float(functional.cross_entropy(x, y)), rel=1e-5)

    def test_labels_of_samples_give_the_bits_that_a_plain_sum_gives(self):
        x, y = scores(1234, 10), labels(1234, classes=10)
        total, right = 0.0, 0
        for a, b in batches(Split(x, y), 100):
            total += float(functional.cross_entropy(a, b, reduction="sum"))
            right += int((a.argmax(1) == b).sum())
        assert worth(x, y, batch_size=100) == Worth({"loss": total / 1234, "accuracy": right / 1234}, ACCURACY, 1234)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
    def test_any_integer_dtype(self, dtype):
        x, y = scores(9, 2, 4), labels(9, 4, classes=2)
        assert worth(x, y.to(dtype)) == worth(x, y)
        assert torch.equal(cross_entropy(nn.Identity(), (x, y.to(dtype))), functional.cross_entropy(x, y))

    @pytest.mark.parametrize("softness", [0.0, 0.2])
    def test_class_probabilities_count_by_the_most_likely_class(self, softness):
        x, y = scores(9, 3, 4), labels(9, 4)
        soft = functional.one_hot(y, 3).movedim(-1, 1) * (1 - softness) + softness / 3
        found = worth(x, soft)
        assert (found.accuracy, found.samples) == (worth(x, y).accuracy, 36)
        assert found.loss == pytest.approx(float(functional.cross_entropy(x, soft)), rel=1e-5)

    def test_a_batch_without_a_label_that_counts_is_passed_over(self):
        x, y = scores(8, 3), labels(8)
        ignored = torch.cat((torch.full((4,), -100), y[4:]))
        assert worth(x, ignored, batch_size=4) == worth(x[4:], y[4:], batch_size=4)

    @pytest.mark.parametrize(
        ("x", "y", "words"),
        [
            (scores(6, 1), scores(6, 1), r"at least two classes, got .* \(6, 1\).*binary-cross-entropy"),
            (scores(6), scores(6), r"at least two classes, got an output of shape \(6,\)"),
            (scores(6, 3), scores(6), r"\(6,\) and torch.float32 do not fit.*shape \(6,\) or probabilities.*\(6, 3\)"),
            (scores(6, 3), labels(6, 2), r"\(6, 2\) and torch.int64 do not fit an output of shape \(6, 3\)"),
            (scores(6, 5, 3), labels(6, 4), r"classes in dimension 1: expected class indices of shape \(6, 3\)"),
            (scores(6, 3), torch.full((6,), 255), "0 to 2 for a network with 3 classes.*255 is out of bounds"),
            (scores(6, 1, 2), torch.ones(6, 2).int(), "with 1 classes.*1 is out of bounds; .*binary-cross-entropy"),
            (scores(6, 3, 2), torch.full((6, 2), -1), "or -100 to be ignored: .*-1 is out of bounds"),
        ],
    )  # fmt: skip
    def test_labels_that_do_not_fit_are_refused_by_loss_and_judge_alike(self, x, y, words):
        with pytest.raises(ValueError, match=words):
            worth(x, y)
        with pytest.raises(ValueError, match=words):
            cross_entropy(nn.Identity(), (x, y))

    def test_numbers_to_predict_are_no_probabilities(self):
        with pytest.raises(ValueError, match=r"accuracy needs class indices.*torch.float32 labels.*\(6, 3\)"):
            worth(scores(6, 3), scores(6, 3, seed=5))
        with pytest.raises(ValueError, match="accuracy needs class indices"):
            worth(scores(6, 3), torch.ones(6, 3))  # several classes at once

    def test_a_network_that_returns_no_tensor_is_refused(self):
        class Two(nn.Module):
            def forward(self, x):
                return {"boxes": x}

        with pytest.raises(ValueError, match=r"as tensors, got dict and Tensor; .*own loss\(model, batch\) and judge"):
            evaluate(Two(), Split(scores(4, 3), labels(4)), classify, CPU)


def images_instead_of_pixels(model, batch):
    x, y = batch
    return torch.zeros(()), (model(x).argmax(1) == y).sum(), len(y)


class Fixed:
    """A judge that returns the same for every batch."""

    def __init__(self, *returned) -> None:
        self.returned = returned

    def __call__(self, model, batch):
        return self.returned


class TestJudge:
    def test_one_that_counts_pixels_and_divides_by_images_is_refused_by_its_name(self):
        x, y = scores(4, 2, 8, 8), labels(4, 8, 8, classes=2)
        hits = int((x.argmax(1) == y).sum())
        with pytest.raises(ValueError, match=f"images_instead_of_pixels must.*has {hits} of 4 right.*in \\[0, 1\\]"):
            worth(x, y, images_instead_of_pixels)
        with pytest.raises(ValueError, match="images_instead_of_pixels"):
            worth(x, y, functools.partial(images_instead_of_pixels))

    @pytest.mark.parametrize(
        ("returned", "words"),
        [
            ((0.0, 98.5, 4), "has 98.5 of 4 right, an accuracy of 24.62, but an accuracy must be in"),
            ((0.0, -1, 4), "has -1 of 4 right"),
            ((0.0, math.nan, 4), "has nan of 4 right"),
            ((0.0, 1, 0), "has 1 of 0 right"),
            ((0.0, 1, 2.5), "is 2.5, not a whole number"),
            ((0.0, 1, -4), "is -4, not a whole number"),
            ((0.0, 1, math.inf), "is inf, not a whole number"),
            ((0.0, 0, 0), "counted no answer in 1 batches"),
            ((0.0, 1), r"must return \(summed loss, right answers, number of answers\).*: got \(0.0, 1\)"),
            ((0.0, torch.ones(4), 4), r"accuracy holds a Tensor of shape \(4,\), not a single number"),
            ((None, 1, 4), "loss holds a NoneType"),
        ],
    )
    def test_what_is_no_share_is_refused(self, returned, words):
        with pytest.raises(ValueError, match=f"the judge Fixed.*{words}"):
            worth(scores(4, 3), labels(4), Fixed(*returned))

    def test_a_batch_beyond_all_is_seen_behind_a_fair_mean(self):
        def judge(model, batch):
            return 0.0, (9 if float(batch[0][0]) == 0 else 0), len(batch[0])

        with pytest.raises(ValueError, match="batch 1 has 9 of 5 right, an accuracy of 1.8"):
            worth(torch.arange(10.0), labels(10), judge, batch_size=5)

    def test_plain_numbers_and_tensors_are_alike(self):
        found = Worth({"loss": 0.5, "accuracy": 0.75}, ACCURACY, 4)
        for right in (3, 3.0, torch.tensor(3), torch.tensor([3.0])):
            assert worth(scores(4, 3), labels(4), Fixed(2, right, torch.tensor(4))) == found
        assert worth(scores(4, 3), labels(4), Fixed(0, 0, 4)).accuracy == 0.0
        assert worth(scores(4, 3), labels(4), Fixed(0, 4, 4)).accuracy == 1.0

    def test_an_infinite_loss_is_told_as_it_is(self):
        assert worth(scores(4, 3), labels(4), Fixed(math.inf, 1, 4)).loss == math.inf

    def test_all_labels_ignored(self):
        with pytest.raises(ValueError, match=r"judge classify counted no answer in 2 batches.*labels other than -100"):
            worth(scores(8, 3), torch.full((8,), -100), batch_size=4)


def pixels() -> Data:
    x = scores(24, 3, 6, 6)
    y = (x.sum(1) > 0).long()
    y[:, 0] = -100  # a border that nobody has labelled
    return Data(name="pixels", train=Split(x, y), validation=Split(x[:16], y[:16]), test=Split(x[16:], y[16:]))


def test_a_run_on_label_maps_reports_the_share_of_pixels(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    recipe, data = lottery(rate=0.5, levels=1, epochs=2, batch_size=8, control=False), pixels()
    outcome = execute(recipe, model=model, data=data, out=tmp_path / "run", device="cpu")
    levels = list(run(recipe, model, data, device="cpu"))
    for level, stored in zip(levels, outcome.levels, strict=True):
        model.load_state_dict(level.weights)
        with torch.no_grad():
            right = (model(data.validation.x).argmax(1) == data.validation.y).sum() / (16 * 30)
        assert stored.validation_accuracy == pytest.approx(float(right), abs=1e-6)
        assert 0.5 < stored.validation_accuracy <= 1
    assert outcome.evaluation is not None
    assert [e.samples for e in outcome.evaluation.entries] == [8 * 30, 8 * 30]


def test_a_run_ends_with_the_name_of_a_judge_that_finds_no_share():
    recipe = dataclasses.replace(lottery(levels=1, epochs=1, control=False), judge=images_instead_of_pixels)
    model = nn.Conv2d(3, 2, 1)
    with pytest.raises(ValueError, match="the judge images_instead_of_pixels must return"):
        list(run(recipe, model, pixels(), device="cpu"))
