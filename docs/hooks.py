"""What MkDocs does to a page before it makes HTML of it."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:studies|examples|benchmarks|tests|src)/[^)\s]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a file that is not part of the site becomes the file's path."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)
