"""Metrics: a name, and which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sparsight.numerics import format as words


@dataclass(frozen=True)
class Metric:
    """A number that compares networks. A share is in [0, 1], shown in percent and compared in percentage points."""

    name: str
    better: Literal["higher", "lower"] = "higher"
    share: bool = False

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise ValueError(f"better must be 'higher' or 'lower', got {self.better!r}")

    def worth(self, value: float | None) -> float:
        """The value, negated if lower is better: larger is always better. NaN for None."""
        return math.nan if value is None else value if self.better == "higher" else -value

    def allowed(self, reference: float, margin: float, relative: bool = False) -> float:
        """The worst value within `margin` of `reference`: points of a share, otherwise or if `relative`, percent."""
        step = margin / 100 * (abs(reference) if relative or not self.share else 1.0)
        return reference - step if self.better == "higher" else reference + step

    def text(self, value: float | None, digits: int = 2) -> str:
        """The value as text: a share in percent with `digits` decimals, otherwise four significant digits."""
        return words.accuracy(value, digits) if self.share or value is None else f"{value:.4g}"

    def difference(self, value: float, reference: float) -> str:
        """`value` relative to `reference` as text: "+0.50 points", or "+1.20 %"."""
        if self.share:
            return words.points(value - reference)
        return f"{100 * (value / reference - 1):+.2f} %" if reference else f"{value - reference:+.4g}"


ACCURACY = Metric("accuracy", share=True)
LOSS = Metric("loss", "lower")
PERPLEXITY = Metric("perplexity", "lower")
