"""Allocators, one per file: how many weights to keep, and where. Counts are exact."""
