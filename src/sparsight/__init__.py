"""Sparsight tells how sparse a neural network can be, and makes it so.

Public names are listed in one table and imported when first used (PEP 562), so that
`import sparsight` costs nothing and the command line can answer without loading torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME: dict[str, str] = {
    # public name: the module that defines it
    **dict.fromkeys(
        (
            "Allocation", "Allocator", "Batch", "Data", "GroupRecord", "Masks", "Params",
            "Restart", "Scorer", "Scores", "Split", "StoppingRule",
        ),
        "types",
    ),
    **dict.fromkeys(
        ("apply_", "bind", "check", "counts", "dense", "density", "held", "mask_grads_", "verify"), "masks"
    ),
    **dict.fromkeys(("keep_largest", "prune_smallest"), "select"),
    **dict.fromkeys(
        (
            "PowerSums", "effective_count", "power_sums", "pq_index", "pq_index_gradient", "prune_count",
            "retained_bound",
        ),
        "pq",
    ),
    "Magnitude": "score.magnitude",
    "Random": "score.random",
    **dict.fromkeys(("Global", "Uniform"), "allocate.fixed"),
    "SAP": "allocate.sap",
    "Shrink": "allocate.shrink",
    **dict.fromkeys(("Reinitialise", "carry_on", "rewind"), "restart"),
    "FixedEpochs": "stop",
    **dict.fromkeys(
        ("Hooks", "Moment", "NesterovSGD", "Recipe", "SparsestWithin", "Until", "classify", "cross_entropy"), "recipe"
    ),
    **dict.fromkeys(("LevelRecord", "Observation", "RunRecord"), "record"),
    **dict.fromkeys(("Event", "LevelResult", "run"), "runner"),
    **dict.fromkeys(("Outcome", "execute"), "launch"),
    **dict.fromkeys(("DamagedFile",), "files"),
    **dict.fromkeys(("ForeignRun",), "identity"),
    **dict.fromkeys(("Analysis", "Trajectory", "analyze", "trajectory"), "analysis"),
    **dict.fromkeys(("TurningPoints", "turning_points"), "turning"),
    "CheckpointError": "checkpoint",
    "LockedRun": "lock",
    "RunFolder": "store",
    **dict.fromkeys(("Trial", "run_study", "summarise"), "study"),
}  # fmt: skip

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sparsight' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sparsight.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
