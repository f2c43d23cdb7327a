"""The command line: which command, and what its errors are worth. Only the standard library is imported here."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sparsight import __version__
from sparsight.cli.errors import Misuse, NotFound, near, printable
from sparsight.cli.processes import join, last_word, part
from sparsight.cli.signals import end_with_the_study, interruptible, leave

HELP = """\
usage: sparsight COMMAND ...

Sparsight finds how far a network can be pruned without losing accuracy, and prunes it.

commands:
  run RECIPE       prune a network by a recipe, into a run folder of its own
  show RUN         the table of a run and what it says, finished or not
  report RUN       write the report of a run again, from its records
  analyze PATH     how compressible a network is, without its code; or the path of a run
  certify PATH     which error bound a pruned network satisfies, beside the error measured
  pack PATH        a checkpoint in few bytes: pruned weights take next to nothing
  unpack FILE      a packed file as plain safetensors
  compact PATH     a pruned network without the units that have no effect
  export PATH      a network as ONNX, as a program of torch.export, or as a plain state dict
  ledger WHAT      what a pruned network is on disk, in memory and in time
  bench WHAT       time a sparse layer or network on this CPU, beside dense rivals
  evaluate RUN     what finished networks are worth beyond accuracy, as tidy rows
  compare RUN...   the networks of runs side by side: a table, or a page with charts
  verdict RUN      how far one can go: the sparsest network within a margin of dense
  verify RUN       read every file of a run or a study, and say which is damaged
  phase            at which scale of initial weights signals get through, and where a network stands
  recipes          the recipes there are
  study FILE       many runs: several recipes, arguments and seeds, with intervals over the seeds

  sparsight COMMAND --help      what a command takes
  sparsight run RECIPE --help   what a recipe takes
  sparsight --version

examples:
  sparsight run sap                           SAP on Fashion-MNIST, into runs/sap-001
  sparsight run sap --data digits --epochs 5  the small set of digits that comes with sparsight
  sparsight run lottery --rate 0.3 --seed 1 --out runs/lottery-fast
  sparsight run sap --model my_pkg.models:build --data my_pkg.data:build
  sparsight run sap --resume                  go on after Ctrl-C, a kill or a power cut
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
  2    wrong use: an unknown command, recipe or option, a bad value, a folder that is taken
  3    a damaged file, a folder that holds another run, or a run that another process is writing
  4    data or a network was not found
  130  interrupted; a run can be resumed

SPARSIGHT_DEBUG=1 shows the traceback of an error; SPARSIGHT_DATA names a folder that has the data.
"""

COMMANDS = (
    "run", "show", "report", "analyze", "certify", "pack", "unpack", "compact", "export", "ledger", "bench", "evaluate",
    "compare", "verdict", "verify", "phase", "recipes", "study",
)  # fmt: skip

_CODES = {  # by name, so that nothing is imported for an error that cannot have happened
    "sparsight.cli.errors.Misuse": 2,
    "sparsight.runs.again.Unnamed": 2,
    "sparsight.runs.study.source.StudyFileError": 2,
    "sparsight.records.files.DamagedFile": 3,
    "sparsight.records.identity.ForeignRun": 3,
    "sparsight.records.lock.LockedRun": 3,
    "sparsight.checkpoint.entry.CheckpointError": 3,
    "sparsight.cli.errors.NotFound": 4,
    "sparsight.zoo.data.fashion.DataNotFound": 4,
    "sparsight.zoo.data.download.DownloadError": 4,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line (by default that of the process, which then ends); the exit code. Nothing is raised."""
    end_with_the_study()
    for stream in {"stdout", "stderr"} - {name for name, value in vars(sys).items() if value is not None}:
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - a shell closed it, as with >&-
    try:
        code = _answer(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # again, before the first one was told
        code = 130
    if argv is None:
        leave(code)
        part(code)
    return code


def _answer(argv: list[str]) -> int:
    """The exit code of a command line; what went wrong is said."""
    try:
        with interruptible(), _harmless_warnings():
            return _dispatch(argv)
    except KeyboardInterrupt:
        return last_word("interrupted", 130)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - else Python complains when it flushes at exit
        return 1
    except SystemExit as error:  # from the parser of options: help, or a bad value that it has explained
        return last_word(None, error.code if isinstance(error.code, int) else int(error.code is not None))
    except Exception as error:
        if os.environ.get("SPARSIGHT_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        return last_word(_words(error), exit_code(error))


@contextmanager
def _harmless_warnings() -> Iterator[None]:
    """A block in which the text of a warning, which may hold names from files, is made harmless as errors are."""

    def harmless(message: Warning | str, *where: Any) -> str:
        return usual(printable(str(message)), *where)

    usual, warnings.formatwarning = warnings.formatwarning, harmless
    try:
        yield
    finally:
        warnings.formatwarning = usual


def exit_code(error: BaseException) -> int:
    """The exit code that an error is worth: 1 unless it is one of those that the help names."""
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((_CODES[name] for name in names if name in _CODES), 1)


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
        hint = near(command, (*COMMANDS, "--help", "--version")) or f"; there are {', '.join(COMMANDS)}"
        raise Misuse(f"unknown {what} {command!r}{hint}")
    join(command)
    return importlib.import_module(f"sparsight.cli.{command}").main(rest)


def _words(error: Exception) -> str:
    """What to tell of an error: its own words where it was made to be read, else its type too."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, (ValueError, OSError, RuntimeError, TypeError, NotFound)) and str(error):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (SPARSIGHT_DEBUG=1 shows where)"


if __name__ == "__main__":
    raise SystemExit(main())
