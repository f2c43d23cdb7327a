"""The machine and the versions behind a timing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from llvmlite import binding

PACKAGES = ("sparsight", "torch", "numba", "numpy", "openvino", "onnxruntime", "onnx", "onnxscript")
FEATURES = ("avx2", "avx512f", "avx512bf16", "amx-bf16", "neon")


def machine() -> dict[str, Any]:
    """JSON values: the processor's name, its vector extensions, cores, torch's threads, and the installed versions."""
    features = binding.get_host_cpu_features()
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "features": [name for name in FEATURES if features.get(name)],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    kind = next(named, "") or platform.processor() or platform.machine()
    return f"{kind} ({binding.get_host_cpu_name()})"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
