"""Scorers, one per file. Higher = keep."""
