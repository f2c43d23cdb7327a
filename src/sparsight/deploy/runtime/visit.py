"""Decides what runs sparse in a network, from the whole down to the layers, by timing each part against torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsight.deploy.runtime.choice import Timed, timed
from sparsight.deploy.runtime.program import Runner
from sparsight.deploy.runtime.stored import Stored
from sparsight.deploy.runtime.trace import NotTraced, plain, single, traced

_ROUNDING, _HALF = 1e-4, 5e-2  # of the largest output, with weights in float32 and in bfloat16


@dataclass(frozen=True)
class Planned:
    """One module of the plan: what runs it, why, and the minimum milliseconds of each way."""

    name: str
    kind: str
    density: float
    runs: str
    why: str
    milliseconds: dict[str, float]


class FastForward:
    """Replaces a module's forward: sparse for inputs like the example, the module's own for all others."""

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


@dataclass
class Visit:
    """Goes through a module's parts from the whole to the layers."""

    shapes: Mapping[nn.Module, tuple[int, ...] | None]
    stored: Stored
    seconds: float
    half: bool
    plan: list[Planned] = field(default_factory=list)
    _seen: set[nn.Module] = field(default_factory=set)

    def __call__(self, module: nn.Module, name: str = "") -> None:
        """Make a module run sparse if that is faster, otherwise visit its parts."""
        if module in self._seen or not self.zeros(module):
            return
        self._seen.add(module)
        made = self.candidate(module)
        why, milliseconds = str(made), {}
        if isinstance(made, FastForward):
            times = self.compared(module, made)
            milliseconds = {} if times is None else times.milliseconds
            if times is None or times.fastest == "sparse":
                module.forward = made
                why = "not timed" if times is None else f"{times.ratio:.2f} times as fast"
                self.note(module, name, "sparse", why, milliseconds)
                return
            why = f"sparse is {times.ratio:.2f} times as fast"
        if not any(True for _ in module.children()):
            self.stored.fill_(module)
            self.note(module, name, "torch", why, milliseconds)
            return
        before = len(self.plan)
        for child_name, child in module.named_children():
            self(child, f"{name}.{child_name}".lstrip("."))
        if isinstance(module, nn.TransformerEncoderLayer) and any(row.runs == "sparse" for row in self.plan[before:]):
            vars(module)["activation_relu_or_gelu"] = 0  # its fast path reads weights without calling layers

    def compared(self, module: nn.Module, made: FastForward) -> Timed | None:
        """The times of both ways; None if timing is off."""
        if not self.seconds:
            return None
        shape = self.shapes[module]
        assert shape is not None
        x, key = _drawn(shape), (made.runner.graph.signature(), shape, self.half)
        ways = {"torch": lambda: module.forward(x), "sparse": lambda: made(x)}
        return timed(ways, self.seconds, key, self.stored.dense(module))

    def candidate(self, module: nn.Module) -> FastForward | str:
        """A sparse replacement for the module's forward, or the reason why there is none."""
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
        """Return to the plain network if the faster parts do not make the whole faster."""
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
        """Whether it has zeros that could make it faster."""
        layers = (child.weight for child in module.modules() if plain(child))  # may be recomputed before each call
        return any(
            w in self.stored.weights or (w.dim() > 1 and int(w.count_nonzero()) < w.numel())
            for w in (*module.parameters(), *layers)
        )

    def note(self, module: nn.Module, name: str, runs: str, why: str, milliseconds: Mapping[str, float]) -> None:
        """Add a row for each layer with weights in a module."""
        for child, layer in module.named_modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor) and weight.dim() > 1:
                full = ".".join(part for part in (name, child) if part)
                known = self.stored.weights.get(weight)
                density = int(weight.count_nonzero()) / weight.numel() if known is None else known.density
                self.plan.append(Planned(full, type(layer).__name__, density, runs, why, dict(milliseconds)))


def held(fast: nn.Module) -> int:
    """Bytes of activations and scratch held by calls of a `sparse_runtime` network."""
    forwards = (vars(module).get("forward") for module in fast.modules())
    return sum(forward.runner.memory() for forward in forwards if isinstance(forward, FastForward))


def _drawn(shape: tuple[int, ...]) -> Tensor:
    """Normal numbers, without changing torch's random state."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _equal(found: Any, wanted: Any, rounding: float = _ROUNDING) -> bool:
    """Whether two results have the same structure and, up to rounding, the same numbers."""
    found, structure = pytree.tree_flatten(found)
    wanted, same = pytree.tree_flatten(wanted)
    return structure == same and all(
        a.shape == b.shape and (not a.numel() or float((a - b).abs().max()) <= rounding * float(b.abs().max()))
        for a, b in zip(found, wanted, strict=True)
    )
