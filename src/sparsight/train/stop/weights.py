"""Rules on the weights alone: stable PQ index, stable mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsight.measure.pq import pq_index
from sparsight.model.batch import batch_size
from sparsight.model.names import named
from sparsight.numerics.checks import check_positive, check_whole
from sparsight.train.observation import Observation
from sparsight.train.stop.context import Context, StoppingRule
from sparsight.train.stop.thresholds import changes, less, recorded
from sparsight.types import Masks, StateDict


@dataclass(frozen=True)
class PQIStable(StoppingRule):
    """Stop if the PQ index (p, q) of all alive weights changes by less than `tol`, `patience` evaluations in a row.

    |I_t - I_(t-1)| < tol. Costs one pass over the weights.
    """

    p: float = 0.5
    q: float = 1.0
    tol: float = 1e-3
    patience: int = 2

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)
        check_whole(1, patience=self.patience)
        if not 0 < self.p < self.q:
            raise ValueError(f"p and q must satisfy 0 < p < q, got p={self.p!r}, q={self.q!r}")

    @property
    def name(self) -> str:
        return f"PQ index ({self.p:g}, {self.q:g})"

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        parameters = named(context.model)
        alive = {name: parameters[name].detach() for name in context.masks}
        index = float(pq_index(alive, self.p, self.q, mask=dict(context.masks)))
        change = changes([*recorded(context.history[-1:], f"value:{self.name}"), index])[-1]
        shown = {} if math.isnan(change) else {f"distance:{self.name}, change": change}
        return {f"value:{self.name}": index, **shown, f"threshold:{self.name}, change": self.tol}, memory

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = changes(recorded(history, f"value:{self.name}"))
        return less(found, self.tol, self.patience, f"the {self.name} changed by")


@dataclass(frozen=True)
class MaskStable(StoppingRule):
    """Stop if pruning now would give almost the same mask as at the previous evaluation.

    Jaccard distance of the kept sets, 1 - |A and B| / |A or B| < tol, `patience` evaluations in a row. The masks come
    from the recipe's scorer and the next level's rounds, on the current weights. Never stops if those rounds are
    unknown. The memory holds the last mask.
    """

    tol: float = 0.02
    patience: int = 2

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)
        check_whole(1, patience=self.patience)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"examples"})

    def measure(self, context: Context, memory: StateDict) -> tuple[Mapping[str, float], StateDict]:
        if context.score is None or not context.rounds:
            return {}, memory
        now = next_masks(context)
        kept = {f"mask:{name}": mask for name, mask in now.items()}
        before = {
            name: memory[f"mask:{name}"].to(mask.device) for name, mask in now.items() if f"mask:{name}" in memory
        }
        shown = {DISTANCE: jaccard_distance(now, before)} if before else {}
        return {**shown, f"threshold:{DISTANCE.partition(':')[2]}": self.tol}, {**memory, **kept}

    def stop(self, history: Sequence[Observation]) -> str | None:
        found = recorded(history, DISTANCE)
        return less(found, self.tol, self.patience, "the next mask changed by", " (Jaccard)")


DISTANCE = "distance:mask to be cut"  # part of run records


def next_masks(context: Context) -> Masks:
    """The masks that scorer and rounds would make from the current weights."""
    if "masks" not in context.flows:
        masks, samples = context.masks, sum(batch_size(batch) for batch in context.examples)
        if samples:  # the scorer uses data
            context.spend(scored=samples * len(context.rounds))
        for allocator in context.rounds:
            assert context.score is not None
            masks = allocator(context.score(context.model, masks, context.examples), masks)
        context.flows["masks"] = masks
    return context.flows["masks"]


def jaccard_distance(a: Masks, b: Masks) -> float:
    """1 - |A and B| / |A or B| over the kept weights of all tensors, in [0, 1]; 0 if both keep none.

    Raises: ValueError if names or shapes differ.
    """
    if a.keys() != b.keys() or any(a[n].shape != b[n].shape for n in a):
        raise ValueError(f"masks must have the same names and shapes, got {sorted(a)} and {sorted(b)}")
    both = sum(int((mask & b[name]).sum()) for name, mask in a.items())
    either = sum(int((mask | b[name]).sum()) for name, mask in a.items())
    return 1.0 - both / either if either else 0.0
