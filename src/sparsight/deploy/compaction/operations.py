"""The effect of each torch operation on channels."""

from __future__ import annotations

import math
import sys

import numpy as np
from torch import fx

from sparsight.deploy.compaction.walk import Opaque, Value, Walk, applied, shape
from sparsight.deploy.torch_graph import arguments


def _conv(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    padding = a["padding"]
    padded = padding == "same" if isinstance(padding, str) else any(np.atleast_1d(padding))
    if len(shape(node)) != len(shape(a["weight"])):
        raise Opaque("a convolution without a batch needs all channels")
    return walk.layer(a["weight"], a["bias"], walk.read(a["input"], 1), 1, padded, a["groups"])


def _linear(walk: Walk, node: fx.Node) -> Value:
    a, last = arguments(node), len(shape(node)) - 1
    if len(shape(a["weight"])) != 2:
        raise Opaque("a linear layer with one output stays as it is")
    return walk.layer(a["weight"], a["bias"], walk.read(a["input"], last), last, False)


def _batch_norm(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    if a["training"] or a["running_mean"] is None:
        raise Opaque("BatchNorm of the batch's own statistics stays as it is")
    found = {name: walk.tensor(a[name]) for name in ("weight", "bias", "running_mean", "running_var") if a[name]}
    if found["running_mean"][0].rpartition(".")[0] not in dict(walk.model.named_modules()):
        raise Opaque("BatchNorm that is no module stays as it is")
    source = walk.read(a["input"], 1)
    scale = found.get("weight", ("", 1.0))[1] / np.sqrt(found["running_var"][1] + a["eps"])
    shift = found.get("bias", ("", 0.0))[1] - found["running_mean"][1] * scale
    out = walk.pointwise(source, constant=source.constant * scale + shift)
    walk.norms.append((tuple(name for name, _ in found.values()), out))
    return out


def _unary(walk: Walk, node: fx.Node) -> Value:
    read, *others = node.all_input_nodes
    if others:
        raise Opaque("an operation on several tensors needs all channels")
    source = walk.own(read)
    return walk.pointwise(source, constant=applied(node, {read: source}))


def _binary(walk: Walk, node: fx.Node) -> Value:
    """A sum, difference, product or quotient, channel by channel."""
    if len(node.all_input_nodes) == 1 and not all(isinstance(x, fx.Node) for x in node.args[:2]):
        return _unary(walk, node)
    first, second = (x for x in node.args[:2] if isinstance(x, fx.Node))
    a, b = walk.found.get(first), walk.found.get(second)
    axis = (a or b or walk.own(first)).axis
    if len(shape(first)) != len(shape(second)) or shape(first)[axis] != shape(second)[axis]:
        raise Opaque("an operation on two activations of different shapes needs all channels")
    a, b = walk.read(first, axis), walk.read(second, axis)
    walk.atoms.pairs.append((a.atoms, b.atoms))
    constant = applied(node, {first: a, second: b})
    if "mul" in str(node.target):
        constant = np.where((a.constant == 0) | (b.constant == 0), 0.0, constant)
    return walk.pointwise(a, b, constant=constant)


def _pool(walk: Walk, node: fx.Node) -> Value:
    """Pooling and upsampling of pixels: constants do not change unless zeros are averaged in."""
    a = arguments(node)
    read = a.get("input", a.get("self"))
    source = walk.read(read, 1)
    constant = source.constant
    padded = a.get("count_include_pad") and (any(np.atleast_1d(a["padding"])) or a["ceil_mode"])
    if padded or a.get("divisor_override") is not None:
        constant = np.where(constant == 0, 0.0, np.nan)
    return walk.pointwise(source, constant=constant)


def _mean(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    source, rank = walk.own(a["self"]), len(shape(a["self"]))
    dims = [d % rank for d in (a.get("dim") or range(rank))]
    if source.axis in dims or 0 in dims or (not a["keepdim"] and min(dims) < source.axis):
        raise Opaque("a mean over channels needs all of them")
    return walk.pointwise(source)


def _reshape(walk: Walk, node: fx.Node) -> Value:
    """Reshapes that keep channels together: flattening pixels, or the dimensions before channels."""
    read = node.all_input_nodes[0]
    source, before, after = walk.own(read), shape(read), shape(node)
    if source.axis == 1 and after[:2] == before[:2]:
        return walk.pointwise(source)
    if source.axis == 1 and after == (before[0], math.prod(before[1:])):
        times = math.prod(before[2:])
        out = Value(1, source.atoms.repeat(times), source.constant.repeat(times))
        walk.back.append((source, lambda: out.needed.reshape(-1, times).any(1)))
        return out
    if source.axis == len(before) - 1 and after[-1] == before[-1]:
        return walk.pointwise(source, axis=len(after) - 1)
    raise Opaque("a change of shape needs all channels")


def _permute(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    source, rank = walk.own(a["self"]), len(shape(a["self"]))
    order = list(range(rank))
    if "dims" in a:
        order = [d % rank for d in a["dims"]]
    else:
        i, j = a["dim0"] % rank, a["dim1"] % rank
        order[i], order[j] = order[j], order[i]
    if order[0] != 0:
        raise Opaque("a permutation of the batch needs all channels")
    return walk.pointwise(source, axis=order.index(source.axis))


def _concat(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    axis = a["dim"] % len(shape(node))
    parts = [walk.read(part, axis) for part in a["tensors"]]
    out = Value(axis, np.concatenate([p.atoms for p in parts]), np.concatenate([p.constant for p in parts]))
    ends = np.cumsum([len(p.atoms) for p in parts])[:-1]
    walk.back += [(part, lambda i=i: np.split(out.needed, ends)[i]) for i, part in enumerate(parts)]
    return out


def _slice(walk: Walk, node: fx.Node) -> Value:
    a = arguments(node)
    source = walk.own(a["self"])
    whole = not a["start"] and a["step"] == 1 and a["end"] in (None, sys.maxsize)
    if a["dim"] % len(shape(node)) == source.axis and not whole:
        raise Opaque("the network's code takes channels by number")
    return walk.pointwise(source)


def _pad(walk: Walk, node: fx.Node) -> Value:
    """Padding of pixels, or with constant channels."""
    a = arguments(node)
    source, rank, fill = walk.own(a["self"]), len(shape(node)), float(a["value"] or 0)
    sizes = [*a["pad"], *[0] * (2 * rank - len(a["pad"]))]
    pairs = {rank - 1 - i: (sizes[2 * i], sizes[2 * i + 1]) for i in range(rank)}
    before, after = pairs.pop(source.axis)
    constant = source.constant
    if a["mode"] == "constant" and any(any(pair) for pair in pairs.values()):
        constant = np.where(constant == fill, constant, np.nan)
    if min(before, after) < 0 or (a["mode"] != "constant" and (before or after)):
        raise Opaque("the network's code takes channels by number")
    fresh = walk.atoms.fresh(before + after)
    walk.atoms.note(walk.atoms.stay, fresh, "the network's code puts a fixed number of channels beside others")
    atoms = np.concatenate([fresh[:before], source.atoms, fresh[before:]])
    out = Value(source.axis, atoms, np.concatenate([np.full(before, fill), constant, np.full(after, fill)]))
    walk.back.append((source, lambda: out.needed[before : len(atoms) - after]))
    return out


_OPERATIONS = {
    _unary: "relu relu6 hardtanh silu gelu sigmoid tanh leaky_relu elu hardswish hardsigmoid softplus mish selu celu "
    "clamp abs neg square clone contiguous detach alias dropout feature_dropout identity",
    _conv: "conv1d conv2d conv3d",
    _binary: "add sub mul div",
    _pool: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d",
    _reshape: "flatten view reshape squeeze unsqueeze",
    _permute: "permute transpose",
    _linear: "linear",
    _batch_norm: "batch_norm",
    _mean: "mean",
    _concat: "cat",
    _slice: "slice",
    _pad: "pad",
}
HANDLERS = {name: handler for handler, names in _OPERATIONS.items() for name in names.split()}
