"""Studies on many machines: each trial is a Ray task in its own process. Needs `ray`."""

from sparsight.integrations.ray.study import RayEngine, run_study_on_ray, slurm_command

__all__ = ["RayEngine", "run_study_on_ray", "slurm_command"]
