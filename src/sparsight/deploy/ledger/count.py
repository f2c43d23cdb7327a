"""`ledger`: counts a network's parameters, bytes and operations, and measures it on request."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsight.checkpoint.entry import Checkpoint, CheckpointError, Entry, in_memory
from sparsight.checkpoint.open import open_checkpoint
from sparsight.checkpoint.packed.files import pack
from sparsight.checkpoint.packed.floor import Content, content
from sparsight.checkpoint.packed.head import FORMAT, LAYOUTS
from sparsight.deploy.comparing import copied
from sparsight.deploy.ledger.macs import macs
from sparsight.deploy.ledger.records import CODE, REQUEST, Counted, Ledger, Request
from sparsight.model.masks import prunable as prunable_of
from sparsight.model.names import named
from sparsight.model.pretrained import load_into


@dataclass(frozen=True)
class Roles:
    """For a file without code: which tensors are prunable, and which are not parameters."""

    prunable: Collection[str] | None = None
    beside: Collection[str] = ()


def ledger(
    source: str | os.PathLike[str] | nn.Module,
    example_inputs: Tensor | tuple[Any, ...] | None = None,
    *,
    model: nn.Module | None = None,
    roles: Roles = Roles(),
    measure: Request | None = None,
    count_macs: bool = True,
) -> Ledger:
    """Count a network's parameters, bytes and multiplications; on request, measure its latency and memory.

    `source` is a module, or anything that `sparsight.load` reads. All zeros count, including -0.0; tied tensors count
    once. `model` is the module for a file's tensors: a copy loads them and says which are prunable, unless `roles`
    does. Multiplications are counted for `example_inputs`, whole batch included. `measure` requests latency and memory,
    which need one float32 tensor as example. `count_macs=False` saves two seconds of loading PyTorch's counter.
    `missing` in the result says what was left out, and why.

    Raises: CheckpointError for an unreadable file; ValueError for one that does not fit the model, or a model that
    fails on the example.
    """
    module = _module(source, model)
    checkpoint = _opened(source)
    network = [entry for entry in checkpoint.entries if entry.part == "network" and entry.dtype]
    if module is not None:
        roles = _roles(module, network, roles)
    missing: dict[str, str] = {}
    counted = _counted(source, checkpoint, network, roles, missing)
    inputs = example_inputs if isinstance(example_inputs, (tuple, type(None))) else (example_inputs,)
    if module is None or inputs is None or not count_macs:
        missing |= dict.fromkeys(("dense_macs", "effective_macs"), CODE if count_macs else "not asked for")
    else:
        dense, effective = macs(module, inputs)
        counted = replace(counted, dense_macs=dense, effective_macs=effective)
    found = None
    if measure is None or module is None or inputs is None:
        why = REQUEST if module is not None and inputs is not None else CODE
        missing |= dict.fromkeys(("latency", "memory"), why)
    else:
        from sparsight.deploy.ledger.measure import measured  # the runtime's kernels, which take a second to load

        found = measured(checkpoint.source, module, inputs, measure, missing)
    return Ledger(checkpoint.source, checkpoint.format, counted, found, missing)


def _module(source: object, model: nn.Module | None) -> nn.Module | None:
    """A copy of the network in evaluation mode, with the weights of the file; None without its code."""
    if isinstance(source, nn.Module):
        return copied(source).eval()
    if model is None:
        return None
    module = copied(model)
    load_into(Path(str(source)), module)
    return module.eval()


def _opened(source: str | os.PathLike[str] | nn.Module) -> Checkpoint:
    if not isinstance(source, nn.Module):
        return open_checkpoint(Path(source))
    return in_memory(type(source).__name__, "module", source.state_dict().items())


def _roles(module: nn.Module, network: Sequence[Entry], given: Roles) -> Roles:
    """The roles of a file's tensors according to the module; their names may have a prefix."""
    parameters = list(named(module))
    chosen = given.prunable
    if chosen is None:
        with suppress(ValueError):  # there are none
            chosen = prunable_of(module)
    prefix = _prefix(parameters, {name for entry in network for name in (entry.name, *entry.aliases)})
    known = {prefix + name for name in parameters}
    beside = [e.name for e in network if not known & {e.name, *e.aliases}]
    return Roles(None if chosen is None else {prefix + name for name in chosen}, beside)


def _prefix(wanted: Sequence[str], names: Collection[str]) -> str:
    """The prefix of the module's names in the file."""
    if not wanted or wanted[0] in names:
        return ""
    found = [name.removesuffix(wanted[0]) for name in names if name.endswith(f".{wanted[0]}")]
    return max(found, key=lambda prefix: sum(prefix + name in names for name in wanted), default="")


def _counted(
    source: Any, checkpoint: Checkpoint, network: Sequence[Entry], roles: Roles, missing: dict[str, str]
) -> Counted:
    odd = next((entry.dtype for entry in network if entry.dtype not in LAYOUTS), None)
    found = {e.name: content(e) if e.dtype in LAYOUTS else Content(e.count, e.count, 0.0) for e in network}
    parameters = [e for e in network if e.name not in roles.beside and _is_floating(e)]
    chosen = None
    if roles.prunable is None:
        missing |= dict.fromkeys(("prunable", "alive"), "needs the network's code, or names")
    else:
        names = {*roles.prunable}
        chosen = [found[e.name] for e in network if names & {e.name, *e.aliases}]
    sized = sum(path.stat().st_size for path in checkpoint.files)
    if odd is not None:
        missing |= dict.fromkeys(("packed_bytes", "floor_bytes"), f"{odd:.40} cannot be packed")
    if not sized:
        missing["file_bytes"] = "it is no file"
    return Counted(
        parameters=sum(e.count for e in parameters),
        zeros=sum(e.count - found[e.name].alive for e in parameters),
        prunable=None if chosen is None else sum(one.count for one in chosen),
        alive=None if chosen is None else sum(one.alive for one in chosen),
        dense_bytes=sum(e.count * _itemsize(e) for e in network),
        file_bytes=sized or None,
        packed_bytes=None if odd is not None else _packed(source, checkpoint),
        floor_bytes=None if odd is not None else round(sum(one.floor for one in found.values())),
        dense_macs=None,
        effective_macs=None,
        minus_zeros=sum(one.minus for one in found.values()),
    )


def _packed(source: Any, checkpoint: Checkpoint) -> int:
    """Bytes of its packed file."""
    if checkpoint.format == FORMAT:
        return sum(path.stat().st_size for path in checkpoint.files)
    with tempfile.TemporaryDirectory() as folder:
        return pack(source, Path(folder) / "packed").size


def _is_floating(entry: Entry) -> bool:
    return entry.dtype.startswith(("float", "bfloat", "complex"))


def _itemsize(entry: Entry) -> int:
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(entry.path, f"{entry.name!r:.80} has the dtype {entry.dtype!r:.40}")
    return dtype.itemsize
