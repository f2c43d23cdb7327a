"""Where people already work: callbacks of transformers' Trainer and of Lightning, adapters of peft, studies on Ray.

`.transformers`, `.lightning`, `.lora` and `.ray` need their library. Of sparsight only `cli` imports from here.
"""

from sparsight.integrations.schedule import AtEpochs, Gradual, Place, Schedule
from sparsight.integrations.session import UnfinishedSchedule

__all__ = ["AtEpochs", "Gradual", "Place", "Schedule", "UnfinishedSchedule"]
