"""The command that starts Ray on all nodes of a Slurm allocation, runs a study there, and ends it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

PORT = 6379


def slurm_command(words: Sequence[str]) -> str:
    """Lines for a job script, whose study is `words`: "sparsight study study.yaml --out /shared/study"."""
    study = shlex.join([*words, "--engine", "ray", "--address", "auto"])
    return f"""\
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(openssl rand -hex 32) RAY_USAGE_STATS_ENABLED=0
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --export=ALL \\
  ray symmetric-run --address "$head:{PORT}" --min-nodes "$SLURM_JOB_NUM_NODES" \\
  --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --disable-usage-stats -- \\
  {study}
"""
