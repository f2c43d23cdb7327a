"""The command line: one module a command, none with logic of its own. Importing it loads no torch."""

from sparsight.cli.entry import exit_code, main

__all__ = ["exit_code", "main"]
