"""Exports a network as ONNX, with torch.export, or as a plain state dict, after comparing it with the module."""

from __future__ import annotations

import importlib
import io
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsight.deploy.comparing import copied, difference, drawn, first_line, tensors
from sparsight.numerics.checks import check_known
from sparsight.records.outputs import check_output, write_output
from sparsight.records.tensors import write_tensors

To = Literal["onnx", "exported", "state-dict"]
ONNX = ("onnx", "onnxscript", "onnxruntime")
EXTRA = "pip install sparsight[export]"

_TOLERANCE = 1e-4  # of the largest output, or of 1: other kernels round differently
_MOST = 2_000_000_000  # bytes of weights in one ONNX file, which is a protobuf of 2 GiB at most


@dataclass(frozen=True)
class Export:
    """A written file, its bytes, and the largest difference from the module, over its largest output or 1."""

    path: Path
    to: To
    size: int
    difference: float


def export(
    model: nn.Module, example_inputs: Tensor | tuple[Any, ...], path: str | os.PathLike[str], *, to: To = "onnx"
) -> Export:
    """Write a network as a file for other programs.

    "onnx" (by torch.onnx, run in ONNX Runtime) and "exported" (by torch.export, loaded again) are first compared with
    the module: on the example, on its first input alone, and on random inputs. They take any batch size. "state-dict"
    is a safetensors file of the plain state dict. The model is not changed.

    Args:
        model: a module in evaluation mode.
        example_inputs: a tensor, or a tuple of positional arguments, the batch first; real inputs are best.
        path: a file, replaced as a whole or not at all.
        to: "onnx" (needs the extra `export`), "exported" or "state-dict".

    Raises:
        ValueError: the model is in training mode, cannot be exported, or the export computes something else.
        ModuleNotFoundError: the ONNX packages are missing.
        OSError: the file cannot be written.
    """
    check_known(get_args(To), to=to)
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    path = Path(path)
    check_output(path)
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if to == "state-dict":
        write_tensors(path, model.state_dict(), {}, write_output)
        return Export(path, to, path.stat().st_size if path.is_file() else 0, 0.0)
    content, call = (_onnx if to == "onnx" else _exported)(model, inputs)
    compared = (inputs, _mapped(lambda x: x[:1], inputs), drawn(inputs))
    far = difference(copied(model), call, compared, _TOLERANCE, "what was exported")
    write_output(path, [content])
    return Export(path, to, len(content), far)


def onnx_program(module: nn.Module, inputs: tuple[Any, ...], **options: Any) -> bytes:
    """A module as ONNX, exported by torch without showing its messages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), torch.inference_mode(False):
            written = torch.onnx.export(copied(module), inputs, dynamo=True, verbose=False, **options)
    finally:
        logger.setLevel(level)
    assert written is not None
    return written.model_proto.SerializeToString()


def _onnx(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[bytes, Callable[..., Any]]:
    for package in ONNX:
        try:
            with warnings.catch_warnings(action="ignore"):
                importlib.import_module(package)
        except ImportError as error:
            raise ModuleNotFoundError(f"{package} is not installed, which ONNX needs: {EXTRA}") from error
    size = sum(value.nbytes for value in model.state_dict().values() if isinstance(value, Tensor))
    if size > _MOST:
        raise ValueError(
            f"one ONNX file holds at most {_MOST:,} bytes of weights, got {size:,}: expected to='exported'"
        )
    import onnxruntime

    try:
        content = onnx_program(model, _two(inputs), dynamic_shapes=_any_batch(inputs))
    except Exception as error:
        raise ValueError(f"torch.onnx cannot export this model: {first_line(error)}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def call(*args: Any) -> list[Tensor]:
        given = {name: x.detach().cpu().numpy() for name, x in zip(names, tensors(args), strict=True)}
        return [torch.from_numpy(found) for found in session.run(None, given)]

    return content, call


def _exported(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[bytes, Callable[..., Any]]:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.export.export(copied(model), _two(inputs), dynamic_shapes=_any_batch(inputs))
            torch.export.save(program, buffer)
            buffer.seek(0)
            again = torch.export.load(buffer).module()
    except Exception as error:
        raise ValueError(f"torch.export cannot export this model: {first_line(error)}") from error
    return buffer.getvalue(), again


def _any_batch(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Dynamic shapes: the first dimension of every tensor is the batch."""
    batch = torch.export.Dim("batch", min=1)
    return pytree.tree_map(lambda x: {0: batch} if isinstance(x, Tensor) and x.dim() else None, inputs)


def _two(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first input twice: torch would treat a batch size of 1 as fixed."""
    return _mapped(lambda x: torch.cat([x[:1], x[:1]]), inputs)


def _mapped(change: Callable[[Tensor], Tensor], inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return pytree.tree_map(lambda x: change(x) if isinstance(x, Tensor) and x.dim() else x, inputs)
