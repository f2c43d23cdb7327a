"""Arranges tensors by the groups of a scope: a row per output unit, or an expert at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsight.numerics.select import check_scores
from sparsight.types import Allocation, Layout, Masks, Scope, Scored, Scores

_PLAIN = Layout()


@dataclass(frozen=True, eq=False)
class Rows:
    """Moves output units of tensors to dimension 0, and back. Made by `rows_of`."""

    layouts: Mapping[str, Layout]  # of tensors with another layout
    masks: Masks

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.layouts[name].rows(x) if name in self.layouts else x for name, x in tensors.items()}

    def back(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: self.layouts[name].back(x, self.masks[name].shape) if name in self.layouts else x
            for name, x in tensors.items()
        }


def rows_of(scores: Scores, masks: Masks) -> Rows:
    """The `Rows` of the scores' `layouts`, by default with output units along dimension 0."""
    known = scores.layouts if isinstance(scores, Scored) else {}
    layouts = {name: known.get(name, _PLAIN) for name in masks}
    return Rows({n: at for n, at in layouts.items() if at.swapped or at.stacked or masks[n].dim() < 2}, masks)


def in_groups(plan: Callable[[Scores, Masks], Allocation], scores: Scores, masks: Masks, scope: Scope) -> Allocation:
    """`plan(scores, masks)` with output units as rows (neuron scope), or each expert as a tensor (layer scope).

    Groups are named "name[unit]" and "name[expert]". Raises: as `check_scores`.
    """
    check_scores(scores, masks)
    rows = rows_of(scores, masks)
    if scope == "neuron" and rows.layouts:
        found = plan(rows.of(scores), rows.of(masks))
        return dataclasses.replace(found, masks=rows.back(found.masks))
    stacked = {name for name, layout in rows.layouts.items() if layout.stacked}
    if scope == "layer" and stacked:
        found = plan(_experts(scores, stacked), _experts(masks, stacked))
        return dataclasses.replace(found, masks=_together(found.masks, masks, stacked))
    return plan(scores, masks)


def _experts(tensors: Mapping[str, Tensor], stacked: set[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, x in tensors.items():
        found |= {f"{name}[{i}]": one for i, one in enumerate(x)} if name in stacked else {name: x}
    return found


def _together(found: Masks, masks: Masks, stacked: set[str]) -> dict[str, Tensor]:
    return {
        name: torch.stack([found[f"{name}[{i}]"] for i in range(len(mask))]) if name in stacked else found[name]
        for name, mask in masks.items()
    }
