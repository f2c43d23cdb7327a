"""Options of the commands for networks and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.options import DataName, File, Json, LevelNumber, ModelName, OutFile, Switch

Sort = Literal["compressible", "index", "size", "zeros", "gini", "name", "file"]


@dataclass(frozen=True)
class AnalyzeOptions:
    """Measure how compressible each tensor of a network is, from its weights alone. The network's code is not needed.

    A checkpoint of any size is read once, in bounded memory. For a run folder, the path is shown: how the PQ index
    changed as weights were pruned, where it turned, and what that means.
    """

    path: conf.Positional[str]
    """A .safetensors file, a folder with model.safetensors.index.json, a PyTorch .pt, .pth or .bin file, a run folder,
    or package.module:attribute (a module or a function that returns one)."""
    p: Annotated[tuple[float, ...], Doc("Exponents p of the PQ index, one per q; 0 < p < q.")] = (0.5,)
    q: Annotated[tuple[float, ...], Doc("Exponents q of the PQ index.")] = (1.0,)
    eta: Annotated[tuple[float, ...], Doc("Share of the kept weights' p-mass that pruning may lose.")] = (0.0, 0.1)
    gamma: Annotated[float, Doc("SAP's factor on the number of weights that the bound removes.")] = 1.0
    beta: Annotated[float, Doc("Largest share of the weights that SAP removes in one round.")] = 0.9
    include: Annotated[tuple[str, ...], Doc("Also analyse tensors with these names; shell-style patterns.")] = ()
    exclude: Annotated[tuple[str, ...], Doc("Skip tensors with these names.")] = ()
    sort: Annotated[Sort, Doc("Sort the table by this.")] = "compressible"
    all: Annotated[Switch, Doc("Show every tensor instead of the first 40.")] = False
    neurons: Annotated[Switch, Doc("Show every neuron.")] = False
    exact: Annotated[Switch, Doc("Compute the Gini index and the answer at eta exactly; reads the file again.")] = False
    sample: Annotated[Switch, Doc("Do not estimate the Gini index and the answer at eta from sampled weights.")] = True
    budget: Annotated[int, conf.arg(metavar="MIB")] = 256
    """Memory to use, in MiB, in addition to Python and torch."""
    threads: int | None = None
    """CPU threads; the result does not depend on them. Default: as many as torch uses."""
    json: Json = False
    csv: Annotated[File, Doc("Write a row per tensor to this file; - is standard output.")] = None
    html: Annotated[File, Doc("Write a page with charts to this file; - is standard output.")] = None


@dataclass(frozen=True)
class CertifyOptions:
    """Compute an error bound for a pruned network, its failure probability, and the error on held-out inputs.

    Sensitivities come from the unpruned weights and training inputs; errors are measured on validation inputs. No
    bound covers weights that were trained after pruning: such a network is refused.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder, or a checkpoint of the pruned network.")]
    dense: Annotated[Path | None, Doc("Checkpoint of the unpruned weights. Runs do not need it.")] = None
    model: ModelName = None
    data: DataName = None
    level: LevelNumber = None
    as_pruned: Switch = False
    """For a run, certify the level as it was pruned, before its weights were trained."""
    store: Annotated[Switch, Doc("For a run, keep the result in its folder, for `sparsight verdict`.")] = False
    delta: float = 1e-16
    """Failure probability, which sets the number of calibration points and of draws."""
    constant: Annotated[float, Doc("C in the bounds and in the number of points.")] = 3.0
    bound: Literal["bernstein", "reference"] = "bernstein"
    """Bound for sampled groups: the proved one (bernstein) or that of the published code (reference)."""
    points: Annotated[int | None, Doc("Calibration points. Default: the number that --delta requires.")] = None
    held_out: Annotated[int, Doc("Measure errors on at most this many validation inputs.")] = 1000
    json: Annotated[Switch, Doc("Print one JSON document instead, with every neuron.")] = False


@dataclass(frozen=True)
class PackOptions:
    """Write a checkpoint as a packed file, in which weights of +0.0 take almost no space.

    Packing is lossless: `sparsight unpack`, `sparsight.load`, `analyze` and `--weights` read the same bits. A packed
    file is a safetensors file. Shards become a folder of packed shards.
    """

    path: conf.Positional[Path]
    """A .safetensors file, a folder with model.safetensors.index.json, a PyTorch .pt, .pth or .bin file, or a run
    folder."""
    out: Annotated[OutFile, conf.arg(metavar="OUT"), Doc("The packed file; for shards, the folder.")]
    level: LevelNumber = None
    lossy: Literal["bfloat16", "float16"] | None = None
    """First round wider floats to this type. Default: lossless."""


@dataclass(frozen=True)
class UnpackOptions:
    """Write a packed file as a plain safetensors file. A damaged file is refused, and nothing is written."""

    path: Annotated[conf.Positional[Path], Doc("A packed file, or a folder of packed shards.")]
    out: Annotated[OutFile, conf.arg(metavar="OUT"), Doc("The safetensors file; for shards, the folder.")]


@dataclass(frozen=True, kw_only=True)
class OfNetwork:
    """A network of a run or a checkpoint, and its data."""

    level: LevelNumber = None
    model: ModelName = None
    data: DataName = None


@dataclass(frozen=True, kw_only=True)
class CompactOptions(OfNetwork):
    """Remove the units of a pruned network that have no effect: smaller dense tensors, the same outputs.

    Units without inputs are folded into the next layer's biases. The outputs of both networks are compared on
    validation inputs and on random inputs. Units that could not be removed are listed.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder, or a checkpoint of a pruned network.")]
    out: Annotated[OutFile, Doc("The safetensors file of the smaller network.")]
    maps: File = None
    """JSON file of the indices that each tensor keeps. Default: --out with the suffix .json."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OfNetwork):
    """Write a pruned network as ONNX, as a torch.export program, or as a plain state dict.

    The exported network is compared with the original on validation inputs and on random inputs, and the largest
    difference is printed. Zeros are stored like other weights; --compact removes the units that have no effect.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder, or a checkpoint.")]
    out: Annotated[OutFile, Doc("The file to write.")]
    to: Literal["onnx", "exported", "state-dict"] = "onnx"
    """The format: ONNX, a torch.export program (.pt2), or the tensors as safetensors."""
    compact: Annotated[Switch, Doc("First remove the units that have no effect.")] = False


@dataclass(frozen=True)
class LedgerOptions:
    """Count the parameters, bytes and multiplications of a pruned network; with --measure, also time and memory.

    Every number is counted or measured, never derived from another, and one sentence sums them up. Zeros in the file
    count as pruned.
    """

    what: conf.Positional[str]
    """A run folder, a checkpoint of any kind, a network of the zoo, or package.module:attribute."""
    level: LevelNumber = None
    model: ModelName = None
    shape: tuple[int, ...] = ()
    """Shape of the network's input without the batch. Default: that of the run's data."""
    measure: Switch = False
    """Also measure time and peak memory, next to the same network without zeros."""
    batch: Annotated[tuple[int, ...], Doc("Inputs per call; each of several is timed.")] = (1,)
    threads: tuple[int, ...] = ()
    """CPU threads; each of several is timed. Default: as many as torch uses."""
    runtimes: tuple[str, ...] = ("torch", "onnxruntime", "openvino")
    """Runtimes to time besides Sparsight's: torch, torch-bf16, onnxruntime, openvino, openvino-bf16."""
    rounds: Annotated[int, Doc("Timed calls of each runtime.")] = 25
    json: Json = False
    csv: Annotated[File, Doc("Write a row per number to this file; - is standard output.")] = None


@dataclass(frozen=True)
class BenchOptions:
    """Time a sparse layer or network on this CPU against the fastest dense runtimes.

    Layers and zoo networks get random weights at the given density; a run has its own weights. Runtimes take turns:
    the time is the shortest process time on one thread, and the shortest wall time on several. Outputs are first
    checked against float64.
    """

    what: conf.Positional[str]
    """conv, linear, a network of the zoo, package.module:attribute, a run folder, or a checkpoint."""
    channels: Annotated[tuple[int, int] | None, conf.arg(metavar="IN OUT")] = None
    """Channels of a convolution. Default: 64 64."""
    size: Annotated[int | None, Doc("Height and width of a convolution's images. Default: 56.")] = None
    kernel: Annotated[int | None, Doc("Kernel size of a convolution, padded by half of it. Default: 3.")] = None
    stride: Annotated[int | None, Doc("Stride of a convolution. Default: 1.")] = None
    features: Annotated[tuple[int, int] | None, conf.arg(metavar="IN OUT")] = None
    """Features of a linear layer. Default: 1024 1024."""
    shape: tuple[int, ...] = ()
    """Shape of a network's input without the batch. Default: that of the run's data, otherwise 1 28 28."""
    level: LevelNumber = None
    model: ModelName = None
    data: DataName = None
    density: tuple[float, ...] = ()
    """Share of nonzero weights in every layer; several densities give a table each. Default: 0.1, or the network's own
    weights for package.module:attribute."""
    batch: Annotated[tuple[int, ...], Doc("Inputs per call; several batch sizes give a table each.")] = (1,)
    layers: Switch = False
    """Also show how each layer of a network runs, and why: its density and both times."""
    rivals: tuple[str, ...] = ()
    """Runtimes to compare with: torch, torch-bf16, torch-csr, onnxruntime, openvino, openvino-bf16. Default: all that
    are installed."""
    rounds: Annotated[int, Doc("Timed calls of each runtime.")] = 25
    threads: tuple[int, ...] = ()
    """CPU threads; several numbers give a table each. Default: torch's number."""
    seed: Annotated[int, Doc("Seed of random weights and inputs.")] = 0
    json: Json = False
    csv: Annotated[File, Doc("Write a row per runtime to this file; - is standard output.")] = None


@dataclass(frozen=True)
class PhaseOptions:
    """Plot an activation's phase diagram: at which weight scale signals die, explode or get through.

    With --model, the table and the plot place each layer of the freshly initialised network in it.
    """

    activation: str = "auto"
    """A name (tanh, relu, gelu, ...) or package.module:function; auto takes the network's own, and tanh without
    --model."""
    sigma_b: float | None = None
    """Standard deviation of the biases. Default: 0.2, or 0 for an activation without an edge of chaos there, such as
    relu."""
    model: str | None = None
    """A network of the zoo, built for 28 × 28 images and 10 classes, or package.module:attribute."""
    critical: Annotated[Switch, Doc("Draw the network's weights at the edge of chaos first.")] = False
    seed: Annotated[int, Doc("Seed of the network's weights.")] = 0
    json: Json = False
    out: Annotated[File, Doc("Write the plot to this .svg or .html file; - is standard output.")] = None
