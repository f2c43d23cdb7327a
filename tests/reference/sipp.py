"""SiPP, slowly, in float64 and loops: written from the definitions alone."""

from __future__ import annotations

import math

import numpy as np


def patches(x, kernel, stride, padding, dilation, mode="constant"):
    """All patches of one (C, H, W) input as rows: channel, then row, then column."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    padded = np.pad(x, ((0, 0), (ph, ph), (pw, pw)), mode=mode)
    _, height, width = padded.shape
    places = [(y, z) for y in range(0, height - dh * (kh - 1), sh) for z in range(0, width - dw * (kw - 1), sw)]
    inside = [(c, i, j) for c in range(len(x)) for i in range(kh) for j in range(kw)]
    return np.array([[padded[c, y + i * dh, z + j * dw] for c, i, j in inside] for y, z in places])


def sensitivities(weight, points, reduction="max"):
    """s (F, K) of the rows of `weight` for a list of points, each an array (P, K) of patches."""
    weight = np.asarray(weight, np.float64)
    out = np.zeros(weight.shape)
    for point in points:
        negative = any(value < 0 for row in point for value in row)
        for a in [np.maximum(point, 0), np.maximum(-point, 0)] if negative else [point]:
            for f, row in enumerate(weight):
                for k, w in enumerate(row):
                    shares = []
                    for patch in a:
                        z = sum(abs(v) * patch[j] for j, v in enumerate(row) if v * w > 0)
                        shares.append(abs(w) * patch[k] / z if z > 2**-23 else 0.0)
                    share = max(shares) if reduction == "max" else sum(shares) / len(shares)
                    out[f, k] = max(out[f, k], share)
    return out


def groups(weight, s):
    """(S, nnz) of all plus groups, then all minus groups."""
    weight, s = np.asarray(weight), np.asarray(s)
    halves = [np.where(sign * weight > 0, s, 0) for sign in (1, -1)]
    return np.concatenate([h.sum(1) for h in halves]), np.concatenate([(h != 0).sum(1) for h in halves])


def eps_rand(alpha, m, bound="reference"):
    v = alpha / (3 * m)
    return 0.5 * (v + math.sqrt(v * v + 6 * v)) if bound == "reference" else v / 2 + math.sqrt(v * v / 4 + 3 * v)


def share_out(alpha, full, weight, budget, bound="reference"):
    """Two nested bisections on the derivative, taken by differences: no closed form."""

    def fall(a, m):
        h = 1e-6 * m
        return (eps_rand(a, m - h, bound) - eps_rand(a, m + h, bound)) / (2 * h)

    def m_of(g, lam):
        low, high = 1e-9, float(full[g])
        if weight[g] * fall(alpha[g], high) >= lam:
            return high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if weight[g] * fall(alpha[g], middle) > lam else (low, middle)
        return low

    some = [g for g in range(len(alpha)) if full[g] > 0]
    low, high = -60.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        total = sum(m_of(g, math.exp(middle)) for g in some)
        low, high = (middle, high) if total > budget else (low, middle)
    return [m_of(g, math.exp(low)) if g in some else 0.0 for g in range(len(alpha))]


def expected_distinct(q, n):
    return sum(1 - (1 - p) ** n for p in q)


def least_draws(q, m):
    """The first N with ceil(E[distinct]) = m, by counting up."""
    if m <= 1:
        return m
    target, n = min(m, sum(p > 0 for p in q) - 1), 1
    while expected_distinct(q, n) <= target - 1 + 1e-9:
        n += 1
    return n
