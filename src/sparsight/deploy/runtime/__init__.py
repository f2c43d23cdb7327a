"""The runtime: networks of sparse weights on CPUs, skipping zeros."""
