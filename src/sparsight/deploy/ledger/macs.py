"""Multiplications of a network, dense and weighted by density, from torch's flop counter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_aten = torch.ops.aten
_FACTORS = dict.fromkeys((_aten.mm, _aten.bmm, _aten.convolution, _aten._convolution), slice(0, 2))
_FACTORS |= dict.fromkeys((_aten.addmm, _aten.baddbmm), slice(1, 3))
"""Which arguments of an operation are multiplied."""


def macs(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, int]:
    """Multiply-accumulates of one call of a model in evaluation mode: dense, and with nonzero weights only.

    Dense is half of what `torch.utils.flop_counter` counts, attention by its products, plus the LSTMs that it leaves
    out. For the second number, products with a weight, or with a tensor computed only from weights, are scaled by its
    density; products of activations count in full. Padding counts as in torch: a border costs as much as the inside.
    Raises: ValueError if the model fails on the inputs.
    """
    weights = _ByWeights([*model.parameters(), *model.buffers()])
    counter, fast = FlopCounterMode(display=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it is one operation, which is not counted
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), weights, counter:
            model(*inputs)
    except Exception as error:
        raise ValueError(f"the model fails on the example: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    dense = counter.get_total_flops() // 2 + weights.of_lstms
    return dense, dense - weights.saved


class _ByWeights(TorchDispatchMode):
    """Sums up the multiplications saved by zeros in weights."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.saved = self.of_lstms = 0
        self._known: dict[int, Tensor] = {}  # by address; kept alive, because freed memory is reused
        for weight in weights:
            self._know(weight)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if given and all(map(self._is_known, given)):
            for found in pytree.tree_leaves(out):
                if isinstance(found, Tensor):
                    self._know(found)
        packet = getattr(func, "_overloadpacket", None)
        if packet in _FACTORS:
            factors = args[_FACTORS[packet]]
            share = [(int(x.count_nonzero()), x.numel()) for x in factors if self._is_known(x)]
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            self.saved += max((flops // 2 * (size - alive) // size for alive, size in share if size), default=0)
        if packet is _aten.mkldnn_rnn_layer:  # an LSTM in one operation
            x, *weights = args[:3]
            for weight in weights:
                each = x.shape[:-1].numel()
                self.of_lstms += each * weight.numel()
                self.saved += each * int((weight == 0).sum()) if self._is_known(weight) else 0
        return out

    def _know(self, tensor: Tensor) -> None:
        if tensor.numel():
            self._known[tensor.untyped_storage().data_ptr()] = tensor

    def _is_known(self, tensor: Tensor) -> bool:
        return tensor.numel() == 0 or tensor.untyped_storage().data_ptr() in self._known
