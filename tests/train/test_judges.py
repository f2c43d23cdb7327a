from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from sparsight.model.batch import labels_of, predict
from sparsight.model.loss import binary_cross_entropy, cross_entropy, mae, mse, named_loss, task_loss
from sparsight.recipes import lottery
from sparsight.runs import adapted, run
from sparsight.train.evaluate import evaluate
from sparsight.train.judges import Accuracy, Auto, Error, Judged, Loss, Perplexity, named_judge
from sparsight.train.metric import ACCURACY, LOSS, PERPLEXITY, Metric
from sparsight.train.parallel import runtime
from sparsight.train.torch_metric import TorchMetric
from sparsight.types import Data, Split

CPU = runtime("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape: int, classes: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


class Output(dict):
    """An output like those of transformers: a dictionary with attributes."""

    __getattr__ = dict.get


class Classifier(nn.Module):
    """Takes a dictionary's entries by name, and computes its loss where labels are given."""

    def __init__(self, features: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, input_values, attention_mask=None, labels=None):
        scores = self.fc(input_values)
        return Output(logits=scores, loss=None if labels is None else functional.cross_entropy(scores, labels))


class Language(nn.Module):
    """A causal language model: its loss is that of the next token."""

    def __init__(self, words: int = 7) -> None:
        super().__init__()
        self.table = nn.Embedding(words, words)

    def forward(self, input_ids, labels=None):
        scores = self.table(input_ids)
        if labels is None:
            return Output(logits=scores)
        loss = functional.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return Output(logits=scores, loss=loss)


class Detector(nn.Module):
    """Knows nothing but its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, images, boxes):
        return {"loss": (self.fc(images) - boxes).abs().mean()}


def batches(x: torch.Tensor, y: torch.Tensor, key: str, size: int = 5) -> list[dict[str, torch.Tensor]]:
    """As a collator gives them, with an entry that the model does not take."""
    parts = zip(x.split(size), y.split(size), strict=True)
    return [{key: a, "labels": b, "idx": torch.arange(len(a))} for a, b in parts]


class TestDictionaries:
    def test_a_classifier_is_judged_by_accuracy(self):
        model, x, y = Classifier(), normal(12, 4), whole(12)
        found = evaluate(model, batches(x, y, "input_values"), Auto(), CPU)
        scores = model.fc(x).detach()
        assert found.metric == ACCURACY
        assert found.accuracy == float((scores.argmax(1) == y).double().mean())
        assert found.loss == pytest.approx(float(functional.cross_entropy(scores, y)), rel=1e-6)
        assert found.samples == 12

    def test_its_own_loss_is_minimised(self):
        model, x, y = Classifier(), normal(5, 4), whole(5)
        (batch,) = batches(x, y, "input_values")
        torch.testing.assert_close(task_loss(model, batch), functional.cross_entropy(model.fc(x), y))

    def test_label_goes_in_as_labels_where_the_model_calls_them_so(self):
        model, x, y = Classifier(), normal(5, 4), whole(5)
        assert predict(model, {"input_values": x, "label": y}).loss is not None
        assert labels_of({"input_values": x, "label": y}) is y

    def test_pairs_whose_input_is_a_dictionary(self):
        model, x, y = Classifier(), normal(6, 4), whole(6)
        batch = ({"input_values": x, "attention_mask": torch.ones(6, 4)}, y)
        torch.testing.assert_close(task_loss(model, batch), functional.cross_entropy(model.fc(x), y))
        assert evaluate(model, [batch], Auto(), CPU).metric == ACCURACY

    def test_a_language_model_is_judged_by_the_perplexity_of_the_next_token(self):
        model, ids = Language(), whole(6, 9, classes=7)
        labels = ids.clone()
        labels[:, :3] = -100
        found = evaluate(model, batches(ids, labels, "input_ids", 4), Auto(), CPU)
        right = functional.cross_entropy(model.table(ids)[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert found.metric == PERPLEXITY
        assert found.values["perplexity"] == pytest.approx(math.exp(right.item()), rel=1e-6)
        assert found.samples == 6 * 6
        assert evaluate(model, batches(ids, labels, "input_ids", 4), Perplexity(), CPU).values == found.values

    def test_tokens_of_the_same_places_where_the_models_loss_is_theirs(self):
        class Tagger(Language):
            def forward(self, input_ids, labels=None):
                scores = self.table(input_ids)
                return Output(logits=scores, loss=functional.cross_entropy(scores.flatten(0, 1), labels.flatten()))

        model, ids, tags = Tagger(), whole(4, 5, classes=7), whole(4, 5, classes=7, seed=3)
        scores = model.table(ids).detach().flatten(0, 1)
        right = functional.cross_entropy(scores, tags.flatten()).item()
        found = evaluate(model, batches(ids, tags, "input_ids"), Perplexity(), CPU)
        assert found.values["perplexity"] == pytest.approx(math.exp(right), rel=1e-6)
        found = evaluate(model, batches(ids, tags, "input_ids"), Auto(), CPU)
        assert found.metric == ACCURACY
        assert found.accuracy == float((scores.argmax(1) == tags.flatten()).double().mean())

    def test_a_model_that_returns_nothing_but_its_loss_is_judged_by_it(self):
        model, x, y = Detector(), normal(6, 4), normal(6, 4, seed=2)
        found = evaluate(model, [{"images": x[:4], "boxes": y[:4]}, {"images": x[4:], "boxes": y[4:]}], Auto(), CPU)
        assert found.metric == LOSS
        assert found.loss == pytest.approx((model.fc(x) - y).abs().mean().item(), rel=1e-6)
        assert found.accuracy is None

    def test_a_dictionary_of_which_the_model_takes_nothing(self):
        with pytest.raises(TypeError, match=r"Linear.forward accepts input.*holds image, label: give .* loss"):
            predict(nn.Linear(3, 2), {"image": normal(2, 3), "label": whole(2)})

    def test_a_loss_for_each_sample_is_refused(self):
        class Each(nn.Module):
            def forward(self, x):
                return {"loss": x}

        with pytest.raises(ValueError, match=r"one number, got shape \(4,\)"):
            task_loss(Each(), {"x": normal(4)})


class TestLabels:
    def test_classes_last_where_labels_fit_only_so(self):
        scores, y = normal(4, 6, 3), whole(4, 6)
        right = functional.cross_entropy(scores.flatten(0, 1), y.flatten())
        torch.testing.assert_close(cross_entropy(nn.Identity(), (scores, y)), right)

    def test_a_column_of_labels(self):
        scores, y = normal(5, 3), whole(5)
        assert cross_entropy(nn.Identity(), (scores, y[:, None])) == cross_entropy(nn.Identity(), (scores, y))

    @pytest.mark.parametrize("shape", [(6,), (6, 1)])
    @pytest.mark.parametrize("kind", [torch.float32, torch.int64, torch.bool])
    def test_single_scores_and_labels_of_0_and_1(self, shape, kind):
        scores, y = normal(*shape), whole(6, classes=2)
        found = evaluate(nn.Identity(), [(scores, y.to(kind))], Accuracy(), CPU)
        assert found.accuracy == float(((scores.flatten() > 0) == (y > 0)).double().mean())
        right = functional.binary_cross_entropy_with_logits(scores.flatten(), y.float())
        torch.testing.assert_close(binary_cross_entropy(nn.Identity(), (scores, y.to(kind))), right)

    def test_another_label_that_does_not_count(self):
        scores, y = normal(2, 3, 4, 4), whole(2, 4, 4)
        marked = y.clone()
        marked[:, 0] = 255
        found = evaluate(nn.Identity(), [(scores, marked)], Accuracy(ignore_index=255), CPU)
        assert found.accuracy == float((scores.argmax(1) == y)[:, 1:].double().mean())
        assert found.samples == 2 * 3 * 4


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "right"),
        [
            ("mse", lambda gap: gap.square().mean()),
            ("rmse", lambda gap: gap.square().mean().sqrt()),
            ("mae", lambda gap: gap.abs().mean()),
        ],
    )
    def test_of_a_regression(self, kind, right):
        x, y = normal(7, 2), normal(7, 2, seed=4)
        found = evaluate(nn.Identity(), Split(x, y), Error(kind), CPU, batch_size=3)
        assert found.metric == Metric(kind, "lower")
        assert found.values[kind] == pytest.approx(float(right(x - y)), rel=1e-6)
        assert found.samples == 14

    def test_targets_that_would_be_spread_out_are_refused(self):
        for loss in (mse, mae):
            with pytest.raises(ValueError, match=r"targets of shape \(6,\) do not fit an output of shape \(6, 6\)"):
                loss(nn.Identity(), (normal(6, 6), normal(6)))
        assert mse(nn.Identity(), (normal(6, 1), normal(6))) == functional.mse_loss(normal(6), normal(6))


class TestOwn:
    def test_a_named_metric_of_ones_own(self):
        def dice(model, batch):
            x, y = batch
            return {"dice": ((model(x) > 0).eq(y > 0).sum(), y.numel()), "loss": (0.0, 1)}

        judge = Judged(dice, (Metric("dice", "higher", share=True),))
        found = evaluate(nn.Identity(), Split(normal(8), normal(8, seed=3)), judge, CPU)
        assert found.metric.name == "dice"
        assert found.others == {"dice": float((normal(8) > 0).eq(normal(8, seed=3) > 0).double().mean())}

    def test_without_a_direction_it_is_refused(self):
        def dice(model, batch):
            return {"dice": (1.0, 2)}

        with pytest.raises(ValueError, match="judge dice measures dice but does not say .*way is better: .*Judged"):
            evaluate(nn.Identity(), [(normal(2), normal(2))], dice, CPU)

    @pytest.mark.parametrize(
        ("returned", "words"),
        [
            ({"dice": 3.0}, r"dice is 3.0, not \(sum, count\)"),
            ({}, "got {}"),
            ({"dice": (1.0, 2.5)}, "the count of dice in batch 1 is 2.5"),
        ],
    )
    def test_what_is_no_sum_and_count(self, returned, words):
        judge = Judged(lambda model, batch: returned, (Metric("dice"),))
        with pytest.raises(ValueError, match=words):
            evaluate(nn.Identity(), [(normal(2), normal(2))], judge, CPU)

    def test_batches_that_measure_different_things(self):
        judge = Judged(lambda model, batch: {str(len(batch[0])): (1.0, 1)}, (Metric("2"),))
        with pytest.raises(ValueError, match="batch 2 has the metrics 1, the first batch 2"):
            evaluate(nn.Identity(), Split(normal(3), normal(3)), judge, CPU, batch_size=2)

    def test_names(self):
        assert named_judge("rmse", mse) == Error("rmse")
        assert named_judge("loss", mse) == Loss(mse)
        assert named_loss("mae") is mae
        with pytest.raises(ValueError, match="metric must be one of auto, accuracy"):
            named_judge("f1", mse)
        with pytest.raises(ValueError, match="loss must be one of task"):
            named_loss("hinge")
        with pytest.raises(TypeError, match="metric must be"):
            named_judge(3, mse)


class Largest:
    """What torchmetrics gives a judge to work with, for the largest error: no mean of batches."""

    higher_is_better = False

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.worst = 0.0

    def clone(self) -> Largest:
        return Largest()

    def to(self, device) -> Largest:
        return self

    def update(self, predictions, targets) -> None:
        self.worst = max(self.worst, float((predictions - targets).abs().max()))

    def compute(self):
        return {"worst": torch.tensor(self.worst), "other": torch.tensor(0.0)}


class TestTorchMetrics:
    def test_a_value_that_is_no_mean(self):
        x, y = normal(20), normal(20, seed=5)
        found = evaluate(nn.Identity(), Split(x, y), TorchMetric(Largest(), key="worst"), CPU, batch_size=6)
        assert found.values == {"worst": float((x - y).abs().max())}
        assert (found.metric, found.samples) == (Metric("worst", "lower"), 20)

    def test_what_it_computes_must_be_named(self):
        with pytest.raises(ValueError, match="computes worst, other: set key to one of them"):
            evaluate(nn.Identity(), Split(normal(4), normal(4)), TorchMetric(Largest()), CPU)

    def test_one_that_does_not_know_its_direction(self):
        metric = Largest()
        metric.higher_is_better = None  # type: ignore[assignment]
        with pytest.raises(ValueError, match="Largest does not say which way is better"):
            TorchMetric(metric)
        assert TorchMetric(metric, better="lower", key="worst").metrics == (Metric("worst", "lower"),)

    def test_the_real_ones(self):
        classification = pytest.importorskip("torchmetrics.classification")
        judge = named_judge(classification.MulticlassF1Score(num_classes=3, average="macro"), mse)
        x, y = normal(50, 3), whole(50)
        found = evaluate(nn.Identity(), Split(x, y), judge, CPU, batch_size=7)
        hits = [((x.argmax(1) == c) & (y == c)).sum() for c in range(3)]
        f1 = [2 * h / ((x.argmax(1) == c).sum() + (y == c).sum()) for c, h in enumerate(hits)]
        assert found.values["MulticlassF1Score"] == pytest.approx(float(sum(f1) / 3), rel=1e-6)
        assert found.metric == Metric("MulticlassF1Score", "higher", share=True)


def test_a_judge_that_cannot_do_it_is_found_out_before_training():
    trained = []

    def loss(model, batch):
        trained.append(batch)
        return cross_entropy(model, batch)

    data = Data(name="mine", train=Split(normal(40, 4), whole(40)), validation=Split(normal(20, 4), whole(20)))
    recipe = adapted(lottery(levels=1, epochs=1, batch_size=10), loss=loss, metric="perplexity")
    with pytest.raises(ValueError, match=r"perplexity needs scores \[N, T, V\] and token labels"):
        next(run(recipe, nn.Linear(4, 3), data))
    assert not trained


class TestMetric:
    def test_margins(self):
        assert ACCURACY.allowed(0.9, 2) == pytest.approx(0.88)
        assert ACCURACY.allowed(0.9, 2, relative=True) == pytest.approx(0.882)
        assert PERPLEXITY.allowed(20.0, 5) == pytest.approx(21.0)

    def test_worth_and_words(self):
        assert PERPLEXITY.worth(3.0) == -3.0
        assert math.isnan(ACCURACY.worth(None))
        assert ACCURACY.text(0.8938) == "89.38 %"
        assert PERPLEXITY.text(20.12345) == "20.12"
        assert ACCURACY.difference(0.89, 0.9) == "-1.00 points"
        assert PERPLEXITY.difference(22.0, 20.0) == "+10.00 %"

    def test_direction(self):
        with pytest.raises(ValueError, match="'higher' or 'lower', got 'up'"):
            Metric("x", "up")  # type: ignore[arg-type]


# -- networks and batches that say nothing -------------------------------------------------------------------------


class Says(nn.Module):
    """Returns the same output for every input."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


def test_scores_that_are_not_numbers_are_never_right():
    nan = torch.full((4, 3), torch.nan)
    partly = torch.tensor([[0.0, torch.nan, 9.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [9.0, 0.0, 0.0]])
    for scores, y, right in (
        (nan, torch.zeros(4).long(), 0),
        (partly, torch.tensor([1, 0, 1, 2]), 2),
        (torch.full((4,), torch.nan), torch.zeros(4), 0),
    ):
        for judge in (Accuracy(),) if scores.dim() == 1 else (Accuracy(), Auto()):
            assert evaluate(Says(scores), [(torch.zeros(4, 1), y)], judge, CPU).accuracy == right / 4


def test_the_perplexity_of_a_broken_network_is_infinite():
    scores = torch.zeros(2, 3, 4)
    scores[..., 0] = 5_000
    found = evaluate(Says(scores), [(torch.zeros(2, 3), torch.ones(2, 3).long())], Perplexity(), CPU)
    assert found.values["perplexity"] == math.inf
    assert found.loss == 5_000


class Tagger(Language):
    """Labels belong to the same tokens."""

    def forward(self, input_ids, labels=None):
        scores = self.table(input_ids)
        return Output(logits=scores, loss=functional.cross_entropy(scores.flatten(0, 1), labels.flatten()))


@pytest.mark.parametrize("model", [Tagger, Language])
@pytest.mark.parametrize("first", [True, False])
def test_a_batch_without_labels_does_not_change_the_metrics(model, first):
    x = whole(2, 5, classes=7)
    told = {"input_ids": x, "labels": whole(2, 5, classes=7, seed=2)}
    silent = {"input_ids": x, "labels": torch.full((2, 5), -100)}
    torch.manual_seed(0)
    network = model()
    expected = evaluate(network, [told], Auto(), CPU)
    assert evaluate(network, [silent, told] if first else [told, silent], Auto(), CPU) == expected


def test_a_network_that_does_not_fit_the_data_is_found_out_before_training():
    data = Data(name="mine", train=Split(normal(40, 4), whole(40)), validation=Split(normal(20, 4), whole(20)))
    said = r"Linear and the judge Auto do not fit the data, .* \(20, 4\) torch.float32, \(20,\) torch.int64: mat1"
    with pytest.raises(ValueError, match=said):
        next(run(lottery(levels=1, epochs=1), nn.Linear(5, 3), data))
