"""Reading a page as a browser would: tags in balance, text by tag, addresses."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "link", "input", "br"}


HOSTILE = '<script>alert("1")</script>&amp; \'ü\u202e漢字[3]'


@dataclass
class Seen(HTMLParser):
    """Tags in balance, text by tag, ids and every address."""

    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    caption: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(given["id"] or "")
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data", "srcset")]
        assert not any(k.startswith("on") for k, _ in attrs), attrs
        if tag == "tr":
            self.rows.setdefault(self.caption, []).append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.words.append(data)
        if self.open and self.open[-1] == "caption":
            self.caption = data
        if "table" in self.open and self.open[-1] in ("td", "th"):
            self.rows[self.caption][-1].append(data)


def read(page: str) -> Seen:
    seen = Seen()
    seen.feed(page)
    seen.close()
    assert seen.open == []
    assert len(seen.ids) == len(set(seen.ids))
    assert all(address == "data:," for address in seen.addresses), seen.addresses
    return seen


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium found")


def browse(page: Path, where: Path, *more: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    quiet += ("--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars")
    quiet += ("--host-resolver-rules=MAP * ~NOTFOUND",)
    settings = (f"--user-data-dir={where / 'profile'}", "--enable-logging=stderr", "--v=0", *more)
    command = [BROWSER, "--headless", "--no-sandbox", *quiet, *settings, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def requests(log: Path) -> list[str]:
    """Addresses on the network that the page asked for. What the browser asks for itself has no initiator."""
    text = log.read_text(encoding="utf-8")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:  # the browser ended before it closed the list
        events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
    starts = [event["params"] for event in events if "initiator" in event.get("params", {})]
    asked = [x["url"] for x in starts if x["initiator"] != "not an origin"]
    return [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))]
