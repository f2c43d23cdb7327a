"""A mask laid out in memory like its weight, so that one pass over both clears what is pruned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sparsight.model.masks import PLAIN, local, share, verify_weight
from sparsight.numerics.kernels.clear import BITS, Place, clear, clear_plainly_, table


class Hold:
    """One weight and its mask.

    `mask` is a copy of the one given: on the weight's device and in its memory order; of a weight that is shared out
    over processes (FSDP2) the part that is here. `rows` is the kernel's work on the weight, None if tensor code does
    it: on other devices, and where the weight's memory has gaps.
    """

    rows: np.ndarray | None = None

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self.name, self.weight, self.mask = name, weight, mask
        self.plain = type(weight) in PLAIN
        self._whole = None if self.plain else mask.clone()
        self._last: tuple[int, int, int, int] | None = None  # the gradient that was cleared last: place and width
        self._last_rows = table([], 4)
        self.lay()

    @property
    def values(self) -> Tensor:
        """The weight, or the part of it that is in this process."""
        return self.weight.detach() if self.plain else local(self.weight.detach())

    @property
    def whole(self) -> Tensor:
        """The mask of the whole weight."""
        return self.mask if self._whole is None else self._whole

    def lay(self) -> None:
        """Lay the mask out as the weight lies now, and check that it is so.

        Raises: ValueError for a weight of another shape, TypeError for one that is not in ordinary memory.
        """
        self._refuse_shape(self.weight)
        weight = self.values
        if self.rows is not None and weight.is_cpu and self._where()[1:] == self._key[1:]:  # in other memory, but alike
            self.rows[:, 0] += weight.data_ptr() - self._key[0]
            self._key = self._where()
            return
        if weight.layout is not torch.strided or weight.element_size() not in BITS or weight.is_meta:
            raise TypeError(
                f"cannot hold the mask of {self.name!r}, a weight of {weight.dtype} with layout {weight.layout} on "
                f"device {weight.device.type!r}: expected a dense floating-point weight that has values"
            )
        self.rows = None
        self.mask = torch.empty_like(weight, dtype=torch.bool).copy_(share(self.whole, self.weight))
        self._shape, self._strides = self.mask.shape, self.mask.stride()
        self._address, self._count = self.mask.data_ptr(), self.mask.numel()
        place = self.place_of(weight)
        self.rows = None if place is None else table([place], weight.element_size())
        self.check()
        self._key = self._where()

    def _where(self) -> tuple[int, tuple[int, ...], torch.Size, torch.dtype]:
        weight = self.weight if self.plain else self.values
        return weight.data_ptr(), weight.stride(), weight.shape, weight.dtype

    def moved(self) -> bool:
        """Whether the weight has other memory than it was laid out for, or lies there in another order or type."""
        return self._where() != self._key

    def place_of(self, x: Tensor) -> Place | None:
        """The kernel's work on `x`, the weight or its gradient; None if it lies in memory otherwise than the mask."""
        if type(x) not in PLAIN or not x.is_cpu or x.layout is not torch.strided or x.shape != self._shape:
            return None
        if x.stride() != self._strides and not _same_order(x, self.mask):
            return None
        return (x.data_ptr(), self._address, self._count) if self._count else None

    def clear_grad_(self) -> Tensor | None:
        """Set the gradient of every pruned weight to +0.0, if there is one. It may be sparse (COO). The gradient."""
        grad = self.weight.grad
        if grad is None:
            return None
        place = self.place_of(local(grad))
        if place is None:
            self._clear_otherwise_(grad)
            return self.weight.grad
        width = grad.element_size()
        if self._last is None or self._last[1:] != (*place[1:], width):
            self._last, self._last_rows = (*place, width), table([place], width)
        elif self._last[0] != place[0]:  # other memory than that of the step before
            self._last_rows[:, 0] += place[0] - self._last[0]
            self._last = (*place, width)
        clear(self._last_rows, width, everything=True)
        return grad

    def _clear_otherwise_(self, grad: Tensor) -> None:
        self._refuse_shape(grad)
        grad = local(grad)
        if grad.layout is torch.sparse_coo:
            clear_plainly_(grad._values(), self.mask.to(grad.device)[tuple(grad._indices())])
        elif grad.layout is torch.strided:
            if self.plain and any(step == 0 and n > 1 for n, step in zip(grad.shape, grad.stride(), strict=True)):
                self.weight.grad = grad = grad.contiguous()  # one value stood for many
            clear_plainly_(grad, self.mask.to(grad.device))
        else:
            raise TypeError(
                f"cannot mask the gradient of {self.name!r}, which has layout {grad.layout}: "
                "expected torch.strided or torch.sparse_coo"
            )

    def check(self) -> None:
        """Try the layout on a tensor that lies like the weight: exactly the kept values must stay.

        Raises: RuntimeError, before a weight is written, if they would not.
        """
        weight = self.values
        trial = torch.empty_like(weight).view(BITS[weight.element_size()]).fill_(1)
        if self.rows is None:
            clear_plainly_(trial, self.mask)
        elif trial.stride() != weight.stride() and not _same_order(trial, weight):
            raise self._fault()
        else:
            rows = self.rows.copy()
            rows[:, 0] += trial.data_ptr() - weight.data_ptr()
            clear(rows, trial.element_size())
        if not torch.equal(trial != 0, self.mask):
            raise self._fault()

    def verify(self) -> None:
        """ValueError if a pruned weight is anything but +0.0."""
        verify_weight(self.name, self.values, self.mask)

    def _refuse_shape(self, x: Tensor) -> None:
        if x.shape != self.whole.shape:
            raise ValueError(
                f"the weight {self.name!r} now has shape {tuple(x.shape)}, and its mask {tuple(self.whole.shape)}: "
                "make masks of the new shape and hold those"
            )

    def _fault(self) -> RuntimeError:
        weight = self.values
        return RuntimeError(
            f"the mask of {self.name!r} does not lie in memory as the weight does (shape {tuple(weight.shape)}, "
            f"strides {weight.stride()}, {weight.dtype}): clearing would hit kept weights. "
            "This is a fault of sparsight: please report it"
        )


def _same_order(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory alike. (The stride of a dimension of size 1 says nothing.)"""
    here, there = a.stride(), b.stride()
    return len(here) == len(there) and all(n == 1 or s == t for n, s, t in zip(a.shape, here, there, strict=True))
