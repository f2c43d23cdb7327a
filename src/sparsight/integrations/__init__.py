"""Where people already train: callbacks of transformers' Trainer and of Lightning, and adapters of peft.

`sparsight.integrations.transformers`, `.lightning` and `.lora` need their library; nothing in sparsight imports them.
"""

from sparsight.integrations.schedule import AtEpochs, Gradual, Place, Schedule
from sparsight.integrations.session import UnfinishedSchedule

__all__ = ["AtEpochs", "Gradual", "Place", "Schedule", "UnfinishedSchedule"]
