"""The pictures of the documentation are those of the committed rows, by their words and their marks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from study_files import STUDIES

PICTURES = STUDIES.parent / "docs" / "pictures"


def seen(picture: Path) -> tuple[list[str], int]:
    """Titles, labels and names of an SVG, and how many paths it has."""
    text = picture.read_text(encoding="utf-8")
    return re.findall(r"<text[^>]*>(.*?)</text>", text), text.count("<path")


@pytest.mark.parametrize(
    ("study", "folder", "words"),
    [
        ("init", "init-study", ["--again", "--pictures", "{}"]),
        ("pq_index", "pq-index", ["--pictures", "{}"]),
        ("sipp", "sipp", ["--picture", "{}/accuracy.svg"]),
        ("stopping", "stopping", ["--pictures", "{}"]),
    ],
)
def test_a_study_draws_its_pictures_from_its_rows(study, folder, words, tmp_path):
    into = shutil.copytree(STUDIES / study / "results", tmp_path / "results")
    given = [word.format(tmp_path) for word in words]
    command = [sys.executable, str(STUDIES / study / "results.py"), "--into", str(into), *given]
    subprocess.run(command, check=True, capture_output=True)
    committed = sorted(path.name for path in (PICTURES / folder).glob("*.svg"))
    drawn, stored = ({name: seen(place / name) for name in committed} for place in (tmp_path, PICTURES / folder))
    assert drawn == stored != {}
