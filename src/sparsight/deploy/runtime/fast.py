"""`sparse_runtime`: a user's module with what is faster sparse running sparse."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsight.deploy.comparing import copied
from sparsight.deploy.network_of_run import default_level, input_shape, known_network, level_file
from sparsight.deploy.runtime.choice import Timed, timed
from sparsight.deploy.runtime.runner import Runner
from sparsight.deploy.runtime.stored import Stored, stored_in
from sparsight.deploy.runtime.trace import NotTraced, plain, single, traced
from sparsight.records.folder import RunFolder

_ROUNDING, _HALF = 1e-4, 5e-2  # of the largest output, with weights in float32 and in bfloat16


@dataclass(frozen=True)
class Planned:
    """One module of the plan: what runs it, why, and what each way took (milliseconds, the least of some rounds)."""

    name: str
    kind: str
    density: float
    runs: str
    why: str
    milliseconds: dict[str, float]


class FastForward:
    """Stands for a module's forward: sparse for inputs like the example, the module's own for all others."""

    def __init__(self, module: nn.Module, runner: Runner, rows: bool):
        self.own: Callable[..., Any] = module.forward
        self.runner, self.rows = runner, rows

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, Tensor):
            return self.own(*args, **kwargs)
        if self.rows and x.dim() != 2:
            flat = x.reshape(-1, x.shape[-1]) if x.dim() else x
            if not self.runner.takes(flat):
                return self.own(x)
            return pytree.tree_map(lambda out: out.reshape(*x.shape[:-1], *out.shape[1:]), self.runner(flat))
        return self.runner(x) if self.runner.takes(x) else self.own(x)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a network in the sparse runtime cannot be pickled or copied: save the model it was made from")


def _no_training(module: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise RuntimeError("the sparse runtime is for inference: train the model it was made from")
    return module


def sparse_runtime(
    model: nn.Module | str | os.PathLike[str],
    example_inputs: Tensor | tuple[Any, ...] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    bfloat16: bool = False,
    seconds: float = 2.0,
) -> nn.Module:
    """A module with the model's outputs in which everything that is faster sparse on this machine runs sparse.

    The module is a copy that shares the memory of parameters; the model itself is not changed. For every
    traceable part and every linear layer, torch and the sparse kernels are timed on inputs of the example's shape, for
    `seconds` at most, and the faster one serves: a part that gains nothing stays as it is, and all does if the whole
    gains nothing. Zeros are those in the weights at the time of the call; weights changed later are not seen. Other
    batch sizes work, inputs of other shapes or types run the model's own way.

    From a packed file, weights of many zeros are read without them. Dense ones are made of a part only while it is
    timed, and for good of what is faster dense. Such a network takes float32 inputs of any shape, and has no
    state dict.

    Args:
        model: a module in evaluation mode, or the folder of a run whose network is one of the zoo.
        example_inputs: a tensor, or a tuple of positional arguments. Default: zeros of the shape of the run's data.
        weights: a checkpoint, packed or not, or the folder of a run. Its tensors take the place of the model's, which
            may be on the meta device.
        bfloat16: keep the sparse weights in bfloat16, rounded, in half the memory; sums stay float32.
        seconds: longest measurement of a part. 0: nothing is measured, and all that can run sparse does.

    Returns:
        A module with an attribute `plan`, a list of `Planned`.

    Raises:
        ValueError: the model is in training mode, or fails on the example; the network of a run is not known, or
            `weights` do not fit. CheckpointError, FileNotFoundError: there are no weights that can be read.
    """
    if not isinstance(model, nn.Module):
        model, weights, example_inputs = _of_run(Path(model), example_inputs)
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    if example_inputs is None:
        raise ValueError("expected an example of the model's inputs: a tensor or a tuple of arguments, got None")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    fast, stored = _sharing(model), Stored()
    if weights is not None:
        stored = stored_in(_file(Path(weights)), fast, bfloat16)
    buffers = [module._buffers for module in fast.modules()]
    before = copy.deepcopy(buffers)  # running a module may change them
    shapes = _shapes(fast, inputs, stored)
    stored.forget()
    unchanged = _sharing(fast) if seconds and not stored.weights else None
    visit = _Visit(shapes, stored, seconds, bfloat16)
    visit(fast)
    if unchanged is not None:
        visit.check_whole(fast, unchanged, inputs)
    stored.forget()
    for now, then in zip(buffers, before, strict=True):
        now.update(then)
    for module in fast.modules():
        object.__setattr__(module, "train", partial(_no_training, module))
    object.__setattr__(fast, "plan", visit.plan)
    return fast


def _of_run(path: Path, inputs: Any) -> tuple[nn.Module, Path, Any]:
    """The empty network of a run, the file of its weights, and an example."""
    if not (path / "run.json").exists():
        raise ValueError(f"expected a module or the folder of a run, got {path}: give a file's network, and weights=")
    with RunFolder.open(path) as folder:
        shape, file = input_shape(folder.record), level_file(folder, default_level(folder))
        network = known_network(folder.record, shape, file, empty=True)
    if network is None:
        raise ValueError(f"{path} has no network of the zoo: give its network as the model, and weights={str(path)!r}")
    return network.eval(), file, torch.zeros(1, *shape) if inputs is None else inputs


def _file(path: Path) -> Path:
    if not (path / "run.json").exists():
        return path
    with RunFolder.open(path) as folder:
        return level_file(folder, default_level(folder))


def _sharing(model: nn.Module) -> nn.Module:
    """A copy whose parameters need no gradients and share memory with the model's; its buffers are its own."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().clone()
    return copied(model, memo)


def _shapes(model: nn.Module, inputs: tuple[Any, ...], stored: Stored) -> dict[nn.Module, tuple[int, ...] | None]:
    """Shape of the input of each module that is called, None unless it is one float32 tensor.

    Layers that have no dense weights, which something reads past them, get them.
    """
    shapes: dict[nn.Module, tuple[int, ...] | None] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        fits = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].dtype == torch.float32
        if fits or module not in shapes:
            shapes[module] = shapes.get(module) or (tuple(args[0].shape) if fits else None)

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        while True:
            shapes.clear()
            reads, failed = stored.reads(), None
            try:
                with torch.inference_mode(), reads:
                    model(*inputs)
            except Exception as error:
                failed = error
            if not stored.fill_read_(model, reads):
                break
        if failed is not None:
            raise ValueError(f"the model fails on the example: {failed}") from failed
        return shapes
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Visit:
    """Goes through a module's parts from the whole to the layers."""

    shapes: Mapping[nn.Module, tuple[int, ...] | None]
    stored: Stored
    seconds: float
    half: bool
    plan: list[Planned] = field(default_factory=list)
    _seen: set[nn.Module] = field(default_factory=set)

    def __call__(self, module: nn.Module, name: str = "") -> None:
        """Have a module run sparse if that is faster, else look into it."""
        if module in self._seen or not self.zeros(module):
            return
        self._seen.add(module)
        made, leaf = self.candidate(module), not any(True for _ in module.children())
        if isinstance(made, FastForward):
            times = self.compared(module, made)
            if times is None or times.fastest == "sparse":
                module.forward = made
                why = "not timed" if times is None else f"{times.ratio:.2f} times as fast"
                self.note(module, name, "sparse", why, {} if times is None else times.milliseconds)
                return
            if leaf:
                self.stored.fill_(module)
                self.note(module, name, "torch", f"sparse is {times.ratio:.2f} times as fast", times.milliseconds)
                return
        elif leaf:
            self.stored.fill_(module)
            self.note(module, name, "torch", made, {})
            return
        before = len(self.plan)
        for child_name, child in module.named_children():
            self(child, f"{name}.{child_name}".lstrip("."))
        if isinstance(module, nn.TransformerEncoderLayer) and any(row.runs == "sparse" for row in self.plan[before:]):
            vars(module)["activation_relu_or_gelu"] = 0  # its fast path reads weights without calling layers

    def compared(self, module: nn.Module, made: FastForward) -> Timed | None:
        """The times of both ways; None: nothing is to be timed."""
        if not self.seconds:
            return None
        shape = self.shapes[module]
        assert shape is not None
        x, key = _drawn(shape), (made.runner.graph.signature(), shape, self.half)
        ways = {"torch": lambda: module.forward(x), "sparse": lambda: made(x)}
        return timed(ways, self.seconds, key, self.stored.dense(module))

    def candidate(self, module: nn.Module) -> FastForward | str:
        """What could stand for the module's forward, or why nothing can."""
        shape = self.shapes.get(module)
        if shape is None or 0 in shape:
            called = module in self.shapes
            return "its input is not one float32 tensor" if called else "it is not called: its weights are read past it"
        if len(shape) == 3 and isinstance(module, nn.Conv2d):
            return "its input is one image without a batch"
        rows = len(shape) not in (2, 4) or isinstance(module, nn.Linear)
        flat = (math.prod(shape[:-1]), shape[-1]) if rows else shape
        known = self.stored.weights
        try:
            with self.stored.as_torch(module):
                graph = single(module, flat, known) or traced(module, _drawn(flat), known)
        except NotTraced as error:
            return str(error)
        made = FastForward(module, Runner(graph, flat[1:], self.half), rows)
        x = _drawn(shape)
        with torch.inference_mode():
            wanted = module.forward(x)
            self.stored.forget()
            same = _equal(made(_drawn(shape)), wanted, _HALF if self.half else _ROUNDING)
        if not torch.equal(x, _drawn(shape)):
            return "it changes its input"
        return made if same else "it computes something else when traced"

    def check_whole(self, fast: nn.Module, unchanged: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Have everything run as in the plain network if the parts that are faster do not make the whole faster."""
        sparse = [module for module in fast.modules() if isinstance(vars(module).get("forward"), FastForward)]
        if not sparse or fast in sparse:
            return
        rows = [(row.name, row.kind, f"{row.density:.2f}", row.runs) for row in self.plan]
        key = (rows, [getattr(x, "shape", x) for x in pytree.tree_leaves(inputs)], self.half)
        ways = {"torch": lambda: unchanged(*inputs), "sparse": lambda: fast(*inputs)}
        times = timed(ways, self.seconds, key)
        if times.fastest == "sparse":
            return
        for module, other in zip(fast.modules(), unchanged.modules(), strict=True):
            vars(module).pop("forward", None)
            if isinstance(other, nn.TransformerEncoderLayer):
                vars(module)["activation_relu_or_gelu"] = other.activation_relu_or_gelu
        why = f"with all such parts the network is {times.ratio:.2f} times as fast"
        self.plan[:] = [replace(row, runs="torch", why=why) if row.runs == "sparse" else row for row in self.plan]

    def zeros(self, module: nn.Module) -> bool:
        """Whether there are zeros in it that could make it faster."""
        layers = (child.weight for child in module.modules() if plain(child))  # may be computed before each call
        return any(
            w in self.stored.weights or (w.dim() > 1 and int(w.count_nonzero()) < w.numel())
            for w in (*module.parameters(), *layers)
        )

    def note(self, module: nn.Module, name: str, runs: str, why: str, milliseconds: Mapping[str, float]) -> None:
        """One row for each layer with weights in a module that was decided on."""
        for child, layer in module.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() > 1:
                full = ".".join(part for part in (name, child) if part)
                known = self.stored.weights.get(weight)
                density = int(weight.count_nonzero()) / weight.numel() if known is None else known.density
                self.plan.append(Planned(full, type(layer).__name__, density, runs, why, dict(milliseconds)))


def held(fast: nn.Module) -> int:
    """Bytes of activations and scratch that calls of a network of `sparse_runtime` hold."""
    forwards = (vars(module).get("forward") for module in fast.modules())
    return sum(forward.runner.memory() for forward in forwards if isinstance(forward, FastForward))


def _drawn(shape: tuple[int, ...]) -> Tensor:
    """Normal numbers; torch's own random state stays as it is."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _equal(found: Any, wanted: Any, rounding: float = _ROUNDING) -> bool:
    """Whether two results have the same structure and, to what rounding leaves, the same numbers."""
    found, structure = pytree.tree_flatten(found)
    wanted, same = pytree.tree_flatten(wanted)
    return structure == same and all(
        a.shape == b.shape and (not a.numel() or float((a - b).abs().max()) <= rounding * float(b.abs().max()))
        for a, b in zip(found, wanted, strict=True)
    )
