"""What MkDocs does to a page before it makes HTML of it."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import sparsight

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:studies|examples|benchmarks|tests|src)/[^)\s]+)\)")
COMMANDS, NAMES = "<!-- commands -->", "<!-- names -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files outside the site become their paths; two marks become the command line and the package's names."""
    if COMMANDS in markdown:
        options = runpy.run_path(str(Path(__file__).parent / "options.py"))
        markdown = markdown.replace(COMMANDS, options["reference"]())
    if NAMES in markdown:
        markdown = markdown.replace(NAMES, names())
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def names() -> str:
    """A table of the names that stand in the package itself: room and first line of the docstring."""
    lines = ["| Name | Room | |", "| --- | --- | --- |"]
    for name in sorted({*sparsight.__all__} - {"__version__"}, key=str.lower):
        found = getattr(sparsight, name)
        own = found.__module__.startswith("sparsight.")  # or an alias of another's type, such as Masks
        room = found.__module__.split(".")[1] if own else "types"
        told = (inspect.getdoc(found) or "" if own else "").partition("\n")[0].replace("|", "\\|")
        lines.append(f"| `{name}` | [{room}]({room}.md) | {told} |")
    return "\n".join(lines)
