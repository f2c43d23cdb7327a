"""Reads pickles as data: interprets the opcodes that torch.save writes, and runs no code."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsight.checkpoint.entry import LONGEST_HEADER, CheckpointError
from sparsight.checkpoint.rebuild import Inert, Storages, called, key_of, made, takes_all

MOST_OPCODES = 5_000_000
MOST_OBJECTS = 1_000_000


class Pickles:
    """The pickles in `content`, one after the other. Time and memory are bounded by its length.

    A value is a number, text, bytes, a list, a tuple, a dictionary, or what `rebuild` makes of the names that it knows:
    the place of a tensor. Any other name, and anything called or built by it, becomes an `Inert`.
    Raises: CheckpointError for a damaged pickle, or beyond the limits, which apply to all pickles together.
    """

    def __init__(self, path: Path, content: bytes, storages: Storages) -> None:
        self._path, self._content, self._storages = path, content, storages
        self.at = 0  # bytes read so far
        self._opcodes = self._objects = 0
        self._globals: dict[str, Inert] = {}
        self._begin()

    def _begin(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: list[Any] = []

    def load(self) -> Any:
        """The value of the next pickle."""
        self._begin()
        try:
            return self._run()
        except CheckpointError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError, struct.error) as error:
            if self.at >= len(self._content) == LONGEST_HEADER:
                what = f"its pickle is longer than {LONGEST_HEADER:,} bytes"
                raise CheckpointError(self._path, what) from error
            what = f"its pickle is damaged at byte {min(self.at, len(self._content)):,}"
            known = f": {error}" if type(error) is ValueError else ""
            raise CheckpointError(self._path, f"{what}{known:.200}") from error

    def _run(self) -> Any:
        content, steps = self._content, _STEPS
        while True:
            code = content[self.at]
            self.at += 1
            self._opcodes += 1
            if code == _STOP:
                return self._stack.pop()
            if self._opcodes > MOST_OPCODES:
                raise CheckpointError(self._path, f"its pickle has more than {MOST_OPCODES:,} opcodes")
            step = steps.get(code)
            if step is None:
                what = f"its pickle has the opcode {code:#04x}, which torch.save does not write"
                raise CheckpointError(self._path, f"{what} with its default pickle_protocol")
            step(self)

    # -- bytes and counts --------------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        found = self._content[self.at : self.at + size]
        self.at += size
        if len(found) < size:
            raise ValueError("it ends in the middle")
        return found

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> str:
        end = self._content.index(b"\n", self.at)
        found = self._take(end - self.at).decode()
        self.at += 1
        if not found:
            raise ValueError("it names something without a name")
        return found

    def _counted(self, objects: int) -> None:
        self._objects += objects
        if self._objects > MOST_OBJECTS:
            raise CheckpointError(self._path, f"its pickle makes more than {MOST_OBJECTS:,} objects")

    def _push(self, value: Any) -> None:
        self._objects += 1
        if self._objects > MOST_OBJECTS:
            self._counted(0)
        self._stack.append(value)

    def _protocol(self) -> None:
        if self._byte() > _NEWEST:
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

    # -- names and what they make ------------------------------------------------------------------------------

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
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
        self._stack.pop()
        if type(self._stack[-1]) is not dict and not takes_all(self._stack[-1]):
            raise ValueError(f"it sets the state of a {type(self._stack[-1]).__name__}")

    def _storage(self) -> None:
        self._push(self._storages.of(self._stack.pop()))


_STOP, _NEWEST = ord("."), 5
_NOTHING, _SET = object(), Inert("builtins.set")
_Step = Callable[[Pickles], Any]
_STEPS: dict[int, _Step] = {
    0x80: lambda m: m._protocol(),
    ord("N"): lambda m: m._stack.append(None),
    0x88: lambda m: m._stack.append(True),
    0x89: lambda m: m._stack.append(False),
    ord("K"): lambda m: m._stack.append(m._byte()),
    ord("M"): lambda m: m._push(m._number(2)),
    ord("J"): lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
    0x8A: lambda m: m._push(int.from_bytes(m._take(m._byte()), "little", signed=True)),  # LONG1
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    ord("X"): lambda m: m._push(m._take(m._number(4)).decode("utf-8", "surrogatepass")),
    ord("U"): lambda m: m._push(m._take(m._byte()).decode()),  # SHORT_BINSTRING
    ord("("): lambda m: m._mark(),
    ord("0"): lambda m: m._stack.pop(),
    ord("1"): lambda m: m._to_mark(),
    ord("q"): lambda m: m._put(m._byte()),
    ord("r"): lambda m: m._put(m._number(4)),
    ord("h"): lambda m: m._get(m._byte()),
    ord("j"): lambda m: m._get(m._number(4)),
    ord(")"): lambda m: m._stack.append(()),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("t"): lambda m: m._push(tuple(m._to_mark())),
    ord("]"): lambda m: m._push([]),
    ord("}"): lambda m: m._push({}),
    0x8F: lambda m: m._stack.append(_SET),
    ord("a"): lambda m: m._append([m._stack.pop()]),
    ord("e"): lambda m: m._append(m._to_mark()),
    ord("s"): lambda m: m._set([m._stack.pop(), m._stack.pop()][::-1]),
    ord("u"): lambda m: m._set(m._to_mark()),
    ord("c"): lambda m: m._global(),
    ord("R"): lambda m: m._call(called),
    0x81: lambda m: m._call(made),  # NEWOBJ
    ord("b"): lambda m: m._build(),
    ord("Q"): lambda m: m._storage(),
}
"""Of pickle's protocol 2 those that stand for values, by their codes, and EMPTY_SET."""
