"""Records of a run, the run folder that holds them, and the identity of runs."""

from sparsight.records.files import DamagedFile
from sparsight.records.folder import RunFolder
from sparsight.records.identity import ForeignRun, fingerprint
from sparsight.records.journal import Event, LevelResult
from sparsight.records.masks import AccidentalZeros, load_masks, masks_from, save_masks
from sparsight.records.new_folder import LockedRun
from sparsight.records.record import Choice, Evaluation, LevelRecord, LevelTimes, RunRecord
from sparsight.records.verify import verify_run

__all__ = ["AccidentalZeros", "Choice", "DamagedFile", "Evaluation", "Event", "ForeignRun", "LevelRecord"]
__all__ += ["LevelResult", "LevelTimes", "LockedRun", "RunFolder", "RunRecord", "fingerprint", "load_masks"]
__all__ += ["masks_from", "save_masks", "verify_run"]
