"""The network and the data of a run, to make them again: what the records may name, and what must be named anew."""

from __future__ import annotations

from sparsight.records.folder import RunFolder
from sparsight.zoo import data as readers


class Unnamed(ValueError):
    """The network or the data of a run are code, which no run folder chooses, and they were not named."""


def names_of(folder: RunFolder, model: str | None, data: str | None) -> tuple[str, str]:
    """How the network and the data of a run are named: as given, or else by the records, if both are of the zoo.

    Raises: Unnamed, with what to give.
    """
    run, path = folder.record, folder.path
    spec, name = model or run.model.get("spec"), data or run.data["name"]
    if data is None and name not in readers.KNOWN:
        raise Unnamed(f"the data of {path}, {name!r}, are your own: name them with --data package.module:attribute")
    if spec is None:
        raise Unnamed(f"the network of {path} was made in Python: name it with --model package.module:attribute")
    if model is None and ":" in spec:
        raise Unnamed(f"the network of {path} is code, which no run folder chooses: name it with --model {spec}")
    return spec, name
