"""Warns of random state that a resumed run cannot restore."""

from __future__ import annotations

import warnings

from sparsight.numerics.seeds import hidden_state
from sparsight.types import Data


class ResumeNote(UserWarning):
    """Results of a resumed run may differ from those of an uninterrupted one."""


def say_what_cannot_be_kept(data: Data) -> None:
    """Warn of random state in the loaders that is neither seeded for each epoch nor stored."""
    for name in ("train", "validation"):
        hidden = hidden_state(getattr(data, name))
        if hidden:
            warnings.warn(
                f"the {name} split draws from {', '.join(hidden)}, which a run cannot store: after a resume, results "
                "may differ. Draw from the global generators of torch, numpy or Python, or from generators of the "
                "loader and its samplers, which are seeded for each epoch",
                ResumeNote,
                stacklevel=3,
            )
