"""Sparsight finds how far a network can be pruned without losing accuracy, and prunes it.

Common names are imported when first used (PEP 562): `import sparsight` does not load torch. All others are in their
packages: `sparsight.measure.pq`, `sparsight.pruning.sipp`, `sparsight.train.stop`, ...
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.2.0"

_HOME = {  # room -> its public names that are available here too
    "types": ("Data", "Masks", "Split"),
    "model": (
        "LeftOutWarning", "apply_", "bind", "counts", "cross_entropy", "dense", "find_collapse", "held", "left_out",
        "load_into", "verify",
    ),
    "measure.pq": ("pq_index",),
    "measure.flow": ("gradient_flow", "information_flow"),
    "pruning": (
        "Global", "GraSP", "Magnitude", "Random", "SAP", "SNIP", "Shrink", "SiPP", "SynFlow",
        "Uniform", "rewind",
    ),
    "pruning.sipp.certificate": ("certify",),
    "train": ("NesterovSGD", "TrainingPlan"),
    "records": ("DamagedFile", "RunFolder", "load_masks", "masks_from", "save_masks"),
    "checkpoint": ("CheckpointError", "load"),
    "deploy": ("sparse_runtime",),
    "runs": ("AtDensity", "Level", "Outcome", "Recipe", "SparsestWithin", "Until", "execute", "prune", "run"),
    "analysis": ("analyze", "trajectory"),
}  # fmt: skip

_MOVED = {  # names of version 0.1 that are now only in their room; removed in version 0.3
    "types": (
        "Allocation", "Allocator", "Batch", "GroupRecord", "Params", "Restart", "Scorer", "Scores",
    ),
    "model": ("Collapse", "LeftOut", "check", "density", "mask_grads_"),
    "numerics": ("keep_largest", "prune_smallest"),
    "measure.pq": (
        "PowerSums", "TurningPoints", "effective_count", "power_sums", "pq_index_gradient", "prune_count",
        "retained_bound", "turning_points",
    ),
    "measure.flow": (
        "GradientAverage", "GradientFlow", "InformationFlow", "Probe", "both_flows", "flow_distance", "gf_ema", "probe",
    ),
    "measure.criticality": (
        "CriticalStart", "EdgeOfChaos", "NetworkPhase", "NoEdgeOfChaos", "chi", "correlation_map", "edge_of_chaos",
        "initialise_", "phase_of", "theorem1_bound", "variance_map",
    ),
    "pruning": (
        "Conditioning", "FORCE", "IllConditioned", "IterativeSNIP", "MBP", "Reinitialise", "Rescale", "Shuffled",
        "SiPPDet", "SiPPHybrid", "SiPPRand", "carry_on", "conditioning", "residual_branches", "stable_resnet",
    ),
    "pruning.sipp": (
        "Facts", "KeepBudget", "calibration_size", "calibration_sweep", "keep_budget", "keep_ratio",
    ),
    "pruning.sipp.certificate": (
        "Certificate", "LayerCertificate", "NetworkCertificate", "NeuronCertificate", "pruning_of",
    ),
    "train": ("Hooks", "Moment", "Observation", "classify"),
    "train.stop": (
        "AccuracyRecovery", "AllOf", "AnyOf", "AtLeast", "Context", "FixedEpochs", "FlowPlateau", "GradientConsistent",
        "InformationConsistent", "LossPlateau", "MaskStable", "PQIStable", "Patience", "Reference", "StoppingRule",
    ),
    "records": ("Event", "ForeignRun", "LevelRecord", "LevelResult", "LockedRun", "RunRecord"),
    "runs": ("AccuracyFloor", "AtPQMinimum", "PQMinimum"),
    "runs.study": ("Trial", "run_study", "summarise"),
    "analysis": ("Analysis", "Trajectory"),
}  # fmt: skip

_ROOMS = {  # modules of version 0.1, and the rooms that now hold their names
    "allocate": ("pruning", "pruning.sipp"),
    "certificate": ("pruning.sipp.certificate",),
    "criticality": ("measure.criticality", "pruning.conditioning"),
    "data": ("zoo.data", "train.batches", "records.identity", "numerics.stratified"),
    "flow": ("measure.flow",),
    "masks": ("model.masks", "model.names"),
    "pq": ("measure.pq",),
    "propagation": ("pruning.sipp.score",),
    "recipe": ("runs", "runs.search", "train", "model.loss"),
    "score": ("pruning", "pruning.sipp"),
    "stop": ("train.stop",),
    "store": ("records.folder", "records.new_folder"),
    "study": ("runs.study", "compare"),
}

_GONE = {  # removed names of version 0.1, and what to use instead
    "PerLevel": "each level has its own TrainingPlan; Until(level, first=..., last=...) tells the ends apart",
    "Sensitivities": "the scores of SiPP are a sparsight.types.Scored",
}

_NEW = {name: room for room, names in _HOME.items() for name in names}
_OLD = {name: room for room, names in _MOVED.items() for name in names}

__all__ = ["__version__", *sorted(_NEW)]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"sparsight.{name}")
    room = _NEW.get(name) or _OLD.get(name)
    if name in _GONE:
        raise AttributeError(f"sparsight.{name} is gone since version 0.2: {_GONE[name]}")
    if room is None:
        raise AttributeError(f"module 'sparsight' has no attribute {name!r}")
    if name in _OLD:
        _moved(f"sparsight.{name}", f"sparsight.{room}.{name}")
    value = getattr(importlib.import_module(f"sparsight.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _moved(old: str, new: str) -> None:
    warnings.warn(f"{old} is {new} now; the old name goes in version 0.3", DeprecationWarning, stacklevel=3)


class _OldRoom(ModuleType):
    """A module of version 0.1: finds its names in their new places, with a warning."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for room in _ROOMS[self.__name__.removeprefix("sparsight.")]:
                module = importlib.import_module(f"sparsight.{room}")
                if hasattr(module, name):
                    _moved(f"{self.__name__}.{name}", f"sparsight.{room}.{name}")
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _OldRooms(MetaPathFinder, Loader):
    """Finds the modules of `_ROOMS`, which are no longer files."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        known = package == "sparsight" and name in _ROOMS
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldRoom(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


sys.meta_path.append(_OldRooms())
