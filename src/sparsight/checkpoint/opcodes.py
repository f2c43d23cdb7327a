"""Reads pickles as data: interprets the opcodes that torch.save writes, and runs no code."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from pickletools import OpcodeInfo, genops
from typing import Any

from sparsight.checkpoint.entry import LONGEST_HEADER, CheckpointError
from sparsight.checkpoint.rebuild import Inert, Storages, called, key_of, made, takes_all

MOST_OPCODES = 5_000_000
MOST_OBJECTS = 1_000_000


class Pickles:
    """The pickles in `content`, one after the other. Time and memory are bounded by its length.

    A value is a number, text, bytes, a list, a tuple, a dictionary, or the place of a tensor, which `rebuild` makes
    from the names that it knows. Any other name becomes an `Inert`, and so does anything that it calls or builds.
    Raises: CheckpointError for a damaged pickle, or beyond the limits, which apply to all pickles together.
    """

    def __init__(self, path: Path, content: bytes, storages: Storages) -> None:
        self._path, self._content, self._storages = path, io.BytesIO(content), storages
        self._opcodes = self._objects = 0
        self._globals: dict[str, Inert] = {}

    @property
    def at(self) -> int:
        """Bytes read so far."""
        return self._content.tell()

    def load(self) -> Any:
        """The value of the next pickle."""
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stack below each mark
        self._memo: list[Any] = []
        try:
            for opcode, argument, _ in genops(self._content):
                self._step(opcode, argument)
            return self._stack.pop()
        except CheckpointError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            if self.at == LONGEST_HEADER:
                what = f"its pickle is longer than {LONGEST_HEADER:,} bytes"
                raise CheckpointError(self._path, what) from error
            known = f": {error}" if type(error) is ValueError else ""
            what = f"its pickle is damaged at byte {self.at:,}{known:.200}"
            raise CheckpointError(self._path, what) from error

    def _step(self, opcode: OpcodeInfo, argument: Any) -> None:
        self._opcodes += 1
        if self._opcodes > MOST_OPCODES:
            raise CheckpointError(self._path, f"its pickle has more than {MOST_OPCODES:,} opcodes")
        if opcode.name not in _STEPS:
            what = f"its pickle has the opcode {ord(opcode.code):#04x}, which torch.save does not write"
            raise CheckpointError(self._path, f"{what} with its default pickle_protocol")
        _STEPS[opcode.name](self, argument)

    def _counted(self, objects: int) -> None:
        self._objects += objects
        if self._objects > MOST_OBJECTS:
            raise CheckpointError(self._path, f"its pickle makes more than {MOST_OBJECTS:,} objects")

    def _push(self, value: Any) -> None:
        self._objects += 1
        if self._objects > MOST_OBJECTS:
            self._counted(0)
        self._stack.append(value)

    def _protocol(self, version: int) -> None:
        if version > _NEWEST:
            raise ValueError("it is of an unknown protocol")

    # -- stack and memo ----------------------------------------------------------------------------------------

    def _mark(self) -> None:
        self._counted(1)
        self._below.append(self._stack)
        self._stack = []

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        self._objects -= 1
        return items

    def _put(self, place: int) -> None:
        memo, value = self._memo, self._stack[-1]
        if place > len(memo):
            self._counted(place - len(memo))
            memo.extend([_NOTHING] * (place - len(memo)))
        memo[place : place + 1] = (value,)

    def _get(self, place: int) -> None:
        found = self._memo[place]
        if found is _NOTHING:
            raise ValueError("it reads a memo that it has not written")
        self._stack.append(found)

    # -- containers --------------------------------------------------------------------------------------------

    def _tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise ValueError("its stack is too short")
        del self._stack[-count:]
        self._push(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not takes_all(target):
            raise ValueError(f"it appends to a {type(target).__name__}")

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict and len(items) % 2 == 0:
            self._counted(len(items))
            target.update((key_of(items[i]), items[i + 1]) for i in range(0, len(items), 2))
        elif not takes_all(target):
            raise ValueError(f"it sets items of a {type(target).__name__}")

    # -- names and their results -------------------------------------------------------------------------------

    def _global(self, words: str) -> None:
        name = words.replace(" ", ".", 1)
        if " " in (words[0], words[-1]):
            raise ValueError("it names something without a name")
        if name not in self._globals:
            self._counted(1)
            self._globals[name] = Inert(name)
        self._stack.append(self._globals[name])

    def _call(self, call: Callable[[Any, Any], Any]) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        result = call(function, arguments)
        self._counted(1 + 2 * len(result) if type(result) is dict else 1)
        self._stack.append(result)

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is not dict and not takes_all(target):
            raise ValueError(f"it sets the state of a {type(target).__name__}")
        if type(target) is dict and type(state) is not dict and state is not None:
            raise ValueError(f"it sets the state of a dictionary to a {type(state).__name__}")


_NOTHING, _NEWEST = object(), 5  # and the newest protocol
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_SET": Inert("builtins.set")}
_Step = Callable[[Pickles, Any], Any]
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(("BININT2", "BININT", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"), Pickles._push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Pickles._put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Pickles._get),
    "PROTO": Pickles._protocol,
    "GLOBAL": Pickles._global,
    "STOP": lambda m, _: None,
    **{name: lambda m, _, value=value: m._stack.append(value) for name, value in _CONSTANTS.items()},
    "BININT1": lambda m, number: m._stack.append(number),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "MARK": lambda m, _: m._mark(),
    "POP": lambda m, _: m._stack.pop(),
    "POP_MARK": lambda m, _: m._to_mark(),
    **{f"TUPLE{size}": lambda m, _, size=size: m._tuple(size) for size in (1, 2, 3)},
    "TUPLE": lambda m, _: m._push(tuple(m._to_mark())),
    "APPEND": lambda m, _: m._append([m._stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._to_mark()),
    "SETITEM": lambda m, _: m._set([m._stack.pop(), m._stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m._set(m._to_mark()),
    "REDUCE": lambda m, _: m._call(called),
    "NEWOBJ": lambda m, _: m._call(made),
    "BUILD": lambda m, _: m._build(),
    "BINPERSID": lambda m, _: m._push(m._storages.of(m._stack.pop())),
}
"""The opcodes for values in pickle's protocol 2, and EMPTY_SET, by their names in pickletools."""
