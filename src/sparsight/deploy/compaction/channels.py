"""Channels of activations: which belong together, which are constant, which are needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False)
class Value:
    """The channels of an activation, along dimension `axis`."""

    axis: int
    atoms: np.ndarray  # int: channels of one atom are removed together or not at all
    constant: np.ndarray  # float64: a channel's constant value; NaN: not known to be constant
    needed: np.ndarray = field(init=False)  # bool: whether any output depends on it, found from the end backwards

    def __post_init__(self) -> None:
        self.needed = np.zeros(len(self.atoms), bool)

    def pointwise(self, constant: np.ndarray) -> Value:
        """An activation with the same channels, each computed only from its own."""
        return Value(self.axis, self.atoms, constant)


@dataclass
class Atoms:
    """Sets of channels that must be removed together, and why some must stay."""

    parents: list[int] = field(default_factory=list)
    stay: dict[int, str] = field(default_factory=dict)  # by atom: why it must not be removed
    held: dict[int, str] = field(default_factory=dict)  # by atom: why a constant in it cannot be folded away

    def fresh(self, count: int) -> np.ndarray:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, atom: int) -> int:
        while self.parents[atom] != atom:
            self.parents[atom] = self.parents[self.parents[atom]]
            atom = self.parents[atom]
        return atom

    def roots(self, atoms: np.ndarray) -> np.ndarray:
        return np.array([self.root(atom) for atom in atoms.tolist()], dtype=np.int64)

    def join(self, first: Iterable[int], second: Iterable[int]) -> None:
        """Each with its partner."""
        for a, b in zip(first, second, strict=True):
            a, b = self.root(a), self.root(b)
            if a != b:
                self.parents[max(a, b)] = min(a, b)

    def note(self, reasons: dict[int, str], atoms: np.ndarray, why: str) -> None:
        for atom in atoms.tolist():
            reasons.setdefault(atom, why)

    def removable(self, values: Iterable[Value]) -> set[int]:
        """The roots of sets without a channel that is needed or must stay.

        Each activation keeps at least one channel, because torch has no empty convolutions.
        """
        values = list(values)
        used = {self.root(atom) for atom in self.stay}
        for value in values:
            used.update(self.roots(value.atoms[value.needed]).tolist())
        removed = {self.root(atom) for value in values for atom in value.atoms.tolist()} - used
        for value in values:
            roots = self.roots(value.atoms).tolist()
            if roots and removed.issuperset(roots):
                removed.discard(roots[0])
        return removed

    def why(self, root: int, reasons: dict[int, str]) -> str | None:
        return next((why for atom, why in reasons.items() if self.root(atom) == root), None)
