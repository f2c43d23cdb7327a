"""Options that several recipes have, each written once: its type and its help. Defaults stand in the signatures."""

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
Scope = Annotated[_Scope, Doc("What is ranked together: all weights, each layer, or each neuron (output row).")]
MinKeep = Annotated[int, Doc("Keep at least this many weights in every tensor (in neuron scope: in every row).")]
Density = Annotated[float, Doc("Share of the prunable weights to keep.")]
LayerFloor = Annotated[int, Doc("Keep at least this many weights in every tensor; 0 lets layers die.")]
ScoreBatches = Annotated[int, Doc("Training batches, without augmentation, to compute the scores on.")]
BatchNorm = Annotated[
    Literal["train", "eval"],
    Doc("While scoring, batch norms use the statistics of each batch (train) or the stored ones (eval)."),
]
Start = Annotated[
    Literal["auto", "own"] | Name,
    Doc(
        "Draw the weights at the edge of chaos of the network's own activation (auto) or of a named one; own keeps the "
        "network's initial weights, which is SNIP."
    ),
]
SigmaB = Annotated[float, Doc("Standard deviation of the initial biases.")]
Shuffle = Annotated[bool, Doc("Ablation: keep as many weights of each layer, but other ones, drawn at random.")]
Reinitialise = Annotated[bool, Doc("Ablation: train from fresh weights instead of those that were scored.")]

# -- how far ---------------------------------------------------------------------------------------------------

Until = Annotated[
    Ending,
    Doc(
        "Stop pruning at the target density, at the minimum of the PQ index, or at the first level more than `within` "
        "points below the dense network's validation accuracy."
    ),
]
TargetDensity = Annotated[
    float | None,
    Doc(
        "Prune the last level to exactly this density (kept / prunable weights) and hand that network over; with "
        "another --until, never go below it. 0 is no target. Default: search down to 0.1; with another --until, no "
        "limit."
    ),
]
Levels = Annotated[
    int | None,
    Doc("Prune at most this many levels. Default: 15 with --until density and no target density, otherwise 30."),
]
Within = Annotated[
    float | None,
    Doc(
        "Pick the sparsest level at most this many percentage points below the dense network's validation accuracy. "
        "Default: 0.5; with a target density, the network at that density; with --until pq-minimum, the level at the "
        "minimum."
    ),
]

# -- training --------------------------------------------------------------------------------------------------

Epochs = Annotated[int, Doc("Epochs of training at each level.")]
MiddleEpochs = Annotated[
    int | None,
    Doc(
        "Epochs of the levels between the first and the last, with a learning-rate schedule of their own. Default: as "
        "many as --epochs; with --carry-on, a third (see --stop)."
    ),
]
BatchSize = Annotated[
    int | None,
    Doc(
        "Samples in a training step. Default: 250, or 32 for a training split of which 250 make fewer than 40 steps an "
        "epoch; what is measured or scored is then taken in batches of 250."
    ),
]
LearningRate = Annotated[
    float | None,
    Doc(
        "Learning rate at the start of each level; it falls to 0 along a cosine. Default: 0.1 (adam, adamw: 0.001); "
        "for a network that is trained already 0.03 (adam, adamw: 0.0001)."
    ),
]
Momentum = Annotated[float, Doc("Nesterov momentum.")]
WeightDecay = Annotated[float, Doc("L2 penalty on all parameters.")]
Clip = Annotated[float, Doc("Largest norm of the masked gradient.")]
RewindEpoch = Annotated[
    int, Doc("Restart from the weights after this many epochs of level 0; 0 restarts from initialisation.")
]
CarryOn = Annotated[
    bool,
    Doc("Start each pruned level from the current weights instead of rewinding; a third of the epochs is then enough."),
]
Stop = Annotated[
    StopName | None,
    Doc(
        "Rule that may end the levels between the first and the last early; fixed-epochs: never. Default: "
        "fixed-epochs; with --carry-on and --until density, and without --middle-epochs, recovered."
    ),
]
EvaluateEvery = Annotated[
    float | None,
    Doc(
        "Epochs between two evaluations, at which a level may end; a fraction evaluates inside epochs. Default: 1; "
        "with the default rule of --carry-on, 0.5."
    ),
]
Control = Annotated[bool, Doc("Also train the dense network for as many epochs as the whole run takes.")]
Seed = Annotated[int, Doc("Seed of everything random.")]
