"""What a run records about its model and the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch
from torch import nn

import sparsight
from sparsight.model.masks import prunable
from sparsight.model.names import named
from sparsight.records.tensors import tensors_digest
from sparsight.runs.recipe import Recipe
from sparsight.train.parallel import Precision, runtime
from sparsight.types import Data, Split


def about_model(model: nn.Module, recipe: Recipe, spec: str | None) -> dict[str, Any]:
    """The type, counts and prunable tensors of a model, and the fingerprint of its weights."""
    weights = prunable(model, include=recipe.prunable.include, exclude=recipe.prunable.exclude)
    return {
        "spec": spec,
        "type": f"{type(model).__module__}:{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in named(model).values()),
        "prunable": sum(weight.numel() for weight in weights.values()),
        "tensors": {name: list(weight.shape) for name, weight in weights.items()},
        "fingerprint": tensors_digest(model.state_dict()),
    }


def most_frequent(data: Data) -> float | None:
    """The share of the most frequent validation label, the accuracy of guessing; None without classes.

    Ignores labels below 0.
    """
    labels = data.validation.y if isinstance(data.validation, Split) else None
    if labels is None or labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        return None
    counted = torch.unique(labels[labels >= 0], return_counts=True)[1]
    return int(counted.max()) / int(counted.sum()) if len(counted) else None


def about_environment(device: str, precision: Precision) -> dict[str, Any]:
    """Versions, machine, device, threads and processes."""
    packages = ("torch", "numpy", "numba", "safetensors", "accelerate")
    return {
        **runtime(device, precision).facts(),
        "sparsight": sparsight.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in packages},
    }
