"""Saliency criteria, one file each. Higher = keep."""
