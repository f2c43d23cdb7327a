"""Reading a page as a browser would: tags in balance, text by tag, addresses; and driving it in Chromium."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
    assert all(address == "data:," or address[1:] in seen.ids for address in seen.addresses), seen.addresses
    return seen


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium found")


def specs(page: str) -> dict[str, Any]:
    """The charts of a page, by name."""
    found = re.findall(r'<script type="application/json" id="spec-([^"]*)">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


class Tab:
    """A page in Chromium, driven over its debugging pipe: messages of JSON with a NUL behind each."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._count, self._session = write, read, b"", 0, ""
        self.console: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(1200, 900)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != self._count:
            self._note(found)
        assert "error" not in found, found
        return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        if event["method"] == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(x.get("value", x.get("description"))) for x in said["args"]))
        elif event["method"] == "Runtime.exceptionThrown":
            self.console.append(json.dumps(said["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            self.console.append(said["entry"]["text"])
        elif event["method"] == "Network.requestWillBeSent":
            url = said["request"]["url"]
            self.asked += [] if url.startswith(("file:", "data:")) else [url]

    def resize(self, width: int, height: int) -> None:
        more = {"deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **more)

    def open(self, page: Path, drawn: bool = True, place: str = "") -> None:
        """Show a page, and wait until its charts are drawn."""
        self.call("Page.navigate", url="about:blank")  # or another place in the same page would not load it anew
        self.call("Page.navigate", url=f"{page.as_uri()}{place}")
        self.until("document.documentElement?.dataset.drawn" if drawn else "document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """What an expression of JavaScript gives, awaited."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str) -> None:
        """Wait for an expression to hold; after 60 s it is an error."""
        end = time.monotonic() + 60
        while not self.run(f"!!({code})"):
            assert time.monotonic() < end, f"waited for {code}: {self.console}"
            time.sleep(0.02)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, scrolled into view."""
        find = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'nearest'}});"
        code = f"(() => {{ {find} const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }})()"
        return tuple(self.run(code))

    def mouse(self, *path: tuple[float, float], press: bool = False) -> None:
        """Move the pointer along a path, with the button down from its first point to its last if `press`."""
        more = {"button": "left", "clickCount": 1} if press else {}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=path[0][0], y=path[0][1])
        if press:
            self.call("Input.dispatchMouseEvent", type="mousePressed", x=path[0][0], y=path[0][1], **more)
        for x, y in path[1:]:
            self.call(
                "Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **({**more, "buttons": 1} if press else {})
            )
        if press:
            self.call("Input.dispatchMouseEvent", type="mouseReleased", x=path[-1][0], y=path[-1][1], **more)

    def click(self, selector: str) -> None:
        x, y, width, height = self.box(selector)
        self.mouse((x + width / 2, y + height / 2), press=True)

    def key(self, name: str, text: str = "") -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35}
        more = {"key": name, "windowsVirtualKeyCode": codes.get(name, ord(name[0].upper()))}
        more |= {"text": "\r" if name == "Enter" else text} if text or name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def picture(self, where: Path) -> None:
        size = self.run("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        where.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def tab(where: Path, *more: str) -> Iterator[Tab]:
    """A browser with an empty profile under `where`, ended with the block."""
    assert BROWSER is not None
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    command = [BROWSER, *QUIET, f"--user-data-dir={where / 'profile'}", "--remote-debugging-pipe", *more]
    script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    browser = subprocess.Popen(
        ["bash", "-c", script, "bash", *command], pass_fds=(to_read, from_write), stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Tab(to_write, from_read)
    finally:
        os.close(to_write)
        os.close(from_read)
        browser.terminate()
        browser.wait(20)


def looked_at(page: Path, where: Path, *, scripts: bool = True, dark: bool = False) -> str:
    """The text of a page as the browser shows it; nothing may stand on the console, and nothing be asked for."""
    with tab(where) as shown:
        shown.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        if dark:
            shown.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        shown.open(page, drawn=scripts)
        text = shown.run("document.body.innerText")
        assert shown.console == []
        assert shown.asked == []
    return text
