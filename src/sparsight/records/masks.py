"""Mask files, and masks from the zeros of a network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from sparsight.checkpoint.open import load_tensors, open_checkpoint
from sparsight.model.masks import all_kept, check_mapping
from sparsight.model.names import named
from sparsight.records.files import DamagedFile, reading, there
from sparsight.records.outputs import write_output
from sparsight.records.packing import pack_masks, unpack_masks
from sparsight.records.tensors import read_tensors, write_tensors
from sparsight.types import Masks


class AccidentalZeros(UserWarning):
    """A tensor has so few zeros that they may be accidental."""


FEW = 1e-3
"""Zeros may be accidental below this share."""


def save_masks(masks: Masks, path: str | os.PathLike[str]) -> None:
    """Write masks to a safetensors file, as in a run folder: one bit per weight, row-major, 1 = kept.

    The header holds shapes and a checksum. Writes atomically. Raises: ValueError for a mask that is not bool, TypeError
    for anything but masks.
    """
    check_mapping(masks)
    packed, shapes = pack_masks(masks)
    write_tensors(Path(path), packed, {"kind": "masks", "shapes": shapes}, write_output)


def load_masks(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The masks in a file from `save_masks` or a run (`levels/003/masks.safetensors`), on the CPU.

    Raises: `DamagedFile` for a file that is cut, altered, or not a mask file; FileNotFoundError.
    """
    if not there(Path(path)):
        raise FileNotFoundError(f"{path} does not exist")
    path, remedy = Path(path), "give a file written by save_masks or a run, or restore it from a copy"
    packed, facts, _ = read_tensors(path, remedy)
    if facts.get("kind") != "masks":
        raise DamagedFile(path, f"expected a file of kind 'masks', got {facts.get('kind')!r:.80}", remedy)
    with reading(path, remedy):
        return unpack_masks(packed, facts["shapes"])


def masks_from(
    source: nn.Module | Mapping[str, Tensor] | str | os.PathLike[str],
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
) -> dict[str, Tensor]:
    """Masks of the nonzero weights of a pruned model, of named tensors, or of a checkpoint file.

    For a model these are its prunable weights, with `include` and `exclude` as in `dense`; otherwise all floating-point
    tensors with at least two dimensions. +0.0 and -0.0 are pruned, NaN is kept; a weight of `torch.nn.utils.prune`
    (`x_orig`) is also pruned where its mask (`x_mask`) is 0. `counts(masks)` counts kept weights,
    `sparsight.model.counts_by_tensor(masks)` those of each tensor.

    Warns: `AccidentalZeros` for tensors with fewer than one zero in a thousand weights, which are probably not pruned.
    Raises: `CheckpointError` for an unreadable file; ValueError as `dense`, or without such a tensor.
    """
    if isinstance(source, nn.Module):
        parameters, kept = named(source), all_kept(source, include=include, exclude=exclude)
        masks = {name: mask & (parameters[name].detach() != 0) for name, mask in kept.items()}
    else:
        masks = _of_tensors(source if isinstance(source, Mapping) else load_tensors(open_checkpoint(Path(source))))
    zeros = {name: mask.numel() - int(mask.sum()) for name, mask in masks.items()}
    few = [f"{n} ({zeros[n]:,} of {m.numel():,})" for n, m in masks.items() if 0 < zeros[n] < FEW * m.numel()]
    if few:
        more = f" and {len(few) - 4:,} more" if len(few) > 4 else ""
        warnings.warn(f"so few zeros that they may be accidental: {', '.join(few[:4])}{more}", AccidentalZeros, 2)
    return masks


def _of_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    masks = {}
    for name, x in tensors.items():
        if not (x.is_floating_point() and x.dim() >= 2) or f"{name.removesuffix('_mask')}_orig" in tensors:
            continue
        mask = tensors.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
        masks[name] = x != 0 if mask is None or mask.shape != x.shape else (x != 0) & (mask != 0)
    if not masks:
        raise ValueError("masks need at least one floating-point tensor with two dimensions or more")
    return masks
