"""The PQ index, its bound and its counts, slowly: mpmath at 60 digits, straight from the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import mpmath
import torch

mp = mpmath.mp.clone()
mp.dps = 60


def alive(x: torch.Tensor, mask: torch.Tensor | None = None) -> list[mpmath.mpf]:
    """Magnitudes of the kept entries, exactly as stored, in logical order."""
    values = x.detach().to(torch.float64).flatten().tolist()
    kept = [True] * len(values) if mask is None else mask.flatten().tolist()
    return [mp.mpf(abs(v)) for v, k in zip(values, kept, strict=True) if k]


def power_sum(w: Sequence[mpmath.mpf], e: float) -> mpmath.mpf:
    """sum |w_i|^e."""
    return mp.fsum(v ** mp.mpf(e) if v else mp.mpf(0) for v in w)


def pq_index(w: Sequence[mpmath.mpf], p: float, q: float) -> mpmath.mpf:
    """1 - d^(1/q - 1/p) ||w||_p / ||w||_q; 0 where it is undefined."""
    if not any(w):
        return mp.mpf(0)
    p, q = mp.mpf(p), mp.mpf(q)
    norm_p, norm_q = power_sum(w, p) ** (1 / p), power_sum(w, q) ** (1 / q)
    return 1 - mp.mpf(len(w)) ** (1 / q - 1 / p) * norm_p / norm_q


def retained_bound(d: int, index: float, p: float, q: float, eta: float) -> mpmath.mpf:
    """d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))."""
    p, q = mp.mpf(p), mp.mpf(q)
    return d * (1 + mp.mpf(eta)) ** (-q / (q - p)) * (1 - mp.mpf(index)) ** (p * q / (q - p))


def effective_count(w: Sequence[mpmath.mpf], p: float, q: float) -> mpmath.mpf:
    """Hill number of order q/p of pi_i = |w_i|^p / sum |w|^p; exp(entropy) at p = q; d where there is no mass."""
    if not any(w):
        return mp.mpf(len(w))
    if p == q:
        s = power_sum(w, q)
        shares = [v ** mp.mpf(q) / s for v in w if v]
        return mp.exp(-mp.fsum(a * mp.log(a) for a in shares))
    order, s = mp.mpf(q) / mp.mpf(p), power_sum(w, p)
    shares = [v ** mp.mpf(p) / s for v in w if v]
    return mp.fsum(a**order for a in shares) ** (1 / (1 - order))


def prune_count(d: int, r: float, gamma: float, beta: float) -> int:
    """floor(min(gamma (d - r), beta d)) in [0, d], with the snap to the nearest integer, in fractions.

    gamma and beta stand for the decimals that were written, not for the nearest binary fractions.
    """
    gamma_, beta_ = Fraction(str(gamma)), Fraction(str(beta))
    t = min(gamma_ * (d - Fraction(r)), beta_ * d)
    near = round(t)
    c = near if abs(t - near) <= Fraction(1, 10**9) * max(1, d) else t.__floor__()
    return min(max(c, 0), d)


def gradient(w: Sequence[float], p: float, q: float) -> list[mpmath.mpf]:
    """dI/dw_i by central differences at 60 digits."""
    h, out = mp.mpf(10) ** -20, []
    for i in range(len(w)):
        up, down = [mp.mpf(v) for v in w], [mp.mpf(v) for v in w]
        up[i] += h
        down[i] -= h
        difference = pq_index([abs(v) for v in up], p, q) - pq_index([abs(v) for v in down], p, q)
        out.append(difference / (2 * h))
    return out
