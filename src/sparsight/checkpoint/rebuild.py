"""The meaning of names in a torch.save pickle: places of tensors. No code is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_ELEMENTS = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    "QInt32": torch.qint32, "QInt8": torch.qint8, "QUInt8": torch.quint8, "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4, "Untyped": torch.uint8,
}  # fmt: skip
_STORAGES = {
    f"{module}.{name}Storage": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in _ELEMENTS.items()
}
_LARGEST = 1 << 62  # upper limit of sizes, strides and bytes
_MOST_DIMENSIONS, _MOST_ARGUMENTS = 64, 16


@dataclass(frozen=True, eq=False, slots=True)
class Inert:
    """Stands for a class or function that a pickle names, and for anything that it makes."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Bytes of a file: `nbytes` of the record `key`, from `start` on."""

    key: str
    dtype: torch.dtype
    nbytes: int
    start: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """A tensor as a view of a storage that has all its elements."""

    storage: Storage
    dtype: torch.dtype
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class OddTensor:
    """A tensor that is not a view of a storage."""

    what: str
    dtype: str
    shape: tuple[int, ...]


def spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def key_of(key: Any) -> Any:
    """A key for a dictionary: equal for equal text or equal whole numbers, which are wrapped in a tuple.

    A hostile file could make other keys, such as nested tuples, costly to hash.
    """
    if type(key) is str:
        return key
    inside: tuple[Any, ...] = key if isinstance(key, tuple) else ()
    if type(key) in (dict, list) or len(inside) > _MOST_ARGUMENTS or {*map(type, inside)} & {dict, list, tuple}:
        raise ValueError(f"a {type(key).__name__} cannot be a key of a dictionary")
    if isinstance(key, int) or (isinstance(key, float) and key.is_integer()):
        return (str(int(key)),)
    return object()


# -- storages --------------------------------------------------------------------------------------------------


class Storages:
    """The storages that a pickle names, one per name. `views`: it has the old format, with views of storages."""

    def __init__(self, *, views: bool) -> None:
        self.found: dict[str, Storage] = {}
        self._views: dict[str, Storage] | None = {} if views else None

    def of(self, name: Any) -> Storage | Inert:
        """The storage named ("storage", type, key, location, numel), with a view as sixth item in the old format."""
        if self._views is not None and type(name) is tuple and name[:1] == ("module",) and type(name[1]) is Inert:
            return name[1]
        if type(name) is not tuple or len(name) != (5 if self._views is None else 6) or name[0] != "storage":
            raise ValueError("it names something that is not a storage")
        if type(name[1]) is not Inert or name[1].name not in _STORAGES:
            raise ValueError("it has a storage of an unknown type")
        dtype, key = _STORAGES[name[1].name], storage_key(name[2])
        storage = self._only(self.found, Storage(key, dtype, _sizes((name[4],))[0] * dtype.itemsize))
        if self._views is None or name[5] is None:
            return storage
        view_key, start, length = name[5]
        start, length = (n * dtype.itemsize for n in _sizes((start, length)))
        if start + length > storage.nbytes:
            raise ValueError("a view reaches beyond its storage")
        view = self._only(self._views, Storage(key, dtype, length, start), storage_key(view_key))
        if self._views.keys() & {key} or storage_key(view_key) in self.found:
            raise ValueError("it gives one name to a storage and to a view")
        return view

    def _only(self, found: dict[str, Storage], new: Storage, key: str | None = None) -> Storage:
        old = found.setdefault(new.key if key is None else key, new)
        if (old.key, old.dtype, old.nbytes, old.start) != (new.key, new.dtype, new.nbytes, new.start):
            raise ValueError(f"it names the storage {new.key:.40} twice, and differently")
        return old


def storage_key(key: Any) -> str:
    if type(key) not in (str, int):
        raise ValueError("the name of a storage is neither text nor a number")
    return key if type(key) is str else f"number {key}"


# -- tensors ---------------------------------------------------------------------------------------------------


def called(function: Any, arguments: Any) -> Any:
    """The result of a function for some arguments: by `_CALLS`, or an `Inert` of its name."""
    if type(function) is not Inert or type(arguments) is not tuple:
        raise ValueError(f"it calls a {type(function).__name__}")
    if function.name in _STORAGES:
        raise ValueError(f"it makes a {function.name} that is not in the file")
    if function.name not in _CALLS:
        return function
    if len(arguments) > _MOST_ARGUMENTS:
        raise ValueError(f"it calls {function.name} with {len(arguments):,} arguments")
    return _CALLS[function.name](*arguments)


def takes_all(value: Any) -> bool:
    """Whether the value stands for an object of an unknown class, which may have items and a state."""
    return type(value) is Inert and value.name not in _CALLS


def made(kind: Any, arguments: Any) -> Any:
    """A new object of a class: a dictionary, or for any other class an `Inert` of its name."""
    if type(kind) is not Inert or type(arguments) is not tuple:
        raise ValueError(f"it makes a new {type(kind).__name__}")
    if kind.name in _CALLS and kind.name not in _MAPPINGS:
        raise ValueError(f"it makes a new {kind.name}, which is a function")
    return {} if kind.name in _MAPPINGS else kind


def _sizes(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or len(values) > _MOST_DIMENSIONS:
        raise ValueError(f"a shape is not a tuple of up to {_MOST_DIMENSIONS} sizes")
    if not all(type(n) is int and 0 <= n < _LARGEST for n in values):
        raise ValueError("a size, a stride or an offset is not a number of at least 0")
    return tuple(values)


def _stored(storage: Any, first: Any, shape: Any, strides: Any, dtype: torch.dtype | None = None) -> Stored | OddTensor:
    if type(storage) is not Storage:
        raise ValueError("a tensor has no storage")
    dtype = storage.dtype if dtype is None else dtype
    shape, strides, (first,) = _sizes(shape), _sizes(strides), _sizes((first,))
    if len(shape) != len(strides):
        raise ValueError("a tensor has strides that do not fit its shape")
    last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and (last + 1) * dtype.itemsize > storage.nbytes:
        raise ValueError(f"a tensor of {spelled(dtype)} {shape!s:.60} reaches beyond its storage")
    if spelled(dtype).startswith("q"):
        return OddTensor("quantised", spelled(dtype), shape)
    return Stored(storage, dtype, first, shape, strides)


def _tensor_v2(
    storage: Any, first: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Any:
    return _finished(_stored(storage, first, shape, strides), requires_grad, metadata)


def _tensor_v3(
    storage: Any, first: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Any:
    return _finished(_stored(storage, first, shape, strides, _dtype(dtype)), requires_grad, metadata)


def _finished(tensor: Stored | OddTensor, requires_grad: Any, metadata: Any = None) -> Stored | OddTensor:
    dtype = _spelled(tensor)
    if type(requires_grad) is not bool or (requires_grad and not dtype.startswith(("float", "bfloat", "complex"))):
        raise ValueError(f"a tensor of {dtype} must not require a gradient")
    if metadata is not None and type(metadata) is not dict:
        raise ValueError("the metadata of a tensor are not a dictionary")
    return OddTensor("stored as its conjugate or negative", dtype, tensor.shape) if metadata else tensor


def _dtype(dtype: Any) -> torch.dtype:
    if type(dtype) is not Inert or dtype.name not in _DTYPES:
        raise ValueError("a tensor has an unknown dtype")
    return _DTYPES[dtype.name]


def _spelled(tensor: Any) -> str:
    if type(tensor) not in (Stored, OddTensor):
        raise ValueError("part of a tensor is not a tensor")
    return tensor.dtype if type(tensor) is OddTensor else spelled(tensor.dtype)


def _parameter(tensor: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Any:
    return tensor if type(tensor) is Inert else _finished(tensor, requires_grad)


def _sparse(layout: Any, data: Any) -> OddTensor:
    """`data` of COO: indices, values, shape, maybe whether coalesced; others: two kinds of indices, values, shape."""
    name = layout.name if type(layout) is Inert else ""
    at = 1 if name == "torch.sparse_coo" else 2
    return OddTensor(f"sparse ({name:.40})", _spelled(data[at]), _sizes(data[at + 1]))


def _quantised(storage: Any, first: Any, shape: Any, strides: Any, *_: Any) -> OddTensor:
    tensor = _stored(storage, first, shape, strides)
    return OddTensor("quantised", _spelled(tensor), tensor.shape)


def _moved(tensor: Any, dtype: Any, device: Any, requires_grad: Any) -> Any:
    same = type(tensor) is Stored and tensor.dtype == _dtype(dtype)
    return tensor if same else OddTensor("of another device", spelled(_dtype(dtype)), ())


def _mapping(items: Any = ()) -> dict[Any, Any]:
    """A dictionary, optionally with initial pairs."""
    if type(items) not in (dict, list, tuple):
        raise ValueError(f"it makes a dictionary of a {type(items).__name__}")
    return items if type(items) is dict else {key_of(key): value for key, value in items}


def _layout(name: Any) -> Inert:
    return Inert(name if type(name) is str and name.startswith("torch.sparse_") else "torch.layout")


_MAPPINGS = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict")
_CALLS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_MAPPINGS, _mapping),
    "collections.defaultdict": lambda kind=None, *items: _mapping(*items),
    "_codecs.encode": lambda text, *_: Inert("bytes"),
    "torch.Size": lambda sizes: _sizes(sizes),
    "torch.serialization._get_layout": _layout,
    "torch._tensor._rebuild_from_type_v2": lambda function, kind, arguments, state: called(function, arguments),
    "torch._utils._rebuild_tensor": lambda storage, first, shape, strides: _stored(storage, first, shape, strides),
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_nested_tensor": lambda values, *_: OddTensor("nested", _spelled(values), ()),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda dtype, shape, *_: OddTensor(
        "on the meta device and has no values", spelled(_dtype(dtype)), _sizes(shape)
    ),
    "torch._utils._rebuild_wrapper_subclass": lambda kind, dtype, shape, *_: OddTensor(
        f"of the class {kind.name:.80}", spelled(_dtype(dtype)), _sizes(shape)
    ),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _moved,
    "torch._utils._rebuild_device_tensor_from_numpy": _moved,
}
