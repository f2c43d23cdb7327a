"""Masks in files of their own, and masks from the zeros that a network has."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from sparsight.checkpoint.load import load_tensors
from sparsight.checkpoint.open import open_checkpoint
from sparsight.model.masks import prunable
from sparsight.records.files import DamagedFile, reading
from sparsight.records.outputs import write_output
from sparsight.records.packing import pack_masks, unpack_masks
from sparsight.records.tensors import read_tensors, write_tensors
from sparsight.types import Masks


class AccidentalZeros(UserWarning):
    """So few zeros that chance may have made them, not pruning."""


FEW = 1e-3
"""A share of zeros below which they may be accidental."""


def save_masks(masks: Masks, path: str | os.PathLike[str]) -> None:
    """Write masks to a safetensors file as a run keeps them: one bit a weight, row-major, 1 = kept.

    Shapes and a checksum stand in the header. The file is replaced as a whole, or not at all. ValueError for a mask
    that is not bool.
    """
    packed, shapes = pack_masks(masks)
    write_tensors(Path(path), packed, {"kind": "masks", "shapes": shapes}, write_output)


def load_masks(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The masks in a file of `save_masks` or of a run (`levels/003/masks.safetensors`), on the CPU.

    Raises: `DamagedFile` for a file that is cut, altered, or holds no masks; FileNotFoundError for none.
    """
    path, remedy = Path(path), "name a file that save_masks or a run wrote, or restore it from a copy"
    packed, facts, _ = read_tensors(path, remedy)
    if facts.get("kind") != "masks":
        raise DamagedFile(path, f"it is another file: expected 'masks', got {facts.get('kind')!r:.80}", remedy)
    with reading(path, remedy):
        return unpack_masks(packed, facts["shapes"])


def masks_from(
    source: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
) -> dict[str, Tensor]:
    """Masks of the weights that are not zero: of a pruned model, of tensors by name, or of a file of them.

    Of a model these are its prunable weights, with `include` and `exclude` as in `dense`; else all floating-point
    tensors of two dimensions and more. +0.0 and -0.0 are pruned, NaN is kept. `counts(masks)` says how many are kept
    in all, `sparsight.model.counts_by_tensor(masks)` in each tensor. An `AccidentalZeros` warning names tensors in
    which fewer than one weight in a thousand is zero: holding them would freeze weights that chance left at zero.

    Raises: `CheckpointError` for a file that cannot be read; ValueError as `dense`, or without such a tensor.
    """
    if isinstance(source, nn.Module):
        weights = {n: p.detach() for n, p in prunable(source, include=include, exclude=exclude).items()}
    else:
        found = source if isinstance(source, Mapping) else load_tensors(open_checkpoint(Path(source)))
        weights = {n: x for n, x in found.items() if x.is_floating_point() and x.dim() >= 2}
        if not weights:
            raise ValueError("masks are made of floating-point tensors of two dimensions or more, got none")
    masks = {name: weight != 0 for name, weight in weights.items()}
    zeros = {name: mask.numel() - int(mask.sum()) for name, mask in masks.items()}
    few = [f"{n} ({zeros[n]:,} of {m.numel():,})" for n, m in masks.items() if 0 < zeros[n] < FEW * m.numel()]
    if few:
        more = f" and {len(few) - 4:,} more" if len(few) > 4 else ""
        warnings.warn(f"so few zeros that they may be chance: {', '.join(few[:4])}{more}", AccidentalZeros, 2)
    return masks


__all__ = ["AccidentalZeros", "load_masks", "masks_from", "save_masks"]
