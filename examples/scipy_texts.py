"""What SciPy's functions and classes do, by the room that they are in: texts and labels for a classifier.

python examples/scipy_texts.py TEXTS.csv

A text is the first paragraph of a docstring, as in "Compute the singular value decomposition of a sparse matrix."
Signatures, texts of fewer than four words and those that several rooms share are left out.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import sys

ROOMS = "fft integrate interpolate linalg ndimage optimize signal sparse spatial special stats"


def texts() -> list[tuple[str, str]]:
    """(text, label), in the order of the rooms and of their names."""
    found: dict[str, set[str]] = {}
    for room in ROOMS.split():
        module = importlib.import_module(f"scipy.{room}")
        things = [getattr(module, name, None) for name in module.__all__]
        methods = [x for thing in things if inspect.isclass(thing) for n, x in vars(thing).items() if n[0] != "_"]
        for thing in filter(callable, [*things, *methods]):
            parts = (" ".join(part.split()) for part in (inspect.getdoc(thing) or "").split("\n\n"))
            text = next((part for part in parts if "out=None" not in part), "")
            if len(text.split()) >= 4:
                found.setdefault(text, set()).add(room)
    return [(text, *rooms) for text, rooms in found.items() if len(rooms) == 1]


def main(path: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *texts()])


if __name__ == "__main__":
    main(*sys.argv[1:])
