"""The command line: one module per command, without logic of its own. Importing it does not load torch."""

from sparsight.cli.entry import exit_code, main

__all__ = ["exit_code", "main"]
