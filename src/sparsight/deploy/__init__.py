"""Using pruned networks: fast on CPUs, without dead units, exported, counted and measured."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsight.deploy.ledger.count import ledger
from sparsight.deploy.ledger.records import Ledger

if TYPE_CHECKING:
    from sparsight.deploy.compaction.compact import Compacted, Left, compact, load_compacted
    from sparsight.deploy.exporting import Export, export
    from sparsight.deploy.recalibrate import recalibrate_
    from sparsight.deploy.runtime.fast import sparse_runtime
    from sparsight.deploy.runtime.visit import Planned

__all__ = ["Compacted", "Export", "Ledger", "Left", "Planned", "compact", "export", "ledger", "load_compacted"]
__all__ += ["recalibrate_", "sparse_runtime"]

_HOME = {
    "compaction.compact": ("Compacted", "Left", "compact", "load_compacted"),
    "exporting": ("Export", "export"),
    "recalibrate": ("recalibrate_",),
    "runtime.fast": ("sparse_runtime",),
    "runtime.visit": ("Planned",),
}


def __getattr__(name: str) -> Any:
    """Import on first use the code that runs or traces networks: the runtime's kernels take a second to load."""
    home = next((home for home, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found
