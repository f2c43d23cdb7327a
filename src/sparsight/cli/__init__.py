"""The command line: a module for each command, or for a few of a kind, without logic. Importing it loads no torch."""

from sparsight.cli.entry import exit_code, main

__all__ = ["exit_code", "main"]
