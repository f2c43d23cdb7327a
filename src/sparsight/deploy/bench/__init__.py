"""Times sparse networks on CPUs against the fastest dense runtimes."""

from sparsight.deploy.bench.cases import Case, conv, linear, network, prune_at_random_
from sparsight.deploy.bench.compare import BFLOAT16, Comparison, Row, compare
from sparsight.deploy.bench.machine import machine
from sparsight.deploy.bench.measure import Timing, timed
from sparsight.deploy.bench.rivals import RIVALS, Rival, Unavailable, chosen

__all__ = ["BFLOAT16", "RIVALS", "Case", "Comparison", "Rival", "Row", "Timing", "Unavailable", "chosen", "compare"]
__all__ += ["conv", "linear", "machine", "network", "prune_at_random_", "timed"]
