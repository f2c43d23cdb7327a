"""The files of a study in the repository as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

STUDIES = Path(__file__).parents[1] / "studies"


def study_modules(folder: str, *names: str) -> Any:
    """A fixture of module scope: the named files of studies/FOLDER as modules.

    They are imported from their folder and forgotten afterwards: their names are plain words, which studies share.
    """

    @pytest.fixture(scope="module")
    def parts() -> Iterator[SimpleNamespace]:
        known = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        place = str(STUDIES / folder)
        sys.path.insert(0, place)
        try:
            yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        finally:
            sys.path.remove(place)
            for name in names:
                sys.modules.pop(name, None)
            sys.modules.update(known)

    return parts
