"""Parameters and modules by name, without the names that wrappers add."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def _uses(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """The plain name, module and parameter of every use of a parameter, in order."""
    for prefix, module in modules_of(model):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{leaf}" if prefix else leaf, module, parameter


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by plain name, without the names added by torch.compile, DDP or `AveragedModel`.

    A tied parameter appears once, under its first name, as in `named_parameters()`.
    """
    first: dict[int, tuple[str, nn.Parameter]] = {}
    for name, _, parameter in _uses(model):
        first.setdefault(id(parameter), (name, parameter))
    return dict(first.values())


def names_of(model: nn.Module) -> dict[int, list[tuple[str, nn.Module]]]:
    """All (name, owning module) pairs of each parameter, by its identity."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module, parameter in _uses(model):
        owners.setdefault(id(parameter), []).append((name, module))
    return owners


def some(names: Iterable[str], most: int = 6) -> str:
    """The first names in quotes, and how many there are beyond `most`, for messages."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(repr(name) for name in listed[:most]) + more if listed else "none"
