"""YAML files as plain values that know their lines. YAML 1.2, read without running anything, within budgets."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsight.records.files import DamagedFile, check_there

SIZE, DEPTH, NODES = 1 << 20, 20, 100_000
"""Most bytes of a file, nested levels, and values with what aliases repeat."""

Place = tuple[str | int, ...]
"""Keys and positions from the top of a file to one of its values."""


class StudyFileError(ValueError):
    """A study file that cannot be run: file, line, key, value, and what is accepted."""


@dataclass(frozen=True)
class Source:
    """What a file says, and the line (from 1) of each of its values."""

    path: Path
    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, place: Place, what: str) -> StudyFileError:
        """An error at a value."""
        key = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        return StudyFileError(f"{self.path}, line {self.line(place)}: {f'{key}: ' if key else ''}{what}")


def read_source(path: Path) -> Source:
    """The values of a YAML file: mappings with text as keys, lists, text, numbers, true, false and null.

    Raises: StudyFileError, with its line, for what is no YAML 1.2, a key that is there twice, a tag, a merge key, and
    whatever is beyond the budgets.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        check_there(path, "give another file")
        with path.open("rb") as file:
            text = file.read(SIZE + 1)
    except (OSError, ValueError) as error:
        what = error.what if isinstance(error, DamagedFile) else getattr(error, "strerror", None) or error
        raise StudyFileError(f"cannot read {path}: {what}") from error
    if len(text) > SIZE:
        raise StudyFileError(f"{path} has more than {SIZE:,} bytes, which no study needs")
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(path, yaml, text)
        reader = _Reader(path, yaml)
        root = YAML(typ="safe", pure=True).compose(text)
        value = None if root is None else reader.value(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise StudyFileError(f"{path}{where}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, StudyFileError):
            raise
        raise StudyFileError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    return Source(path, value, reader.lines)


def _check_depth(path: Path, yaml: Any, text: bytes) -> None:
    """Refuse nesting before anything is built: the composer calls itself for each level."""
    depth = 0
    for number, event in enumerate(yaml.parse(text)):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if getattr(event, "version", None) not in (None, (1, 2)):
            raise StudyFileError(f"{path}, line {event.start_mark.line + 1}: expected YAML 1.2, got another version")
        if depth > DEPTH + 2 or number > 2 * NODES:  # stream and document are levels too
            what = f"nested more than {DEPTH} levels deep" if depth > DEPTH else f"more than {NODES:,} values"
            raise StudyFileError(f"{path}, line {event.start_mark.line + 1}: {what}, which no study needs")


class _Reader:
    """Builds plain values from the nodes of a document."""

    def __init__(self, path: Path, yaml: Any) -> None:
        self.path, self.lines, self._built = path, dict[Place, int](), 0
        self._plain = yaml.constructor

    def value(self, node: Any, place: Place) -> Any:
        self.lines[place] = line = node.start_mark.line + 1
        self._built += 1
        if self._built > NODES or len(place) > DEPTH:
            raise self._error(line, f"more than {NODES:,} values, or {DEPTH} levels, with what its aliases repeat")
        if node.id == "sequence":
            return [self.value(item, (*place, n)) for n, item in enumerate(node.value)]
        if node.id == "mapping":
            return self._mapping(node, place)
        return self._scalar(node, line)

    def _mapping(self, node: Any, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            name = self._scalar(key, line) if key.id == "scalar" else None
            if not isinstance(name, str):
                raise self._error(line, f"a key must be text, got {getattr(key, 'value', key)!r:.60}")
            if name in found:
                raise self._error(line, f"the key {name!r:.60} is there twice")
            found[name] = self.value(item, (*place, name))
            self.lines[(*place, name)] = line
        return found

    def _scalar(self, node: Any, line: int) -> Any:
        tag = str(node.tag).rpartition(":")[2]
        if tag in ("null", "bool", "int", "float"):
            return self._plain.construct_object(node)
        if tag not in ("str", "timestamp"):
            raise self._error(line, f"expected plain values, got the tag or key {node.value or node.tag!r:.60}")
        return node.value

    def _error(self, line: int, what: str) -> StudyFileError:
        return StudyFileError(f"{self.path}, line {line}: {what}")


def near(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'sap'?" with a close match; otherwise what there is."""
    found = difflib.get_close_matches(word.replace("_", "-"), known := [*known], 1, 0.65)
    found = found or difflib.get_close_matches(word, known, 1, 0.65)
    return f"; did you mean {found[0]!r}?" if found else f"; there are {', '.join(known)}"
