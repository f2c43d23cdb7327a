"""How often the intervals cover, the bounds hold, and Holm errs: 10,000 simulations of each.

    python studies/coverage/coverage.py          # writes coverage.json; two minutes of one core
    python studies/coverage/coverage.py --check  # compares coverage.json with what each row promises

What is called is what users call: `sparsight.compare`. A row is one place; seeds are fixed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparsight.compare import (
    Candidate,
    difference,
    fronts,
    lower_bound,
    mean,
    paired,
    paired_shares,
    ranking,
    sparsest_within,
    wilson,
)

TIMES = 10_000
RESULT = Path(__file__).with_name("coverage.json")
Generator = np.random.Generator
Trial = Callable[[Generator], bool]


def main() -> int:
    if "--check" in sys.argv[1:]:
        return check(json.loads(RESULT.read_text()))
    rows = [measured(i, *case, TIMES) for i, case in enumerate(cases())]
    RESULT.write_text(json.dumps({"simulations": TIMES, "rows": rows}, indent=1) + "\n")
    return check({"rows": rows})


def measured(i: int, what: str, where: str, promise: tuple[float, float], trial: Trial, times: int) -> dict[str, Any]:
    """The share of the trials that came out true, with its Monte Carlo error (one standard error)."""
    rng = np.random.default_rng([24, i])
    share = sum(trial(rng) for _ in range(times)) / times
    error = math.sqrt(share * (1 - share) / times)
    return {"what": what, "where": where, "promised": list(promise), "found": share, "error": round(error, 5)}


def check(found: dict[str, Any]) -> int:
    """1 if a row is outside what it promises."""
    wrong = 0
    for row in found["rows"]:
        low, high = row["promised"]
        fine = low <= row["found"] <= high
        wrong += not fine
        print(f"{'ok   ' if fine else 'WRONG'} {100 * row['found']:6.2f} %  {row['what']}: {row['where']}")
    return int(wrong > 0)


# -- places --------------------------------------------------------------------------------------------------------

BOTH, BOUND, ERROR = (0.94, 0.96), (0.94, 1.0), (0.0, 0.05)


def cases() -> Iterator[tuple[str, str, tuple[float, float], Trial]]:
    for n in (2, 3, 5, 10):
        yield "t interval of a mean", f"{n} seeds, normal", BOTH, lambda rng, n=n: t_of_a_mean(rng, n)
    yield "t interval of a mean", "5 seeds, accuracies counted on 1,000 samples", BOTH, t_of_accuracies
    for n in (3, 5, 10):
        yield "paired t", f"{n} seeds, seeds vary 5 times as much as methods", BOTH, lambda rng, n=n: paired_t(rng, n)
    yield "paired t", "5 seeds, two networks on the same 1,000 samples", BOTH, paired_accuracies
    for n in (3, 5):
        yield "one-sided bound", f"{n} seeds, normal", BOUND, lambda rng, n=n: bound(rng, n)
    for n in (100, 1000, 10_000):
        yield "Wilson", f"{n:,} answers, accuracies 50 to 99 %", BOUND, lambda rng, n=n: of_wilson(rng, n)
    yield "Newcombe, as if of other samples", "1,000 answers each", BOUND, newcombe
    for n in (100, 1000, 10_000):
        what = f"the same {n:,} samples, 1 to 20 % answered differently"
        yield "shares on the same samples", what, BOUND, lambda rng, n=n: same_samples(rng, n)
    yield "sparsest within a margin", "7 levels, 5 seeds: not too sparse", BOUND, sparsest
    for k in (3, 6, 10):
        yield (
            "Holm: any pair wrongly told apart", f"{k} equal methods, 5 seeds", ERROR, lambda rng, k=k: family(rng, k)
        )  # fmt: skip
    yield "Holm: any pair wrongly told apart", "2 groups of 3 equal methods, 5 seeds", ERROR, two_groups
    yield "front: any equal candidate put behind", "6 candidates, 5 seeds", ERROR, front


def t_of_a_mean(rng: Generator, n: int) -> bool:
    return covers(mean(rng.normal(0.3, 1.0, n).tolist()), 0.3)


def t_of_accuracies(rng: Generator) -> bool:
    share = rng.normal(0.88, 0.004, 5).clip(0, 1)
    return covers(mean((rng.binomial(1000, share) / 1000).tolist()), 0.88)


def paired_t(rng: Generator, n: int) -> bool:
    shared, a, b = rng.normal(0, 5, n), rng.normal(0.2, 1, n), rng.normal(0, 1, n)
    return covers(paired(dict(enumerate(a + shared)), dict(enumerate(b + shared))), 0.2)


def paired_accuracies(rng: Generator) -> bool:
    """Two networks that both err where the sample is hard; the true difference is 0.02."""
    a, b = {}, {}
    for seed in range(5):
        hard = rng.random(1000)
        a[seed] = float((hard < 0.88 + rng.normal(0, 0.004)).mean())
        flipped = rng.random(1000) < 0.05
        b[seed] = float(np.where(flipped, rng.random(1000) < 0.86, hard < 0.86 + rng.normal(0, 0.004)).mean())
    return covers(paired(a, b), 0.02)


def bound(rng: Generator, n: int) -> bool:
    found = lower_bound(rng.normal(0.3, 1.0, n).tolist())
    return found is not None and found <= 0.3


def of_wilson(rng: Generator, n: int) -> bool:
    share = rng.uniform(0.5, 0.99)
    low, high = wilson(rng.binomial(n, share) / n, n)
    return low <= share <= high


def newcombe(rng: Generator) -> bool:
    a, b = rng.uniform(0.5, 0.99, 2)
    low, high = difference(rng.binomial(1000, a) / 1000, rng.binomial(1000, b) / 1000, 1000)
    return low <= a - b <= high


def same_samples(rng: Generator, n: int) -> bool:
    apart = rng.uniform(0.01, 0.2)
    only_a = rng.uniform(0, apart)
    counts = rng.multinomial(n, [only_a, apart - only_a, 1 - apart])
    low, high = paired_shares(int(counts[0]), int(counts[1]), n)
    return low <= 2 * only_a - apart <= high


def sparsest(rng: Generator) -> bool:
    """Accuracy falls slowly, and from the fifth level on just below the margin: is no such level taken?"""
    lost = {1.0: 0.0, 0.8: -0.0005, 0.6: 0.0, 0.4: -0.002, 0.2: -0.0051, 0.1: -0.006, 0.05: -0.02}
    dense = rng.normal(0, 0.003, 5)
    bounds = {x: lower_bound((mu + rng.normal(0, 0.001, 5) - 0.3 * dense).tolist()) for x, mu in lost.items()}
    found = sparsest_within(bounds, 0.005).density
    return found is None or found >= 0.4


def family(rng: Generator, k: int) -> bool:
    shared = rng.normal(0, 3, 5)
    return any(pair.better for pair in ranking(equal(rng, k, shared, 0.0)).pairs)


def two_groups(rng: Generator) -> bool:
    """Is any pair inside a group told apart? Between the groups the difference is true."""
    shared = rng.normal(0, 3, 5)
    high = {f"high {name}": of for name, of in equal(rng, 3, shared, 4.0).items()}
    found = ranking({**equal(rng, 3, shared, 0.0), **high})
    return any(pair.better for pair in found.pairs if pair.a.startswith("high") == pair.b.startswith("high"))


def front(rng: Generator) -> bool:
    shared = rng.normal(0, 3, 5)
    made = [Candidate(name, float(i), of) for i, (name, of) in enumerate(equal(rng, 6, shared, 0.0).items())]
    return "behind" in fronts(made).values()


def equal(rng: Generator, k: int, shared: np.ndarray, level: float) -> dict[str, dict[int, float]]:
    """Settings of one true value, by seed."""
    return {str(i): dict(enumerate((level + shared + rng.normal(0, 1, 5)).tolist())) for i in range(k)}


def covers(found: Any, truth: float) -> bool:
    low, high = found.interval
    return low <= truth <= high


if __name__ == "__main__":
    sys.exit(main())
