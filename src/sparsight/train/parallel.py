"""Devices, mixed precision and several processes: the only file that knows accelerate."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsight.numerics.checks import check_known

Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True)
class Runtime:
    """Where and how tensors are computed. Make it with `runtime`."""

    accelerator: Any

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """True in the one process that writes files and talks."""
        return self.accelerator.is_main_process

    def parallel(self, model: nn.Module) -> nn.Module:
        """The module to call in training: `model`, or `model` wrapped so that gradients are averaged."""
        return self.accelerator.prepare_model(model) if self.world > 1 else model

    def steps(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser to step with: it skips a step whose scaled gradients overflowed."""
        return self.accelerator.prepare_optimizer(optimizer) if self.accelerator.scaler is not None else optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast() if self.accelerator.mixed_precision != "no" else nullcontext()

    def backward(self, loss: Tensor) -> None:
        if self.accelerator.scaler is None:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(optimizer)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return self.accelerator.reduce(values, reduction="sum") if self.world > 1 else values

    def wait(self) -> None:
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def facts(self) -> dict[str, Any]:
        """JSON values for the run's record."""
        return {
            "device": self.device.type,
            "precision": self.accelerator.mixed_precision,
            "world_size": self.world,
            "threads": torch.get_num_threads(),
        }


def runtime(device: str = "auto", precision: Precision = "no") -> Runtime:
    """A runtime on `device` ("auto", "cpu", "cuda", "mps"), under torchrun over all its processes.

    "auto" takes an accelerator where there is one. ValueError if the device asked for is not there.
    """
    check_known(Precision, precision=precision)
    there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        able = ", ".join(repr(name) for name, is_there in there.items() if is_there)
        raise ValueError(f"device {device!r} cannot be used here, expected one of {able}")
    return Runtime(_accelerator()(device == "cpu", precision))


@functools.cache
def _accelerator() -> Any:
    """A maker of accelerators. accelerate keeps its first settings for the whole process unless told to forget."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def make(cpu: bool, precision: str) -> Any:
        AcceleratorState._reset_state()
        return Accelerator(cpu=cpu, mixed_precision=precision)

    return make
