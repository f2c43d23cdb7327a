"""Callbacks for transformers' Trainer and Lightning, merging of peft's adapters, studies on Ray.

`.transformers`, `.lightning`, `.lora` and `.ray` need their library.
"""

from sparsight.integrations.schedule import AtEpochs, Gradual, Place, Schedule
from sparsight.integrations.session import UnfinishedSchedule

__all__ = ["AtEpochs", "Gradual", "Place", "Schedule", "UnfinishedSchedule"]
