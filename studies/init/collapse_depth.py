"""When does pruning at initialisation empty a layer? Predicted and measured, from the ordered phase to the chaotic.

A tanh MLP of 100 layers of width 100 is drawn at several (sigma_b, sigma_w), on the edge of chaos and off it, with 5
seeds each. Its weights are scored by SNIP on one batch of 100 Gaussian inputs; from the scores the density is read off
at which the first layer is empty, from their second moments it is predicted, and theorem 1 bounds it.

    python studies/init/collapse_depth.py [--depth 100] [--width 100] [--seeds 5] [--out studies/init]

Every row is written to collapse_depth.csv as it is found; a run that is started again goes on after the last one.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsight.measure.criticality import chi, edge_of_chaos, initialise_, theorem1_bound
from sparsight.pruning import conditioning
from sparsight.zoo import networks as zoo

OFF = ((0.05, 1.0), (0.2, 1.1), (0.2, 1.0), (0.3, 1.0), (1.0, 1.0), (0.05, 1.5), (0.2, 2.0))
FIELDS = (
    "sigma_b", "sigma_w", "chi", "seed", "measured_sparsity", "first_empty", "predicted_sparsity", "weakest",
    "theorem1_bound", "spread", "chi_of_moments",
)  # fmt: skip


def points() -> list[tuple[float, float]]:
    edges = [(b, edge_of_chaos(torch.tanh, sigma_b=b).sigma_w) for b in (0.0, 0.2)]
    return [*OFF, *edges]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def measure(sigma_b: float, sigma_w: float, seed: int, depth: int, width: int) -> dict[str, object]:
    model = zoo.mlp((width,), 10, hidden=(width,) * (depth - 1), activation=torch.tanh, seed=0)
    # double precision, for squared gradients span more than float32 has
    initialise_(model, sigma_w, sigma_b, seed=seed).double()
    g = torch.Generator().manual_seed(1000 + seed)
    batch = (torch.randn(100, width, generator=g).double(), torch.randint(0, 10, (100,), generator=g))
    # the classifier, a tenth of a layer, is not prunable here: theory has layers of one size
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters() if p.shape == (width, width)}
    found = conditioning(model, [batch], masks=masks, loss=loss, warn=False)
    at = chi(torch.tanh, sigma_w, sigma_b)
    return {
        "sigma_b": sigma_b,
        "sigma_w": sigma_w,
        "chi": at,
        "seed": seed,
        "measured_sparsity": 1 - found.measured_density,
        "first_empty": found.first_empty,
        "predicted_sparsity": 1 - found.critical_density,
        "weakest": found.weakest,
        "theorem1_bound": theorem1_bound(at, depth, width),
        "spread": found.spread,
        "chi_of_moments": found.chi,
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def run(path: Path, depth: int, width: int, seeds: int) -> list[dict[str, str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(float(r["sigma_b"]), float(r["sigma_w"]), int(r["seed"])) for r in rows_of(path)}
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        for sigma_b, sigma_w in points():
            for seed in range(seeds):
                if (sigma_b, sigma_w, seed) not in done:
                    writer.writerow(measure(sigma_b, sigma_w, seed, depth, width))
                    file.flush()
    return rows_of(path)


def summary(rows: list[dict[str, str]]) -> list[tuple[float, float, float, float, float, float, float, float]]:
    """(sigma_b, sigma_w, chi, mean and deviation measured, mean and deviation predicted, bound), by chi."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["sigma_b"], row["sigma_w"]), []).append(row)
    found = []
    for (sigma_b, sigma_w), group in groups.items():
        numbers = [[float(row[key]) for row in group] for key in ("measured_sparsity", "predicted_sparsity")]
        spread = [statistics.stdev(n) if len(n) > 1 else 0.0 for n in numbers]
        (measured, predicted), first = map(statistics.fmean, numbers), group[0]
        bound = float(first["theorem1_bound"])
        found.append(
            (float(sigma_b), float(sigma_w), float(first["chi"]), measured, spread[0], predicted, spread[1], bound)
        )
    return sorted(found, key=lambda row: row[2])


def draw(rows: list[tuple[float, ...]], path: Path, depth: int, width: int) -> None:
    sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "pictures"))
    import altair as alt
    from panels import chart, linear, lines, save

    names = ("measured", "predicted from the second moments", "upper bound of theorem 1 (1: says nothing)")
    points: list[dict[str, Any]] = [
        {"x": r[2], "y": r[i], "low": r[i] - r[i + 1], "high": r[i] + r[i + 1], "series": name, "dot": True, "run": k}
        for k, r in enumerate(rows) for i, name in zip((3, 5), names, strict=False)
    ]  # fmt: skip
    bound = [0.3 + 0.005 * i for i in range(240)]
    points += [{"x": c, "y": theorem1_bound(c, depth, width), "series": names[2]} for c in bound]
    x, y = linear(alt.X, "chi: below 1 ordered, above 1 chaotic"), "sparsity at which the first layer is empty"
    title = f"tanh MLP, {depth} layers of width {width}, pruned by SNIP: mean and deviation over seeds"
    edge = chart([{"x": 1}]).mark_rule(strokeDash=[2, 2], color="#444").encode(x=x)
    drawn = lines(points, x, linear(alt.Y, y, (0, 1.05)), names, dots="datum.dot", title=title) + edge
    save(drawn.properties(width=560, height=300), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = summary(run(asked.out / "collapse_depth.csv", asked.depth, asked.width, asked.seeds))
    print(f"{'sigma_b':>8} {'sigma_w':>8} {'chi':>7} {'measured':>17} {'predicted':>17} {'bound':>7}")
    for sigma_b, sigma_w, at, measured, dev, predicted, deviation, bound in rows:
        print(
            f"{sigma_b:8.2f} {sigma_w:8.4f} {at:7.4f} {measured:8.4f} +- {dev:5.4f} {predicted:8.4f} +- "
            f"{deviation:5.4f} {bound:7.4f}"
        )
    draw(rows, asked.out / "collapse_depth.svg", asked.depth, asked.width)


if __name__ == "__main__":
    main()
