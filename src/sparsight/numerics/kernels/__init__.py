"""Compiled loops over flat arrays. Each has a tensor twin, beside its caller, for devices other than the CPU."""
