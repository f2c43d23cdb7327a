"""Allocators: how many weights to keep, and where. Counts are exact."""
