"""Information and gradient flow, slowly: two passes, sums without rounding, networks and their gradients by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Vector = list[float]
Matrix = list[Vector]


def standardised(column: Sequence[float]) -> Vector:
    """(a - mean) / sd with population statistics; zeros where sd <= max(1e-12, 1e-6 rms)."""
    n = len(column)
    mean = math.fsum(column) / n
    sd = math.sqrt(math.fsum((a - mean) ** 2 for a in column) / n)
    rms = math.sqrt(math.fsum(a * a for a in column) / n)
    return [0.0] * n if sd <= max(1e-12, 1e-6 * rms) else [(a - mean) / sd for a in column]


def rho(parent: Matrix, child: Matrix) -> Matrix:
    """(1/N) sum_n z[n, i] z'[n, j], of samples times units each."""
    first, second = ([standardised(column) for column in zip(*rows, strict=True)] for rows in (parent, child))
    return [[math.fsum(a * b for a, b in zip(x, y, strict=True)) / len(x) for y in second] for x in first]


def reduced(matrix: Matrix, how: str) -> float:
    entries = [r for row in matrix for r in row]
    if how == "signed":
        return math.fsum(entries) / len(entries)
    if how == "abs":
        return math.fsum(map(abs, entries)) / len(entries)
    return math.sqrt(math.fsum(r * r for r in entries) / len(entries))


def frobenius(a: Matrix, b: Matrix | None = None) -> float:
    other = [[0.0] * len(row) for row in a] if b is None else b
    both = (pair for rows in zip(a, other, strict=True) for pair in zip(*rows, strict=True))
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in both))


def distance(a: Sequence[float], b: Sequence[float], norm: str) -> float:
    apart = [x - y for x, y in zip(a, b, strict=True)]
    if norm == "linf":
        return max(map(abs, apart))
    return math.hypot(*apart) / (math.hypot(*b) if norm == "relative" else 1.0)


def pooled(maps: Sequence[Sequence[Matrix]]) -> Matrix:
    """Samples of channels of height times width: the mean of each map."""
    return [[math.fsum(v for row in m for v in row) / (len(m) * len(m[0])) for m in channels] for channels in maps]


# -- networks: linear layers with an activation between them -----------------------------------------------------

ACTIVATIONS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "relu": (lambda v: max(v, 0.0), lambda v: float(v > 0)),
    "tanh": (math.tanh, lambda v: 1 - math.tanh(v) ** 2),
}


def forward(weights: Sequence[Matrix], biases: Sequence[Vector], x: Vector, act: str) -> tuple[Matrix, Matrix]:
    """Outputs of each layer before and after the activation; the last layer has none."""
    pre, post = [], []
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        out = [math.fsum([bias, *(v * a for v, a in zip(row, x, strict=True))]) for row, bias in zip(w, b, strict=True)]
        x = out if layer == len(weights) - 1 else [ACTIVATIONS[act][0](v) for v in out]
        pre.append(out)
        post.append(x)
    return pre, post


def gradients(
    weights: Sequence[Matrix], biases: Sequence[Vector], inputs: Matrix, labels: Sequence[int], act: str
) -> tuple[float, list[Matrix]]:
    """Mean cross-entropy, and its gradient with respect to every weight matrix, by the chain rule."""
    losses, sums = [], [[[[] for _ in row] for row in w] for w in weights]
    for x, label in zip(inputs, labels, strict=True):
        pre, post = forward(weights, biases, x, act)
        top = max(pre[-1])
        norm = math.fsum(math.exp(v - top) for v in pre[-1])
        losses.append(math.log(norm) + top - pre[-1][label])
        back = [math.exp(v - top) / norm - (k == label) for k, v in enumerate(pre[-1])]
        for layer in reversed(range(len(weights))):
            below = post[layer - 1] if layer else x
            for i, d in enumerate(back):
                for j, a in enumerate(below):
                    sums[layer][i][j].append(d * a)
            if layer:
                back = [
                    math.fsum(d * row[j] for d, row in zip(back, weights[layer], strict=True))
                    * ACTIVATIONS[act][1](pre[layer - 1][j])
                    for j in range(len(below))
                ]
    n = len(inputs)
    return math.fsum(losses) / n, [[[math.fsum(t) / n for t in row] for row in w] for w in sums]


def statistic(gradient: Matrix, mask: Sequence[Sequence[int]], what: str) -> float:
    g = [v * m for row, kept in zip(gradient, mask, strict=True) for v, m in zip(row, kept, strict=True)]
    alive = sum(map(sum, mask))
    if what in ("norm", "total"):
        square = math.fsum(v * v for v in g)
        return math.sqrt(square) if what == "norm" else square
    return math.fsum(map(abs, g)) / (len(g) if what == "mean_abs" else alive)
