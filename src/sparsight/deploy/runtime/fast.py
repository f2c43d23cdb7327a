"""`sparse_runtime`: a user's module with what is faster sparse running sparse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsight.deploy.runtime.choice import timed
from sparsight.deploy.runtime.runner import Runner
from sparsight.deploy.runtime.trace import NotTraced, single, traced

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
        self.dense: Callable[..., Any] = module.forward
        self.runner, self.rows = runner, rows

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, Tensor):
            return self.dense(*args, **kwargs)
        if self.rows and x.dim() != 2:
            flat = x.reshape(-1, x.shape[-1]) if x.dim() else x
            if not self.runner.takes(flat):
                return self.dense(x)
            return self.checked(flat).reshape(*x.shape[:-1], -1)
        return self.checked(x) if self.runner.takes(x) else self.dense(x)

    def checked(self, x: Tensor) -> Any:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the sparse runtime computes no gradients: call it under torch.inference_mode()")
        return self.runner(x)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a network in the sparse runtime cannot be pickled or copied: save the model it was made from")


def _no_training(mode: bool = True) -> None:
    if mode:
        raise RuntimeError("the sparse runtime is for inference: train the model it was made from")


def sparse_runtime(
    model: nn.Module, example_inputs: Tensor | tuple[Any, ...], *, bfloat16: bool = False, seconds: float = 2.0
) -> nn.Module:
    """A module with the model's outputs in which everything that is faster sparse on this machine runs sparse.

    The module is a copy that shares the memory of parameters; the model itself is not changed. For every
    traceable part and every linear layer, torch and the sparse kernels are timed on inputs of the example's shape, for
    `seconds` at most, and the faster one serves: a part that gains nothing stays as it is. Zeros are those in the
    weights at the time of the call; weights changed later are not seen. Other batch sizes work, inputs of other shapes
    or types run the model's own way.

    Args:
        model: a module in evaluation mode.
        example_inputs: a tensor, or a tuple of positional arguments.
        bfloat16: keep the sparse weights in bfloat16, rounded, in half the memory; sums stay float32.
        seconds: longest measurement of a part.

    Returns:
        A module with an attribute `plan`, a list of `Planned`.

    Raises:
        ValueError: the model is in training mode, or fails on the example.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    fast = _sharing(model)
    shapes = _shapes(fast, inputs)
    visit = _Visit(shapes, seconds, bfloat16)
    visit(fast)
    for module in fast.modules():
        object.__setattr__(module, "train", _no_training)
    object.__setattr__(fast, "plan", visit.plan)
    return fast


def _sharing(model: nn.Module) -> nn.Module:
    """A copy whose parameters need no gradients and share memory with the model's; its buffers are its own."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().clone()  # running a module may change them
    return copy.deepcopy(model, memo)


def _shapes(model: nn.Module, inputs: tuple[Any, ...]) -> dict[nn.Module, tuple[int, ...]]:
    """Shape of the input of each module that is given one float32 tensor and nothing else."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].dtype == torch.float32:
            shapes.setdefault(module, tuple(args[0].shape))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        with torch.inference_mode():
            model(*inputs)
    except Exception as error:
        raise ValueError(f"the model fails on the example: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return shapes


@dataclass
class _Visit:
    """Goes through a module's parts from the whole to the layers."""

    shapes: dict[nn.Module, tuple[int, ...]]
    seconds: float
    half: bool
    plan: list[Planned] = field(default_factory=list)

    def __call__(self, module: nn.Module, name: str = "") -> None:
        """Have a module run sparse if that is faster, else look into it."""
        if not _zeros(module):
            return
        made, leaf = self.candidate(module), not any(True for _ in module.children())
        if isinstance(made, FastForward):
            x = _drawn(self.shapes[module])
            key = (made.runner.graph.signature(), tuple(x.shape), self.half)
            times = timed({"torch": lambda: module.forward(x), "sparse": lambda: made(x)}, self.seconds, key)
            if times.fastest == "sparse":
                module.forward = made
                self.note(module, name, "sparse", f"{times.ratio:.2f} times as fast", times.milliseconds)
                return
            if leaf:
                self.note(module, name, "torch", f"sparse is {times.ratio:.2f} times as fast", times.milliseconds)
                return
        elif leaf:
            self.note(module, name, "torch", made, {})
            return
        for child_name, child in module.named_children():
            self(child, f"{name}.{child_name}".lstrip("."))

    def candidate(self, module: nn.Module) -> FastForward | str:
        """What could stand for the module's forward, or why nothing can."""
        shape = self.shapes.get(module)
        if shape is None or 0 in shape:
            return "its input is not one float32 tensor"
        rows = len(shape) not in (2, 4) or isinstance(module, nn.Linear)
        flat = (math.prod(shape[:-1]), shape[-1]) if rows else shape
        try:
            graph = single(module, flat) or traced(module, _drawn(flat))
        except NotTraced as error:
            return str(error)
        made = FastForward(module, Runner(graph, flat[1:], self.half), rows)
        x = _drawn(shape)
        with torch.inference_mode():
            return (
                made
                if _equal(made(x), module.forward(x), _HALF if self.half else _ROUNDING)
                else "it computes something else when traced"
            )

    def note(self, module: nn.Module, name: str, runs: str, why: str, milliseconds: Mapping[str, float]) -> None:
        """One row for each layer with weights in a module that was decided on."""
        for child, layer in module.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() > 1:
                full = ".".join(part for part in (name, child) if part)
                density = int(weight.count_nonzero()) / weight.numel()
                self.plan.append(Planned(full, type(layer).__name__, density, runs, why, dict(milliseconds)))


def _drawn(shape: tuple[int, ...]) -> Tensor:
    """Normal numbers; torch's own random state stays as it is."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _zeros(module: nn.Module) -> bool:
    """Whether there are zeros in it that could make it faster."""
    return any(p.dim() > 1 and int(p.count_nonzero()) < p.numel() for p in module.parameters())


def _equal(found: Any, wanted: Any, rounding: float = _ROUNDING) -> bool:
    """Whether two results have the same structure and, to what rounding leaves, the same numbers."""
    found, structure = pytree.tree_flatten(found)
    wanted, same = pytree.tree_flatten(wanted)
    return structure == same and all(
        a.shape == b.shape and float((a - b).abs().max()) <= rounding * float(b.abs().max())
        for a, b in zip(found, wanted, strict=True)
    )
