"""The names of the network and data of a run, to build them again."""

from __future__ import annotations

from sparsight.records.folder import RunFolder
from sparsight.zoo import data as readers


class Unnamed(ValueError):
    """The network or the data of a run are the user's code, and were not named again."""


def names_of(folder: RunFolder, model: str | None, data: str | None) -> tuple[str, str]:
    """The names of the network and data: as given, otherwise from the records if they are of the zoo.

    Raises: Unnamed.
    """
    run, path = folder.record, folder.path
    spec, name = model or run.model.get("spec"), data or run.data["name"]
    if data is None and name not in readers.KNOWN:
        raise Unnamed(f"the data of {path}, {name!r}, are your own: give --data package.module:attribute")
    if spec is None:
        raise Unnamed(f"the network of {path} was built in Python: give --model package.module:attribute")
    if model is None and ":" in spec:
        raise Unnamed(f"the network of {path} is your own code, which must be named again: add --model {spec}")
    return spec, name
