"""`sparse_runtime`: a copy of a module in which the parts that gain from it run sparse."""

from __future__ import annotations

import copy
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.deploy.comparing import copied
from sparsight.deploy.network_of_run import default_level, input_shape, known_network, level_file
from sparsight.deploy.runtime.stored import Stored, stored_in
from sparsight.deploy.runtime.visit import Visit
from sparsight.records.folder import RunFolder


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
    """A module with the model's outputs, in which every part that is faster sparse on this machine runs sparse.

    The module is a copy that shares the memory of parameters; the model is not changed. Every traceable part and every
    linear layer is timed in torch and in the sparse kernels, on inputs of the example's shape, and the faster one is
    used; all stays in torch if the whole network gains nothing. The zeros are those at the time of the call. Other
    batch sizes work; inputs of other shapes or types run in torch.

    Weights of a packed file with many zeros are read without them. Their dense form exists only while a part is timed,
    or if dense is faster. Such a network takes float32 inputs of any shape, and has no state dict.

    Args:
        model: a module in evaluation mode, or the folder of a run with a zoo network.
        example_inputs: a tensor, or a tuple of positional arguments. Default: zeros with the shape of the run's data.
        weights: a checkpoint, packed or not, or a run folder, with tensors that replace the model's, which may be on
            the meta device.
        bfloat16: store sparse weights in bfloat16, rounded, in half the memory; sums stay float32.
        seconds: at most this long per measurement. 0: measure nothing, and run sparse whatever can be.

    Returns:
        A module with an attribute `plan`, a list of `Planned`.

    Raises:
        ValueError: the model is in training mode or fails on the example, the run's network is unknown, or `weights`
            do not fit.
        CheckpointError, FileNotFoundError: the weights cannot be read.
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
    visit = Visit(shapes, stored, seconds, bfloat16)
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
    """A copy with its own buffers, and parameters without gradients that share the model's memory."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().clone()
    return copied(model, memo)


def _shapes(model: nn.Module, inputs: tuple[Any, ...], stored: Stored) -> dict[nn.Module, tuple[int, ...] | None]:
    """The input shape of each called module, None unless it is one float32 tensor.

    Restores dense weights of layers if other code reads them.
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
