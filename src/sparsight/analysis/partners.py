"""Identifies tensors by their neighbours: masks, parts of parametrisations, scales, norms, projections."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sparsight.checkpoint.entry import ITEMSIZE, Entry

Kind = Literal[
    "weight", "bias", "norm", "embedding", "buffer", "vector", "mask", "scale", "part", "average", "optimizer", "other"
]

Told = dict[str, tuple[Kind, str | None]]
"""The kind of each tensor, by name, and why it is not analysed."""

_PARAMETRISED = re.compile(r"^(.*?)parametrizations\.([^.]+)\.(.+)$")
_SCALE = re.compile(r"scale|zero|absmax|amax|quant|codebook", re.I)
_MASKS = {*ITEMSIZE, "bool", "uint8", "int8", "int16", "int32", "int64"}


def plain_name(name: str) -> str:
    """The name of a parametrised or pruned tensor in its layer: "0.weight" for "0.weight_orig"."""
    found = _PARAMETRISED.match(name) if "parametrizations." in name else None
    return f"{found[1]}{found[2]}" if found else name.removesuffix("_orig")


def products(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with each masked tensor replaced by its product with the mask, under its name in the layer.

    Masks come from `torch.nn.utils.prune` (`x_orig`, `x_mask`) or a parametrisation, and have the tensor's shape.
    """
    names = _by_name(entries)
    found = []
    for entry in entries:
        stem = plain_name(entry.name)
        parametrised = entry.name.endswith(".original")
        mask = names.get(f"{entry.name.removesuffix('original')}0.mask" if parametrised else f"{stem}_mask")
        if stem == entry.name or mask is None or mask.shape != entry.shape or mask.obstacle or mask.dtype not in _MASKS:
            found.append(entry)
        elif stem in names:
            found.append(replace(entry, mask=mask))
        else:
            found.append(replace(entry, name=stem, aliases=(entry.name, *entry.aliases), mask=mask))
    return found


def partners(entries: Sequence[Entry]) -> Told:
    """The kinds of tensors that can be identified by their neighbours."""
    names = _by_name(entries)
    rules = (_layers(names), _scales(entries), _weight_norms(names), _parametrised(entries), _masks(names))
    return {name: verdict for rule in rules for name, verdict in rule.items()}  # the last rule wins


def _by_name(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {name: e for e in entries for name in (e.name, *e.aliases)}


def _masks(names: Mapping[str, Entry]) -> Told:
    """`x_mask` if it has the shape of `x` or `x_orig`, and `mask` if it has the shape of `weight`."""
    found: Told = {}
    for name, entry in names.items():
        path, _, leaf = name.rpartition(".")
        if leaf != "mask" and not leaf.endswith("_mask"):
            continue
        stem = f"{path}.weight".removeprefix(".") if leaf == "mask" else name.removesuffix("_mask")
        of = names.get(f"{stem}_orig", names.get(stem))
        if of is not None and of is not entry and of.shape == entry.shape and len(entry.shape) > 0:
            found[entry.name] = ("mask", f"the mask of {stem}")
    return found


def _parametrised(entries: Sequence[Entry]) -> Told:
    """The largest original in `parametrizations.x.…` is the weight; the other tensors are parts of it."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if _PARAMETRISED.match(entry.name):
            groups[plain_name(entry.name)].append(entry)
    found: Told = {}
    for of, group in groups.items():
        originals = [e for e in group if e.name.rpartition(".")[2].startswith("original")]
        weight = max(originals, key=lambda e: e.count, default=None)
        found |= {e.name: ("part", f"a part of the parametrisation of {of}") for e in group if e is not weight}
    return found


def _weight_norms(names: Mapping[str, Entry]) -> Told:
    """`x_g`, the norms of `x_v`: the same shape, except for dimensions of size 1."""
    found: Told = {}
    for name, entry in names.items():
        stem = name.removesuffix("_g")
        of = names.get(f"{stem}_v") if stem != name else None
        if of is None or (entry.shape and len(entry.shape) != len(of.shape)):
            continue
        if all(n in (1, m) for n, m in zip(entry.shape, of.shape, strict=False)) and entry.count < max(of.count, 2):
            found[entry.name] = ("part", f"the norms that weight_norm keeps of {stem}")
    return found


def _scales(entries: Sequence[Entry]) -> Told:
    """Tensors in a layer with a quantised one that are named like a scale, or floating-point and much smaller."""
    layers: dict[str, Entry] = {}
    for entry in entries:
        if len(entry.shape) > 1 and _is_quantised(entry.dtype):
            for layer in (entry.name.rpartition(".")[0], entry.name):
                if layer not in layers or layers[layer].count < entry.count:
                    layers[layer] = entry
    found: Told = {}
    for entry in entries:
        path, _, leaf = entry.name.rpartition(".")
        of = layers.get(path)
        if of is None or of is entry or len(entry.shape) < 2:
            continue
        small = "weight" not in leaf and "proj" not in leaf and entry.dtype in ITEMSIZE and 8 * entry.count <= of.count
        if small or _SCALE.search(leaf):
            found[entry.name] = ("scale", f"a scale or zero point of the quantised {of.name}")
    return found


def _is_quantised(dtype: str) -> bool:
    return dtype in ("int8", "uint8", "int16", "int32", "uint32") or dtype.startswith(("float8", "float6", "float4"))


def _layers(names: Mapping[str, Entry]) -> Told:
    """Tensors with a bias for each name: norms if it has the same shape, otherwise weights (embeddings have none)."""
    found: Told = {}
    for entry in {e.name: e for e in names.values()}.values():
        every = [names.get(f"{n.removesuffix('weight')}bias") for n in (entry.name, *entry.aliases)]
        biases = [b for b in every if b is not None and b is not entry]
        if len(entry.shape) < 2 or len(biases) < len(every):
            continue
        if all(b.shape == entry.shape for b in biases):
            found[entry.name] = ("norm", "belongs to a normalisation")
        elif all(b.shape in (entry.shape[:1], entry.shape[-1:]) for b in biases):
            found[entry.name] = ("weight", None)
    return found


# -- running averages of weights, recognised by their names and shapes -----------------------------------------

_AVERAGE = re.compile(r"(^|_)(ema|swa|shadow|avg|averaged?|polyak)(?!_?pool)(_|\d|$)", re.I)
_MOST_GROUPS = 100  # most averages in a file: each is compared with all its networks
_DEEPEST = 3  # leading components of a name that may mark an average: deeper, or below a number, are the layers


def averages(entries: Sequence[Entry]) -> dict[str, str]:
    """The names of all tensors in running averages, each with what it averages."""
    counted = {e.name.removesuffix(".n_averaged") for e in entries if e.name.endswith(".n_averaged")}
    groups: dict[str, list[Entry]] = defaultdict(list)
    networks = []
    for entry in entries:
        prefix = _prefix(entry.name, counted)
        (networks if prefix is None else groups[prefix]).append(entry)
    found: dict[str, str] = {}
    if not 0 < len(groups) <= _MOST_GROUPS:
        return found
    others = _Networks(networks)
    for prefix, group in groups.items():
        of = others.averaged(prefix, group)
        if of is not None:
            found |= dict.fromkeys((e.name for e in group), of)
    return found


def _prefix(name: str, counted: set[str]) -> str | None:
    """A name up to its first component that marks an average; None without one."""
    parts = name.split(".")
    for i in range(min(len(parts) - 1, _DEEPEST)):
        if parts[i].isdecimal():
            return None
        if _AVERAGE.search(parts[i]) or (counted and ".".join(parts[: i + 1]) in counted):
            return ".".join(parts[: i + 1])
    return None


class _Networks:
    """The networks in a file, which groups of possible averages are compared with."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.shapes = {name: e.shape for e in entries for name in (e.name, *e.aliases)}
        self.dotted = [f".{name}" for name in self.shapes]
        self.order = [e.shape for e in entries]
        parts = [(e.name.split("."), e.shape) for e in entries]
        # names without dots, as buffers need them, with and without their first component
        self.squashed = {"".join(keys[i:]): shape for keys, shape in parts for i in range(min(len(keys), 2))}

    def averaged(self, prefix: str, group: Sequence[Entry]) -> str | None:
        """What a group averages, if all its matrices match by name; its other tensors need not match."""
        matrices = [(e.name[len(prefix) + 1 :].split("."), e.shape) for e in group if len(e.shape) > 1]
        if not matrices:
            return None
        for dropped in range(min(3, min(len(keys) for keys, _ in matrices))):
            wanted = [(".".join(keys[dropped:]), shape) for keys, shape in matrices]
            first = f".{wanted[0][0]}"
            starts = [name[1 : len(name) - len(first) + 1] for name in self.dotted if name.endswith(first)]
            for start in starts:
                if all(self.shapes.get(f"{start}{name}") == shape for name, shape in wanted):
                    return start.removesuffix(".") or "the network"
            left = iter(self.order)  # a list: its shapes occur in the network, in the same order
            if all(name.isdecimal() and any(shape == other for other in left) for name, shape in wanted):
                return "the network"
        named = all(self.squashed.get("".join(keys)) == shape for keys, shape in matrices)
        return "the network" if named else None
