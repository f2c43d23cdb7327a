"""Devices, mixed precision and several processes: the only file that knows accelerate."""

from __future__ import annotations

import copy
import datetime
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from sparsight.numerics.checks import check_known

Precision = Literal["no", "bf16", "fp16"]
T = TypeVar("T")

PATIENCE = datetime.timedelta(days=7)
"""How long a process waits for a live one, which may be evaluating, writing or downloading. Dead ones are noticed."""


class LostProcess(RuntimeError):
    """Another process of the run has ended, so this one cannot continue."""


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
        """Whether this is the process that writes files and prints."""
        return self.accelerator.is_main_process

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

    # -- several processes -------------------------------------------------------------------------------------

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            with _together():
                distributed.all_reduce(values)
        return values

    def average_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Set each gradient to its mean over all processes, with the same bits in each.

        A missing gradient counts as zeros; one missing everywhere stays None. Raises: ValueError for sparse gradients.
        """
        if self.world == 1:
            return
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                by_type.setdefault(parameter.dtype, []).append(parameter)
        for those in by_type.values():
            self._average_(those)

    def _average_(self, parameters: list[nn.Parameter]) -> None:
        grads = [parameter.grad for parameter in parameters]
        if any(grad is not None and grad.layout is not torch.strided for grad in grads):
            raise ValueError(
                f"{self.world} processes cannot average sparse gradients, expected dense ones: make the layer with "
                "sparse=False, or start one process"
            )
        parts = [p.new_zeros(p.numel()) if g is None else g.reshape(-1) for p, g in zip(parameters, grads, strict=True)]
        there = parts[0].new_tensor([grad is not None for grad in grads])
        flat = self.total(torch.cat([*parts, there]).div_(self.world))
        *means, found = flat.split([*map(len, parts), len(there)])
        shares = found.tolist() if any(grad is None for grad in grads) else [1.0] * len(grads)
        for parameter, mean, share in zip(parameters, means, shares, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter))
            elif share:
                parameter.grad = mean.view_as(parameter).clone()

    def broadcast_model_(self, model: nn.Module) -> None:
        """Copy the main process's parameters and buffers to all others."""
        if self.world > 1:
            with _together(), torch.no_grad():
                for value in model.state_dict(keep_vars=True).values():
                    if isinstance(value, Tensor):
                        same = value.detach().contiguous()
                        distributed.broadcast(same, 0)
                        value.detach().copy_(same)

    def broadcast(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process and send its result or error to all. Tensors must be on the CPU."""
        if self.world == 1:
            return make()
        made, error = None, None
        if self.main:
            try:
                made = make()
            except Exception as caught:
                error = caught
        box: list[Any] = [(made, _portable(error))]
        with _together():
            distributed.broadcast_object_list(box, 0)
        if error is not None or box[0][1] is not None:
            raise error or box[0][1]
        return made if self.main else box[0][0]  # type: ignore[return-value]

    def on_main(self, make: Callable[[], T]) -> T | None:
        """Call `make` in the main process, while the others wait and get None. An error is raised in all."""
        made: list[T] = []
        self.broadcast(lambda: made.append(make()))
        return made[0] if made else None

    def main_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the main process, for instance to download a file, then in all others."""
        made = self.on_main(make)
        return made if self.main else make()  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        found: list[Any] = [value] * self.world
        if self.world > 1:
            with _together():
                distributed.all_gather_object(found, value)
        return found

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

    "auto" takes an accelerator if there is one. Raises: ValueError without the requested device for each process.
    """
    check_known(Precision, precision=precision)
    there = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        able = ", ".join(repr(name) for name, is_there in there.items() if is_there)
        raise ValueError(f"device {device!r} cannot be used here, expected one of {able}")
    return Runtime(_accelerator()(device == "cpu" or _several_on_cpu(device), precision))


def _several_on_cpu(device: str) -> bool:
    """Whether several processes run on the CPU. Raises: ValueError if they would have to share a GPU."""
    several, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if "LOCAL_RANK" not in os.environ or several == 1 or device == "cpu":
        return False
    gpus = torch.cuda.device_count()
    if device == "mps" or 0 < gpus < here:
        found = "Metal supports only one" if device == "mps" else f"this machine has {gpus} GPU{'s' * (gpus > 1)}"
        raise ValueError(
            f"{here} processes need a GPU each, and {found}: start as many as there are GPUs, or use device 'cpu'"
        )
    return not gpus


@functools.cache
def _accelerator() -> Any:
    """A function that makes accelerators. It resets accelerate's state, which would keep the first settings."""
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    def make(cpu: bool, precision: str) -> Any:
        AcceleratorState._reset_state()
        patient = InitProcessGroupKwargs(timeout=PATIENCE)
        return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[patient])

    return make


@contextmanager
def _together() -> Iterator[None]:
    """A block of communication between processes. Raises: LostProcess if one is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcess("another process of the run has ended, so this one cannot continue") from error


def _portable(error: Exception | None) -> Exception | None:
    """The error if another process can rebuild it from its class and arguments, otherwise a RuntimeError."""
    with suppress(Exception):
        if "<locals>" not in type(error).__qualname__:
            return copy.copy(error)
    return RuntimeError(f"{type(error).__name__}: {error}")


def leave() -> None:
    """Leave the process group, if there is one, when all processes are done."""
    if distributed.is_available() and distributed.is_initialized():
        with _together():
            distributed.barrier()  # no process leaves while another still waits for it
        distributed.destroy_process_group()
