"""Facts about each parameter: its module, its kind, its layout, and whether it is prunable."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from sparsight.model.names import modules_of, named, names_of
from sparsight.numerics.checks import check_gathered
from sparsight.types import Layout, Scored, Scores

Kind = Literal["linear", "convolution", "transposed convolution", "attention", "experts"]

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PLAIN = Layout()
_ONLY_SCALE = (parametrizations._WeightNorm, parametrizations._SpectralNorm)  # and so keep zeros
_COMPUTED = "a weight is computed from it, which may not keep its zeros; remove the parametrisation first"


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter and its role in a module."""

    name: str  # its first name
    names: tuple[str, ...]  # all names: several if it is tied
    parameter: nn.Parameter
    module: nn.Module  # the layer that uses it
    kind: Kind | None  # None: not prunable by default
    layout: Layout = _PLAIN
    parametrised: bool = False  # the layer's weight is computed from it, and keeps its zeros
    computed: str = ""  # the name of that weight in the module
    why: str = ""  # why it is not prunable by default, or at all
    given: Tensor | None = None  # the mask of `torch.nn.utils.prune`, 1 = kept
    norm: int | None = None  # weight norm: the dimension in which every index needs a kept weight, -1 for all at once

    @property
    def value(self) -> Tensor:
        """What the layer computes with: the parameter, or the weight computed from it, which has the same zeros."""
        return getattr(self.module, self.computed) if self.computed else self.parameter


def weights(model: nn.Module) -> dict[str, Weight]:
    """Every parameter of a model by its first name, in the order of `named_parameters()`. Raises: TypeError."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be an nn.Module, got {type(model).__name__}")
    owners, heads, found = names_of(model), _output_embeddings(model), {}
    computed = {  # by the identity of a list of parametrisations
        id(steps): (leaf, module)
        for _, module in modules_of(model)
        if is_parametrized(module)
        for leaf, steps in module.get_submodule("parametrizations").named_children()
    }
    for name, parameter in named(model).items():
        uses = owners[id(parameter)]
        each = [_described(n, parameter, m, computed) for n, m in uses]
        kind = None if any(use.kind is None for use in each) else each[0].kind
        why = next((use.why for use in each if use.why), "")
        others = [n for n, m in uses if not isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
        if 0 < len(others) < len(uses):
            kind, why = None, f"output embeddings, tied as {others[0]!r}"
        elif id(parameter) in heads:
            kind, why = None, "output embeddings"
        if parameter.dtype not in DTYPES:
            kind, why = None, f"{parameter.dtype} cannot be pruned"
        found[name] = dataclasses.replace(each[0], names=tuple(n for n, _ in uses), kind=kind, why=why)
    return found


def layout_of(module: nn.Module) -> tuple[Kind | None, Layout]:
    """The kind and layout of `module.weight` for a linear layer or a convolution; no kind for any other module."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "transposed convolution", Layout(module.groups, swapped=True)
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolution", Layout(module.groups)
    if isinstance(module, nn.Linear):
        return "linear", Layout()
    return ("linear", Layout(swapped=True)) if _is_conv1d(module) else (None, Layout())


def layouts(model: nn.Module, names: Container[str]) -> dict[str, Layout]:
    """The layouts of the tensors that are not [outputs, inputs, *kernel]."""
    return {name: w.layout for name, w in weights(model).items() if name in names and w.layout != _PLAIN}


def laid_out(model: nn.Module, scores: Scores) -> Scores:
    """The scores with the layouts of their tensors, if any are special. Raises: TypeError for sharded tensors."""
    check_gathered(scores)
    found = layouts(model, scores)
    if not found:
        return scores
    return dataclasses.replace(scores if isinstance(scores, Scored) else Scored(scores), layouts=found)


# -- which module, and which of its parameters ---------------------------------------------------------------------


def _described(
    name: str, parameter: nn.Parameter, owner: nn.Module, computed: Mapping[int, tuple[str, nn.Module]]
) -> Weight:
    path, _, leaf = name.rpartition(".")
    if id(owner) in computed and isinstance(owner, ParametrizationList):
        stem, module = computed[id(owner)]
        kind, layout = _kind(path.rpartition(".parametrizations.")[0], stem, parameter, module)
        norm = next((step.dim for step in owner if isinstance(step, parametrizations._WeightNorm)), None)
        keeps = leaf == ("original" if norm is None else "original1")
        if kind is None or not keeps or not all(isinstance(step, _ONLY_SCALE) for step in owner):
            return Weight(name, (), parameter, module, None, parametrised=True, why=_COMPUTED)
        return Weight(name, (), parameter, module, kind, layout, parametrised=True, computed=stem, norm=norm)
    stem, _, end = leaf.rpartition("_")
    given = owner._buffers.get(f"{stem}_mask") if end == "orig" else None
    kind, layout = _kind(path, leaf if given is None else stem, parameter, owner)
    old = (end == "orig" and f"{stem}_u" in owner._buffers) or (end == "v" and f"{stem}_g" in owner._parameters)
    return Weight(name, (), parameter, owner, kind, layout, why=_COMPUTED if old else "", given=given)


def _kind(path: str, leaf: str, parameter: nn.Parameter, module: nn.Module) -> tuple[Kind | None, Layout]:
    """The kind and layout of parameter `leaf` of the module at `path`."""
    kind, layout = layout_of(module)
    if kind is not None and leaf == "weight":
        return kind, layout
    if isinstance(module, nn.MultiheadAttention) and leaf in _PROJECTIONS:
        return "attention", Layout()
    if _is_stack(path, leaf, parameter, module):
        return "experts", Layout(swapped=_inputs_first(leaf, parameter, module), stacked=True)
    return None, Layout()


def _is_conv1d(module: nn.Module) -> bool:
    """Whether `module` is transformers' Conv1D, a linear layer with a weight [inputs, outputs]."""
    kinds = [kind for kind in type(module).__mro__ if kind.__name__ == "Conv1D"]
    weight = getattr(module, "weight", None) if kinds else None
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        return False
    known = any(kind.__module__ == "transformers.pytorch_utils" for kind in kinds)
    return known or getattr(module, "nf", None) == weight.shape[1]


def _is_stack(path: str, leaf: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether the parameter stacks experts: three dimensions, in a module named after experts."""
    if isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.dim() != 3:
        return False
    kinds = [kind.__name__ for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")]
    named_so = "expert" in path.lower() or any(w in k.lower() for k in kinds for w in ("expert", "moe"))
    return named_so and "bias" not in leaf and min(parameter.shape[1:]) > 1 and layout_of(module)[0] is None


def _inputs_first(leaf: str, parameter: nn.Parameter, module: nn.Module) -> bool:
    """Whether weights of experts are [experts, inputs, outputs], and not [experts, outputs, inputs].

    Uses the module's `is_transposed`, otherwise a bias [experts, outputs], otherwise the shapes of `gate_up_proj`
    (twice as many outputs as `down_proj` has inputs). Without any of these, outputs come first, as in `nn.Linear`.
    """
    said = getattr(module, "is_transposed", None)
    if isinstance(said, bool):
        return said
    first, second = parameter.shape[1:]
    for bias in (f"{leaf}_bias", leaf.replace("weight", "bias")):
        at = module._parameters.get(bias)
        if at is not None and bias != leaf and first != second and at.shape[-1] in (first, second):
            return at.shape[-1] == second
    up, down = (module._parameters.get(which) for which in ("gate_up_proj", "down_proj"))
    if up is None or down is None or up.dim() != 3 or down.dim() != 3:
        return False
    return up.shape[2] == 2 * down.shape[1] and up.shape[1] == down.shape[2]


def _output_embeddings(model: nn.Module) -> set[int]:
    """The identities of the parameters of `get_output_embeddings()`, the heads of transformers' language models."""
    found: set[int] = set()
    for _, module in modules_of(model):
        get: Any = getattr(module, "get_output_embeddings", None)
        if not callable(get):
            continue
        try:
            head = get()
        except (AttributeError, NotImplementedError, TypeError):  # a model without one
            continue
        if isinstance(head, nn.Module):
            found |= {id(parameter) for parameter in head.parameters()}
        elif isinstance(head, nn.Parameter):
            found.add(id(head))
    return found
