"""Shares the training of the dense network between runs with the same start."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sparsight.records.identity import describe
from sparsight.records.record import dumps, from_json, to_json
from sparsight.runs.state import RunState
from sparsight.runs.training import progress, run_through, take_up
from sparsight.train.metric import Metric
from sparsight.train.stop import FixedEpochs
from sparsight.train.training import Training
from sparsight.types import Masks, Split


def trained(state: RunState, training: Training) -> Masks:
    """`run_through`, or the result of the same training that another run left in `state.starts`.

    Such a result holds the final weights and records, including times, and the rewind point.
    """
    key = None if state.starts is None else start_key(state.starts.about, state, training)
    if state.starts is None or key is None:
        return run_through(state, training)
    with state.starts.held(key):
        stored = state.starts.get(key)
        if stored is None:
            masks = run_through(state, training)
            rewound = state.rewind_point if state.recipe.rewind_epoch and training.role == "level" else None
            state.starts.keep(key, {**progress(training), "metric": to_json(training.metric), "rewind": rewound})
            return masks
        take_up(training, stored)
        training.metric = from_json(Metric, stored["metric"], "metric")
    if stored["rewind"] is not None:
        state.rewind_point = stored["rewind"]
        state.journal.keep_rewind_point(stored["rewind"])
    return training.masks


def start_key(about: Mapping[str, Any], state: RunState, training: Training) -> str | None:
    """The key of a training of the dense network from its initial weights: the SHA-256 of all that determines it.

    None if it cannot be shared: for pruned weights, data from a loader, a rule that may end it, or foreign code.
    """
    recipe, plan = state.recipe, training.plan
    dense = training.role == "control" or not state.history
    if not dense or not all(bool(mask.all()) for mask in training.masks.values()):
        return None
    if not (isinstance(state.data.train, Split) and isinstance(state.data.validation, Split)):
        return None
    what = {**about, "role": training.role, "level": training.level, "plan": describe(plan), "seed": recipe.seed}
    what |= {"judge": describe(recipe.judge), "channels_last": recipe.channels_last}
    what |= {"stops": training.stops, "averaging": training.averaging}
    text = dumps(what)
    if not isinstance(plan.stop, FixedEpochs) or _FOREIGN.search(dumps([what["plan"], what["judge"]])):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


_FOREIGN = re.compile(r'"(?!(?:sparsight|math|torch)[.:])[\w.]+:[\w.<>]+"|<locals>|<lambda>')
"""A function or type from elsewhere, which its description may not identify."""
