"""Studies on many machines: one trial of a study is one task of Ray, in a process of its own. Needs `ray`."""

from sparsight.integrations.ray.slurm import slurm_command
from sparsight.integrations.ray.study import RayEngine, run_study_on_ray

__all__ = ["RayEngine", "run_study_on_ray", "slurm_command"]
