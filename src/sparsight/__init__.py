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
    **dict.fromkeys(("apply_", "check", "dense", "density", "held", "mask_grads_", "verify"), "masks"),
    **dict.fromkeys(("keep_largest", "prune_smallest"), "select"),
    **dict.fromkeys(
        ("PowerSums", "effective_count", "pq_index", "pq_index_gradient", "retained_bound"), "pq"
    ),
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
