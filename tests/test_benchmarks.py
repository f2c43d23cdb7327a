"""Benchmarks refuse what they cannot time."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (["--weights", "1000000"], "got 4096 x 4096 and 1000000"),
        (["--weights", "0", "--memory"], "got 4096 x 4096 and 0"),
        (["--rows", "0"], "got 0 x 4096 and 100663296"),
    ],
)
def test_analyze_needs_room_for_one_tensor(words, got, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["analyze.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / "analyze.py"), run_name="__main__")
    assert ended.value.code == 2
    assert got in capsys.readouterr().err
