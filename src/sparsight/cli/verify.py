"""`sparsight verify PATH`: check the files of a run or a study against their checksums."""

from __future__ import annotations

import sys

from sparsight.cli.errors import printable, refusing
from sparsight.cli.record_options import VerifyOptions
from sparsight.records.files import there
from sparsight.records.verify import verify_run
from sparsight.runs.study import verify_study


def main(asked: VerifyOptions) -> int:
    with refusing(FileNotFoundError, form="{}; expected a run folder or a study folder"):
        found = verify_study(asked.path) if there(asked.path / "study.json") else verify_run(asked.path)
    said = map(str, found) if found else [f"{asked.path}: every file is intact"]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in said))
    return 3 if found else 0
