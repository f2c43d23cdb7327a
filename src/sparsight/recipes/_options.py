"""Options of several recipes, each written once: its type and its help. Defaults are in the signatures."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import Doc

from sparsight.measure.criticality.activations import Name
from sparsight.train.stop import StopName
from sparsight.types import Scope as _Scope

Ending = Literal["density", "pq-minimum", "accuracy"]
"""What ends the search for sparser levels."""

# -- what is pruned --------------------------------------------------------------------------------------------

Rate = Annotated[float, Doc("Share of the remaining weights that each level removes.")]
P = Annotated[float, Doc("Exponent p of the PQ index; 0 < p <= 1.")]
Q = Annotated[float, Doc("Exponent q of the PQ index; q >= 1, q > p.")]
Scope = Annotated[_Scope, Doc("Rank all weights together, or within each layer or neuron (output row).")]
MinKeep = Annotated[int, Doc("Keep at least this many weights in every tensor (with --scope neuron: in every row).")]
Density = Annotated[float, Doc("Share of the prunable weights to keep.")]
LayerFloor = Annotated[int, Doc("Keep at least this many weights in every tensor; 0 lets layers die.")]
ScoreBatches = Annotated[int, Doc("Compute the scores on this many training batches, without augmentation.")]
BatchNorm = Annotated[
    Literal["train", "eval"],
    Doc("While scoring, batch norms use the statistics of the batch (train) or the stored ones (eval)."),
]
Start = Annotated[
    Literal["auto", "own"] | Name,
    Doc(
        "Draw the weights at the edge of chaos of the network's activation (auto) or of the given one; own keeps the "
        "network's initial weights, as in SNIP."
    ),
]
SigmaB = Annotated[float, Doc("Standard deviation of the initial biases.")]
Shuffle = Annotated[bool, Doc("Ablation: keep the same number of weights in each layer, but at random positions.")]
Reinitialise = Annotated[bool, Doc("Ablation: train from fresh weights instead of the scored ones.")]

# -- how far ---------------------------------------------------------------------------------------------------

Until = Annotated[
    Ending,
    Doc(
        "Stop pruning at the target density, at the minimum of the PQ index, or at the first level more than --within "
        "points below the dense network's validation accuracy."
    ),
]
TargetDensity = Annotated[
    float | None,
    Doc(
        "Prune the last level to exactly this density (kept / prunable weights) and choose that level; with another "
        "--until, never go below it. 0: no target. Default: search down to 0.1; with another --until, no limit."
    ),
]
Levels = Annotated[
    int | None,
    Doc("Prune at most this many levels. Default: 15 with --until density and no target density, otherwise 30."),
]
Within = Annotated[
    float | None,
    Doc(
        "Choose the sparsest level at most this many percentage points below the dense network's validation accuracy. "
        "Default: 0.5 (with a target density, the level at it; with --until pq-minimum, the level at the minimum)."
    ),
]

# -- training --------------------------------------------------------------------------------------------------

Epochs = Annotated[int, Doc("Epochs of training at each level.")]
MiddleEpochs = Annotated[
    int | None,
    Doc(
        "Epochs of each level between the first and the last. Default: --epochs (with --carry-on, a third of them; see "
        "--stop)."
    ),
]
BatchSize = Annotated[
    int | None,
    Doc(
        "Samples per training step. Default: 250, or 32 if 250 would give fewer than 40 steps per epoch; evaluation "
        "and scoring then still use 250."
    ),
]
LearningRate = Annotated[
    float | None,
    Doc(
        "Learning rate at the start of each level, which falls to 0 along a cosine. Default: 0.1 (adam, adamw: 0.001); "
        "with --pretrained, 0.03 (adam, adamw: 0.0001)."
    ),
]
Momentum = Annotated[float, Doc("Nesterov momentum.")]
WeightDecay = Annotated[float, Doc("L2 penalty on all parameters.")]
Clip = Annotated[float, Doc("Clip the masked gradient to this norm.")]
RewindEpoch = Annotated[
    int, Doc("Restart from the weights after this many epochs of level 0; 0 restarts from initialisation.")
]
CarryOn = Annotated[
    bool,
    Doc("Start each pruned level from the current weights instead of rewinding; by default for a third of the epochs."),
]
Stop = Annotated[
    StopName | None,
    Doc(
        "Rule that may end the levels between the first and the last early; fixed-epochs: never. Default: "
        "fixed-epochs (with --carry-on and --until density, without --middle-epochs: recovered)."
    ),
]
EvaluateEvery = Annotated[
    float | None,
    Doc(
        "Epochs between two evaluations, after which --stop may end a level; may be a fraction. Default: 1 (with "
        "--stop recovered by default: 0.5)."
    ),
]
Control = Annotated[bool, Doc("Also train the dense network for as many epochs as the whole run.")]
Seed = Annotated[int, Doc("Random seed of the whole run.")]
