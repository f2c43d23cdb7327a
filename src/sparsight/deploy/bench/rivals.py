"""Other runtimes for a network on a CPU, made from a case.

All use torch's number of threads. A single layer uses the runtime's fastest data layout; a network takes contiguous
float32. The results of OpenVINO and ONNX Runtime stay in their own memory, to keep Python's overhead small.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparsight.deploy.bench.cases import Case
from sparsight.deploy.bench.measure import quickest
from sparsight.deploy.exporting import onnx_program
from sparsight.numerics.checks import check_known

EXTRA = "pip install sparsight[bench]"


class Unavailable(Exception):
    """Why a rival cannot compute a case here."""


@dataclass(frozen=True)
class Way:
    """The function to time, its result in torch's layout (float32), and objects to keep alive."""

    call: Callable[[], Any]
    result: Callable[[], Tensor]
    keep: Any = None


@dataclass(frozen=True)
class Rival:
    """A runtime's name, its precision, and whether it skips zeros."""

    name: str
    precision: Literal["fp32", "bf16"]
    make: Callable[[Case], Way]
    sparse: bool = False


def chosen(names: Sequence[str] = ()) -> list[Rival]:
    """The rivals of these names (default: all). Raises: ValueError for an unknown one."""
    for name in names:
        check_known(tuple(RIVALS), rival=name)
    return [rival for name, rival in RIVALS.items() if not names or name in names]


# -- torch -----------------------------------------------------------------------------------------------------


def _torch(dtype: torch.dtype) -> Callable[[Case], Way]:
    def make(case: Case) -> Way:
        layout = torch.channels_last if case.x.dim() == 4 else torch.contiguous_format
        module: nn.Module = copy.deepcopy(case.module).to(dtype)
        module = module.to(memory_format=layout)  # type: ignore[call-overload]
        x = case.x.to(dtype, memory_format=layout)

        def call() -> Tensor:
            return module(x) if case.layer else module(case.x.to(dtype, memory_format=layout)).float()

        return Way(call, lambda: call().float())

    return make


def _csr(case: Case) -> Way:
    layer = case.module
    if not isinstance(layer, nn.Linear):
        raise Unavailable("it is timed for single linear layers alone, where torch takes CSR weights")
    with warnings.catch_warnings(action="ignore"):
        weight, x, bias = layer.weight.detach().to_sparse_csr(), case.x.T.contiguous(), layer.bias.detach()
        if case.x.shape[0] == 1:
            return Way(lambda: torch.addmv(bias, weight, x[:, 0]), lambda: torch.addmv(bias, weight, x[:, 0])[None])
        start = bias[:, None].expand(-1, x.shape[1]).contiguous()
        return Way(lambda: torch.addmm(start, weight, x), lambda: torch.addmm(start, weight, x).T)


# -- OpenVINO --------------------------------------------------------------------------------------------------


def _openvino(precision: Literal["fp32", "bf16"]) -> Callable[[Case], Way]:
    def make(case: Case) -> Way:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # else it reports each use
        ov = _imported("openvino")
        ways = {"as torch": _openvino_way(ov, case, precision, channels_last=False)}
        if case.layer and case.x.dim() == 4:
            ways["channels last"] = _openvino_way(ov, case, precision, channels_last=True)
            return ways[quickest({name: way.call for name, way in ways.items()})]
        return ways["as torch"]

    return make


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Restore the thread's signal stack: when compiling, OpenVINO replaces it and may free it while it is set.

    The next signal (Ctrl-C, the end of a child) would then kill the process.
    """
    if os.name != "posix":
        yield
        return
    old = ctypes.create_string_buffer(64)  # a stack_t is at most 24 bytes
    libc = ctypes.CDLL(None)
    libc.sigaltstack(None, old)
    try:
        yield
    finally:
        libc.sigaltstack(old, None)


def _openvino_way(ov: Any, case: Case, precision: str, channels_last: bool) -> Way:
    with warnings.catch_warnings(action="ignore"), torch.inference_mode(False):
        model = ov.convert_model(copy.deepcopy(case.module), example_input=case.x)
    model.reshape(list(case.x.shape))
    if channels_last:
        steps, here, there = ov.preprocess.PrePostProcessor(model), ov.Layout("NCHW"), ov.Layout("NHWC")
        for end in (steps.input(), steps.output()):
            end.model().set_layout(here)
            end.tensor().set_layout(there)
        model = steps.build()
    setting = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if precision == "fp32":
        setting["INFERENCE_PRECISION_HINT"] = "f32"
    with _signal_stack_kept():
        compiled = ov.Core().compile_model(model, "CPU", setting)
    computes = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if precision == "bf16" and computes != "bf16":
        raise Unavailable(f"OpenVINO computes in {computes} by default on this processor")
    request = compiled.create_infer_request()
    x = (case.x.permute(0, 2, 3, 1) if channels_last else case.x).contiguous().numpy()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def result() -> Tensor:
        request.infer()
        found = torch.from_numpy(request.get_output_tensor().data.copy())
        return found.permute(0, 3, 1, 2) if channels_last else found

    return Way(request.infer, result, keep=x)


# -- ONNX Runtime ----------------------------------------------------------------------------------------------


def _onnxruntime(case: Case) -> Way:
    runtime = _imported("onnxruntime")
    for package in ("onnx", "onnxscript"):  # torch needs them to write ONNX
        _imported(package)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # after a call: the next way needs the cores
    session = runtime.InferenceSession(
        onnx_program(case.module, (case.x,)), options, providers=["CPUExecutionProvider"]
    )
    binding, x = session.io_binding(), case.x.contiguous().numpy()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    binding.bind_output(session.get_outputs()[0].name)

    def call() -> None:
        session.run_with_iobinding(binding)

    def result() -> Tensor:
        call()
        return torch.from_numpy(binding.copy_outputs_to_cpu()[0])

    return Way(call, result, keep=x)


# --------------------------------------------------------------------------------------------------------------


def _imported(name: str) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(name)
    except ImportError as error:
        raise Unavailable(f"{name} is not installed: {EXTRA}") from error


RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival("torch", "fp32", _torch(torch.float32)),
        Rival("torch-bf16", "bf16", _torch(torch.bfloat16)),
        Rival("torch-csr", "fp32", _csr, sparse=True),
        Rival("onnxruntime", "fp32", _onnxruntime),
        Rival("openvino", "fp32", _openvino("fp32")),
        Rival("openvino-bf16", "bf16", _openvino("bf16")),
    )
}
"""By name. bf16 weights are converted beforehand: autocast, which converts them in each call, is never faster."""
