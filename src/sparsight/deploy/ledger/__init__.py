"""Size, operations, time and memory of a pruned network: counted from its file, or measured on this machine."""

from sparsight.deploy.ledger.count import Roles, ledger
from sparsight.deploy.ledger.records import Counted, Latency, Ledger, Measured, Memory, Request, Times

__all__ = ["Counted", "Latency", "Ledger", "Measured", "Memory", "Request", "Roles", "Times", "ledger"]
