"""Compiled loops over flat arrays. For devices other than the CPU, each has a tensor twin next to its caller."""
