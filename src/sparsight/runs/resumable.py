"""What may keep a resumed run from ending with the same bits, said before it starts."""

from __future__ import annotations

import warnings

from sparsight.numerics.seeds import hidden_state
from sparsight.types import Data


class ResumeNote(UserWarning):
    """What may keep a resumed run from ending with the bits of one that was not interrupted."""


def say_what_cannot_be_kept(data: Data) -> None:
    """A `ResumeNote` names random state of the loaders that is neither seeded for each epoch nor kept."""
    for name in ("train", "validation"):
        hidden = hidden_state(getattr(data, name))
        if hidden:
            warnings.warn(
                f"the {name} split draws from {', '.join(hidden)}, which a run cannot keep: interrupted and resumed it "
                "may end with other bits. Draw from the global generators of torch, numpy or Python, or "
                "from generators of the loader and its samplers, which are seeded for each epoch",
                ResumeNote,
                stacklevel=3,
            )
