"""Runs a graph on batches of any size."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsight.deploy.runtime.graph import Graph
from sparsight.deploy.runtime.program import Program, compiled
from sparsight.deploy.runtime.writer import Weights
from sparsight.numerics.kernels.llvm import LANES

_KEPT = 8  # cached programs, each for a number of images
_FEW_ROWS = 3  # up to this many matrix-vector products are faster than one product with 16 columns


@dataclass
class Runner:
    """Maps a batch (N, ...) of any N to the result of the traced module."""

    graph: Graph
    shape: tuple[int, ...]
    half: bool = False
    _weights: Weights = field(default_factory=dict)
    _programs: dict[int, Program] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def takes(self, x: Any) -> bool:
        """Whether this is a supported input, with any number of images or rows, even none."""
        return (
            isinstance(x, Tensor)
            and x.dtype == torch.float32
            and x.device.type == "cpu"
            and x.layout == torch.strided
            and tuple(x.shape[1:]) == self.shape
            and not torch.is_autocast_enabled("cpu")
        )

    def program(self, images: int) -> Program:
        with self._lock:
            found = self._programs.get(images)
            if found is None:
                found = compiled(self.graph, images, self._weights, self.half)
                while len(self._programs) >= _KEPT:
                    self._programs.pop(next(iter(self._programs)))
                self._programs[images] = found
            return found

    def memory(self) -> int:
        """Bytes of activations and scratch of all programs so far."""
        return sum(program.memory() for program in self._programs.values())

    def parts(self, images: int) -> list[int]:
        """Images per program: at least 16 as lanes, a few one by one, because unused lanes cost as much as others."""
        if self.flat:
            return [images] if images > _FEW_ROWS else [1] * images
        left = images % LANES
        return [*([images - left] if images >= LANES else []), *[1] * left]

    @property
    def flat(self) -> bool:
        return all(value.shape[1:] == (1, 1) for value in self.graph.values)

    def __call__(self, x: Tensor) -> Any:
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("the sparse runtime computes no gradients: call it under torch.inference_mode()")
        x = x.detach().contiguous()
        outputs = [
            torch.empty(len(x), *value.shape[: rank - 1])
            for value, rank in zip(self.graph.outputs, self.graph.ranks, strict=True)
        ]
        at = 0
        for images in self.parts(len(x)):
            self.program(images).into([out[at : at + images] for out in outputs], x[at : at + images])
            at += images
        if self.graph.structure is None:
            return outputs[0]
        return pytree.tree_unflatten(outputs, self.graph.structure)
