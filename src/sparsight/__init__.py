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
    **dict.fromkeys(("apply_", "bind", "mask_grads_"), "hold"),
    "held": "own_loop",
    **dict.fromkeys(
        ("check", "counts", "dense", "density", "left_out", "verify"), "masks"
    ),
    **dict.fromkeys(("LeftOut", "LeftOutWarning"), "leftout"),
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
    "MBP": "score.mbp",
    "GraSP": "score.grasp",
    "SNIP": "score.snip",
    "SynFlow": "score.synflow",
    **dict.fromkeys(("Global", "Uniform"), "allocate.fixed"),
    "SAP": "allocate.sap",
    "Shrink": "allocate.shrink",
    "SiPP": "score.sipp",
    **dict.fromkeys(("SiPPDet", "SiPPHybrid", "SiPPRand"), "allocate.sipp"),
    **dict.fromkeys(("Facts", "Sensitivities"), "sensitivity"),
    **dict.fromkeys(("calibration_size", "calibration_sweep"), "bounds"),
    **dict.fromkeys(("KeepBudget", "keep_budget", "keep_ratio"), "sizes"),
    **dict.fromkeys(
        ("Certificate", "LayerCertificate", "NetworkCertificate", "NeuronCertificate", "certify", "pruning_of"),
        "certificate",
    ),
    "Shuffled": "allocate.shuffled",
    **dict.fromkeys(("FORCE", "IterativeSNIP"), "allocate.iterative"),
    "find_collapse": "collapse",
    **dict.fromkeys(
        (
            "Conditioning", "CriticalStart", "EdgeOfChaos", "IllConditioned", "NetworkPhase", "NoEdgeOfChaos", "chi",
            "conditioning", "correlation_map", "edge_of_chaos", "initialise_", "phase_of", "theorem1_bound",
            "variance_map",
        ),
        "criticality",
    ),
    **dict.fromkeys(("residual_branches", "stable_resnet"), "residual"),
    "Rescale": "rescaling",
    "cross_entropy": "loss",
    **dict.fromkeys(("Reinitialise", "carry_on", "rewind"), "restart"),
    **dict.fromkeys(
        (
            "AccuracyRecovery", "AllOf", "AnyOf", "AtLeast", "Context", "FixedEpochs", "FlowPlateau",
            "GradientConsistent", "InformationConsistent", "LossPlateau", "MaskStable", "PQIStable", "Patience",
            "PerLevel", "Reference",
        ),
        "stop",
    ),
    **dict.fromkeys(
        ("Hooks", "Moment", "NesterovSGD", "Recipe", "Until", "classify"), "recipe"
    ),
    **dict.fromkeys(("AccuracyFloor", "AtPQMinimum", "PQMinimum"), "search"),
    **dict.fromkeys(("AtDensity", "SparsestWithin"), "choose"),
    **dict.fromkeys(("Collapse", "LevelRecord", "Observation", "RunRecord"), "record"),
    **dict.fromkeys(("Event", "LevelResult"), "journal"),
    "run": "runner",
    **dict.fromkeys(("Outcome", "execute"), "launch"),
    **dict.fromkeys(("DamagedFile",), "files"),
    **dict.fromkeys(("ForeignRun",), "identity"),
    **dict.fromkeys(("Analysis", "Trajectory", "analyze", "trajectory"), "analysis"),
    **dict.fromkeys(("TurningPoints", "turning_points"), "turning"),
    **dict.fromkeys(
        (
            "GradientAverage", "GradientFlow", "InformationFlow", "Probe", "both_flows", "flow_distance", "gf_ema",
            "gradient_flow", "information_flow", "probe",
        ),
        "flow",
    ),
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
