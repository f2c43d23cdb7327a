"""Plain English in what a reader reads: no phrase of the list, no sentence over 30 words, thousands with a comma."""

from __future__ import annotations

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FORBIDDEN = {  # phrase -> what to write instead
    r"allowed (?:is|are|was|were)\b": "must be ..., got ...",
    r"\b(?:hand|hands|handed|handing) (?:\w+ ){0,3}over\b": "say what is chosen, returned or passed on",
    r"\bwhere (?:none|nothing) (?:is|was)\b": "without ..., or: if there is no ...",
    r"\bwhere there (?:is|are) (?:none|no)\b": "without ...",
    r"\bif not given\b|\bwhere not given\b": "default: ...",
    r"\b(?:of )?one's own\b": "your own",
    r"\bso that\b": "two sentences",
    r"\band more\b(?! than| than)(?=[.;,]| are allowed)": "at least ...",
    r"\bnot measured yet\b": "measure it, or leave the row out",
    r"\b(?:earlier|older) version of this page\b|\bat the \w+ look\b": "docs say what is; history is in CHANGELOG.md",
    r"\bthe house\b|\bnetworks that leave\b": "say what it is",
    r"\bhand(?:s|ed)? out\b|\bis believed\b|\b(?:is|are) told by\b|\bwhat is said of\b": "name the thing and the verb",
    r"\bin a process of its own\b|\ban epoch, (?:from|measured)\b": "in its own process; per epoch",
    r"\bwhat is no\b": "anything but ...",
}
LONGEST = 30
ROOMS = (
    "analysis",
    "checkpoint",
    "cli",
    "compare",
    "deploy",
    "integrations",
    "measure",
    "model",
    "numerics",
    "pruning",
    "recipes",
    "records",
    "report",
    "runs",
    "train",
    "zoo",
)

CODE = [path for room in ROOMS for path in sorted((ROOT / "src" / "sparsight" / room).rglob("*.py"))]
WORD = re.compile(r"[^\W\d_][\w'’-]+")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """A page without fenced blocks, tables, comments, headings and addresses of links; code counts as one word."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "<!--", "#", ":::", "    "))]
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", "\n".join(lines))
    return re.sub(r"`[^`]+`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))


def sentences(text: str) -> list[str]:
    """Of a page's prose; a list item, a paragraph, a colon or a semicolon ends one too."""
    blocks = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", "\n" + prose(text))
    parts = [part for block in blocks for part in re.split(r"(?<=[.!?:;])\s+", " ".join(block.split()))]
    return [part for part in parts if part]


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_no_phrase_of_the_list(page):
    text = " ".join(page.read_text().split())
    found = {match[0]: instead for phrase, instead in FORBIDDEN.items() for match in re.finditer(phrase, text, re.I)}
    assert not found, found


def texts(code: Path) -> str:
    """The docstrings, messages and comments of a module."""
    kinds = (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    with code.open("rb") as lines:
        return " ".join(" ".join(x.string for x in tokenize.tokenize(lines.readline) if x.type in kinds).split())


@pytest.mark.parametrize("code", [*CODE, ROOT / "src" / "sparsight" / "types.py"], ids=named)
def test_no_phrase_of_the_list_in_code(code):
    text = texts(code)
    found = {match[0]: instead for phrase, instead in FORBIDDEN.items() for match in re.finditer(phrase, text, re.I)}
    assert not found, found


@pytest.mark.parametrize("page", [page for page in DOCS if page.name != "CHANGELOG.md"], ids=named)
def test_sentences_are_short(page):
    long = [text for text in sentences(page.read_text()) if len(WORD.findall(text)) > LONGEST]
    assert not long, long


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_thousands_have_a_comma(page):
    assert not re.findall(r"(?<![\d.])\d{1,3} \d{3}(?![\d.])", prose(page.read_text()))


def test_what_is_forbidden_is_found():
    wrong = "batch size is 0: allowed is 1. The level that is handed over, so that nobody waits where none is given."
    assert sum(bool(re.search(phrase, wrong)) for phrase in FORBIDDEN) == 4


def test_a_long_sentence_is_found():
    found = sentences("One `a b c` two, W = 2.\n\n- " + "word " * 31 + "\n- three")
    assert [len(WORD.findall(text)) for text in found] == [3, 31, 1]
