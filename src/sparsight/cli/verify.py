"""`sparsight verify PATH`: check the files of a run or a study against their checksums."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.errors import Misuse, printable
from sparsight.cli.options import options


@dataclass(frozen=True)
class VerifyOptions:
    """Check every file of a run, finished or not, against its checksum and the run's records.

    Prints a line per damaged file, with what is wrong and what to do; the exit code is then 3.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder or a study folder.")]


def main(argv: list[str]) -> int:
    asked = options(VerifyOptions, argv, "sparsight verify")

    from sparsight.records.files import there
    from sparsight.records.verify import verify_run
    from sparsight.runs.study import verify_study

    try:
        found = verify_study(asked.path) if there(asked.path / "study.json") else verify_run(asked.path)
    except FileNotFoundError as error:
        raise Misuse(f"{error}; expected a run folder or a study folder") from error
    for damage in found:
        sys.stdout.write(f"{printable(str(damage))}\n")
    if not found:
        sys.stdout.write(f"{printable(str(asked.path))}: every file is intact\n")
    return 3 if found else 0
