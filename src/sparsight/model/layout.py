"""A mask with the memory layout of its weight, to clear pruned weights in one pass over both."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.model.masks import PLAIN, local, share, verify_weight
from sparsight.numerics.kernels.clear import BITS, Place, clear, clear_plainly_, table


class Hold:
    """A weight and its mask.

    `mask` is a copy on the weight's device, in its memory order; for a sharded weight (FSDP2), the local part. `rows`
    is the kernel's work on the weight, None if tensor code does it: on other devices, or if the weight's memory has
    gaps.
    """

    rows: np.ndarray | None = None

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self.name, self.weight, self.mask = name, weight, mask
        self.plain = type(weight) in PLAIN
        self._whole = None if self.plain else mask.clone()
        self.lay()

    @property
    def values(self) -> Tensor:
        """The weight, or its local part."""
        return self.weight.detach() if self.plain else local(self.weight.detach())

    @property
    def whole(self) -> Tensor:
        """The mask of the whole weight."""
        return self.mask if self._whole is None else self._whole

    def lay(self) -> None:
        """Give the mask the current layout of the weight, and check it.

        Raises: ValueError for a weight of another shape, TypeError for one that is not a dense tensor with values.
        """
        self._refuse_shape(self.weight)
        weight = self.values
        if self.rows is not None and weight.is_cpu and self._where()[1:] == self._key[1:]:  # only moved
            self.rows[:, 0] += weight.data_ptr() - self._key[0]
            self._key = self._where()
            return
        if weight.layout is not torch.strided or weight.element_size() not in BITS or weight.is_meta:
            raise TypeError(
                f"cannot hold the mask of {self.name!r}: expected a dense floating-point weight with values, got "
                f"{weight.dtype}, {weight.layout} on {weight.device.type}"
            )
        self.rows = None
        self.mask = torch.empty_like(weight, dtype=torch.bool).copy_(share(self.whole, self.weight))
        place = self.place_of(weight)
        self.rows = None if place is None else table([place], weight.element_size())
        self.check()
        self._key = self._where()

    def _where(self) -> tuple[int, tuple[int, ...], torch.Size, torch.dtype]:
        weight = self.weight if self.plain else self.values
        return weight.data_ptr(), weight.stride(), weight.shape, weight.dtype

    def moved(self) -> bool:
        """Whether the weight has moved, or changed its layout or dtype, since `lay`."""
        return self._where() != self._key

    def place_of(self, x: Tensor) -> Place | None:
        """The kernel's work on `x`, the weight or its gradient; None if its layout differs from the mask's."""
        if type(x) not in PLAIN or not x.is_cpu or x.layout is not torch.strided or x.shape != self.mask.shape:
            return None
        if not x.numel() or (x.stride() != self.mask.stride() and not _same_order(x, self.mask)):
            return None
        return x.data_ptr(), self.mask.data_ptr(), x.numel()

    def clear_grad_plainly_(self, grad: Tensor) -> None:
        """Set the gradient of every pruned weight to +0.0, in tensor code; it may be sparse (COO)."""
        self._refuse_shape(grad)
        grad = local(grad)
        if grad.layout is torch.sparse_coo:
            clear_plainly_(grad._values(), self.mask.to(grad.device)[tuple(grad._indices())])
        elif grad.layout is torch.strided:
            if self.plain and any(step == 0 and n > 1 for n, step in zip(grad.shape, grad.stride(), strict=True)):
                self.weight.grad = grad = grad.contiguous()  # an expanded tensor
            clear_plainly_(grad, self.mask.to(grad.device))
        else:
            raise TypeError(
                f"cannot mask the gradient of {self.name!r}: its layout must be torch.strided or torch.sparse_coo, got "
                f"{grad.layout}"
            )

    def check(self) -> None:
        """Try the layout on a tensor like the weight, before writing to the weight.

        Raises: RuntimeError unless exactly the kept values stay.
        """
        weight = self.values
        trial = torch.empty_like(weight).view(BITS[weight.element_size()]).fill_(1)
        if self.rows is None:
            clear_plainly_(trial, self.mask)
        elif _same_order(trial, weight):
            rows = self.rows.copy()
            rows[:, 0] += trial.data_ptr() - weight.data_ptr()
            clear(rows, trial.element_size())
        if not torch.equal(trial != 0, self.mask):
            raise RuntimeError(
                f"the mask of {self.name!r} does not have the memory layout of its weight (shape "
                f"{tuple(weight.shape)}, strides {weight.stride()}, {weight.dtype}): clearing would change kept "
                "weights. This is a bug in sparsight: please report it"
            )

    def verify(self) -> None:
        """Raise ValueError if a pruned weight is not +0.0."""
        verify_weight(self.name, self.values, self.mask)

    def _refuse_shape(self, x: Tensor) -> None:
        if x.shape != self.whole.shape:
            raise ValueError(
                f"the weight {self.name!r} now has shape {tuple(x.shape)}, but its mask has {tuple(self.whole.shape)}: "
                "make new masks and hold those"
            )


def clear_grads_(holds: Iterable[Hold]) -> None:
    """Set the gradients of the pruned weights of `holds` to +0.0; skips weights without a gradient."""
    places: dict[int, list[Place]] = {}
    for hold in holds:
        grad = hold.weight.grad
        if grad is None:
            continue
        place = hold.place_of(local(grad))
        if place is None:
            hold.clear_grad_plainly_(grad)
        else:
            places.setdefault(grad.element_size(), []).append(place)
    for width, those in places.items():
        clear(table(those, width), width, everything=True)


def _same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of the same shape have the same layout, ignoring strides of dimensions of size 1."""
    here, there = a.stride(), b.stride()
    return len(here) == len(there) and all(n == 1 or s == t for n, s, t in zip(a.shape, here, there, strict=True))
