"""The runtime: runs sparse networks on CPUs and skips their zeros."""
