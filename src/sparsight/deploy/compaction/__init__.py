"""Compaction: a pruned network without its dead units."""
