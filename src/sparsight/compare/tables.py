"""Writes tidy rows as CSV, JSON or Parquet, by the file's suffix."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsight.records.outputs import is_device, write_output
from sparsight.records.record import to_json
from sparsight.report.table import as_csv

SUFFIXES = (".csv", ".json", ".parquet")


def check_suffix(path: Path) -> None:
    """Raise ValueError for a suffix that is not in `SUFFIXES`, or .parquet without pyarrow."""
    if is_device(path):
        return
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"cannot write {path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        _parquet()


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows with the keys of the first; CSV to a device or standard output ("-"). Raises: as `check_suffix`.

    None is empty in CSV; non-finite numbers in JSON are "nan", "inf" or "-inf".
    """
    check_suffix(path)
    suffix = "" if is_device(path) else path.suffix.lower()
    if suffix == ".json":
        made = (json.dumps(to_json(list(rows)), indent=1) + "\n").encode()
    elif suffix == ".parquet":
        arrow, parquet = _parquet()
        parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), out := io.BytesIO())
        made = out.getvalue()
    else:
        made = as_csv(rows).encode()
    write_output(path, [made])


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install sparsight[tables], or write .csv or .json") from error
    return pyarrow, parquet
