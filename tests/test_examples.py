"""The examples run from end to end on tiny inputs."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks import classifier

from sparsight import load, load_into, load_masks, masks_from, verify

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_python_api(capsys):
    runpy.run_path(str(EXAMPLES / "python_api.py"), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out


def test_a_training_script(capsys):
    runpy.run_path(str(EXAMPLES / "training_script.py"), run_name="__main__")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "density  10.0%" in last
    assert float(last.split()[-1].rstrip("%")) > 90
    kept = sum(int(mask.sum()) for mask in masks_from("sparse.pt").values())
    assert kept == 740  # of 64 x 100 + 100 x 10


def test_a_folder_of_images(capsys):
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for name, bright in (("dark", 0), ("light", 120)):
        Path("images", name).mkdir(parents=True)
        for i in range(40):
            pixels = draw.integers(bright, bright + 120, (8, 8, 3), dtype=np.uint8)
            image.fromarray(pixels).save(Path("images", name, f"{i}.png"))
    with pytest.warns(UserWarning, match="uint8 images were scaled"):
        example("image_folder")["main"]("images", "out", epochs=3)
    pruned, sentence = capsys.readouterr().out.strip().splitlines()
    assert "(10.0 %) at validation accuracy 100.00 %" in pruned
    assert sentence.startswith("90.0 % of the prunable weights are zero; this file is ")
    assert load("out/packed.safetensors")


@pytest.mark.filterwarnings("ignore::sparsight.model.left_out.LeftOutWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_a_checkpoint_of_transformers(capsys):
    transformers = pytest.importorskip("transformers")
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "a"]
    Path("base").mkdir()
    Path("base", "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer("base/vocab.txt").save_pretrained("base")
    classifier().bert.save_pretrained("base")  # type: ignore[operator]
    draw = np.random.default_rng(0)
    with open("texts.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for _ in range(200):
            label = str(draw.choice(["good", "bad"]))
            table.writerow([" ".join(draw.permutation(["a", "film", "very", label])), label])
    example("transformers_classifier")["main"]("base", "texts.csv", "out", epochs=(2, 10), rate=5e-3)
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-2].startswith("accuracy on 40 held-out texts: dense ")
    assert " sparse 100.0%; always the most frequent label: " in said[-2]
    assert said[-1].startswith("90.0 % of the prunable weights are zero; this file is ")
    masks = load_masks("out/sparsight_masks.safetensors")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("out")
    assert model.config.id2label == {0: "bad", 1: "good"}
    verify(model, masks)
    other = type(model)(model.config)
    load_into("out/packed.safetensors", other)
    verify(other, masks)
    assert sum(int(m.sum()) for m in masks.values()) == round(0.1 * sum(m.numel() for m in masks.values()))
