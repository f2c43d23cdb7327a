"""Parameters and modules by name, without the names that wrappers add."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

# Wrappers that add a component to parameter names, by class name, because some are in optional packages.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}


def modules_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module with its name without wrappers, in `named_modules` order, with repeats."""
    wrapped = {_WRAPPERS[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS}
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None:
            inner = prefix if name in wrapped else f"{prefix}.{name}" if prefix else name
            yield from modules_of(child, inner)


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by plain name, without the names added by torch.compile, DDP or `AveragedModel`.

    A tied parameter appears once, under its first name, as in `named_parameters()`.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for prefix, module in modules_of(model):
        for leaf, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{prefix}.{leaf}" if prefix else leaf] = parameter
    return found


def names_of(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """All (name, owning module) pairs of each parameter, by its identity."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for prefix, module in modules_of(model):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((f"{prefix}.{leaf}" if prefix else leaf, module))
    return owners
