"""The entry point: finds the command and turns errors into exit codes. Imports only the standard library."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sparsight import __version__
from sparsight.cli.errors import Misuse, NotFound, exit_code, near, printable
from sparsight.cli.processes import join, last_word, part
from sparsight.cli.signals import end_with_the_study, interruptible, leave

HELP = """\
usage: sparsight COMMAND ...

Sparsight finds how far a network can be pruned without losing accuracy, and prunes it.

commands:
  run RECIPE       prune a network with a recipe, and keep the results in a run folder
  show RUN         print the results of a run, finished or not
  report RUN       rewrite the report of a run
  analyze PATH     measure how compressible a checkpoint is, or follow a run
  certify PATH     compute an error bound for a pruned network, and measure its error
  pack PATH        store a sparse checkpoint in fewer bytes
  unpack FILE      write a packed file as plain safetensors
  compact PATH     remove the units of a pruned network that have no effect
  export PATH      write a network as ONNX, a torch.export program, or a state dict
  ledger WHAT      measure the size of a pruned network on disk and in memory, and its speed
  bench WHAT       time a sparse layer or network on this CPU against dense runtimes
  evaluate RUN     measure finished networks beyond accuracy, as tidy rows
  compare RUN...   compare the networks of runs: a table, or a page with charts
  verdict RUN      find the sparsest network within a margin of dense, over several seeds
  verify PATH      find damaged files of a run or a study
  phase            plot an activation's phase diagram and place a network in it
  recipes          list the recipes
  study FILE       run several recipes, arguments and seeds, with intervals over the seeds

  sparsight COMMAND --help      options of a command
  sparsight run RECIPE --help   options of a recipe
  sparsight --version

examples:
  sparsight run sap                           SAP on Fashion-MNIST, into runs/sap-001
  sparsight run sap --data digits --epochs 5  the small set of digits that comes with sparsight
  sparsight run lottery --rate 0.3 --seed 1 --out runs/lottery-fast
  sparsight run sap --model my_pkg.models:build --data my_pkg.data:build
  sparsight run sap --resume                  resume after Ctrl-C, a kill or a power cut
  sparsight show runs/sap-001 --json
  sparsight analyze model.safetensors --html analysis.html
  sparsight pack runs/sap-001 -o packed.safetensors
  sparsight compact runs/sap-001 -o small.safetensors
  sparsight ledger runs/sap-001 --measure
  sparsight certify runs/sipp-001 --as-pruned
  sparsight bench conv --channels 64 64 --size 56 --density 0.1

exit codes:
  0    done
  1    the run failed, a certificate was refused, or an unexpected error
  2    wrong use: an unknown command, recipe or option, a bad value, or an output folder in use
  3    a damaged file, a folder that holds another run, or a run that another process is writing
  4    data or a network was not found
  130  interrupted; a run can be resumed

SPARSIGHT_DEBUG=1 shows the traceback of an error; SPARSIGHT_DATA is the folder to read data sets from.
"""

COMMANDS = {  # and where their options are; those of the others depend on their words
    "run": "", "show": "record", "report": "record", "analyze": "network", "certify": "network", "pack": "network",
    "unpack": "network", "compact": "network", "export": "network", "ledger": "network", "bench": "network",
    "evaluate": "record", "compare": "record", "verdict": "record", "verify": "record", "phase": "network",
    "recipes": "", "study": "record",
}  # fmt: skip

TOGETHER = {
    "recipes": ("recipes", "run"),
    "show": ("show", "verify"),
    "compare": ("compare", "evaluate", "verdict", "report"),
    "measure": ("ledger", "bench"),
    "convert": ("pack", "unpack", "compact", "export"),
}
"""Modules with a function for each of several commands; another command has a module of its name with a `main`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return its exit code. Raises nothing."""
    end_with_the_study()
    for stream in {"stdout", "stderr"} - {name for name, value in vars(sys).items() if value is not None}:
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - a shell closed it, as with >&-
    if argv is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as of standard error: ASCII has no ×
    try:
        code = _answer(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # a second Ctrl-C, before the first was reported
        code = 130
    if argv is None:
        leave(code)
        part(code)
    return code


def _answer(argv: list[str]) -> int:
    """The exit code of a command line; errors are printed."""
    try:
        with interruptible(), _harmless_warnings():
            return _dispatch(argv)
    except KeyboardInterrupt:
        return last_word("interrupted", 130)
    except BrokenPipeError:  # the reader, such as `head`, is done
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - else Python complains when it flushes at exit
        return 1
    except SystemExit as error:  # --help
        return last_word(None, error.code if isinstance(error.code, int) else int(error.code is not None))
    except Exception as error:
        if os.environ.get("SPARSIGHT_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        return last_word(_words(error), exit_code(error))


@contextmanager
def _harmless_warnings() -> Iterator[None]:
    """Escape the text of warnings, which may hold names from files, like that of errors."""

    def harmless(message: Warning | str, *where: Any) -> str:
        return usual(printable(str(message)), *where)

    usual, warnings.formatwarning = warnings.formatwarning, harmless
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _dispatch(argv: list[str]) -> int:
    if not argv:
        sys.stderr.write(HELP)
        return 2
    command, rest = argv[0], argv[1:]
    if command in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
        return 0
    if command in ("-V", "--version"):
        sys.stdout.write(f"sparsight {__version__}\n")
        return 0
    if command not in COMMANDS:
        what = "option" if command.startswith("-") else "command"
        hint = near(command, (*COMMANDS, "--help", "--version")) or f"; the commands are {', '.join(COMMANDS)}"
        raise Misuse(f"unknown {what} {command!r}{hint}")
    join(command)
    asked: Any = rest
    if COMMANDS[command]:
        from sparsight.cli.options import options

        kinds = importlib.import_module(f"sparsight.cli.{COMMANDS[command]}_options")
        asked = options(getattr(kinds, f"{command.capitalize()}Options"), rest, f"sparsight {command}")
    module = next((module for module, commands in TOGETHER.items() if command in commands), None)
    found = importlib.import_module(f"sparsight.cli.{module or command}")
    return getattr(found, command if module else "main")(asked)


def _words(error: Exception) -> str:
    """The message of an error, with its type if it was not written for users."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, (ValueError, OSError, RuntimeError, TypeError, NotFound)) and str(error):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (SPARSIGHT_DEBUG=1 shows where)"


if __name__ == "__main__":
    raise SystemExit(main())
