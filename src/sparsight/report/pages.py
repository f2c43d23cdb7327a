"""Self-contained pages: escaping templates, charts with tables of their numbers, a content security policy."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from platformdirs import user_cache_dir

from sparsight.numerics.format import unbroken
from sparsight.records.files import make_folder, write_atomically
from sparsight.report.escape import plain
from sparsight.report.theme import CSS, FONT, config

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Table:
    """Rows of text under headings. The first column names its row; columns in `words` are prose.

    `marked` maps positions of rows to CSS classes.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    _: KW_ONLY
    words: Collection[int] = ()
    marked: Mapping[int, str] = field(default_factory=dict)
    kind: ClassVar = "table"


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite or Vega chart, with a table of its numbers or the name of the section that has them.

    A width of "container" is the width of the page minus `side` pixels. Facets of `cell` pixels fill as many columns
    as fit.
    """

    name: str
    title: str  # what the chart shows
    spec: Mapping[str, Any]
    table: Table | str
    _: KW_ONLY
    side: int = 0
    cell: int = 0
    kind: ClassVar = "chart"


@dataclass(frozen=True)
class Fold:
    """Parts that open on a click."""

    title: str
    parts: Sequence[Any]
    kind: ClassVar = "fold"


@dataclass(frozen=True)
class Code:
    """Verbatim text."""

    caption: str
    text: str
    kind: ClassVar = "code"


@dataclass(frozen=True)
class Cards:
    """Small tables side by side."""

    parts: Sequence[Table]
    kind: ClassVar = "cards"


Part = Table | Chart | Fold | Code | Cards | str
"""A part of a section; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    lead: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Tile:
    """A headline number; `beside` has others to compare it with, as (label, value)."""

    label: str
    value: str
    beside: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """The content of a page: a headline, warnings, and sections."""

    title: str  # in the browser's tab
    eyebrow: str
    heading: str
    sections: Sequence[Section]
    _: KW_ONLY
    about: str = ""
    told: str = ""
    tiles: Sequence[Tile] = ()
    notes: Sequence[str] = ()
    status: str = ""
    warnings: Sequence[str] = ()


def render(page: Page, template: str = "page.html", scripts: Sequence[str] = (), **more: Any) -> str:
    """The page as one HTML file. Equal pages give equal bytes.

    All strings are escaped. A content security policy blocks every request, and every script except Vega's, page.js
    and `scripts`. Expressions in charts are interpreted, not compiled. `more` holds further values for the template.
    """
    from markupsafe import Markup

    code = [vega(), asset("page.js"), *scripts]
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(x.encode()).digest()).decode()}'" for x in code)
    return environment().get_template(template).render(
        page=page, policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {digests}; img-src data:",
        notice=Markup(asset("notice.txt")), style=Markup(asset("page.css")), font=Markup(FONT), css=CSS,
        scripts=[Markup(x) for x in code], configs={mode: config(mode) for mode in CSS}, **more,
    )  # fmt: skip


def asset(name: str) -> str:
    return (files("sparsight.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of all pages. Inserted strings are made `plain`, then escaped."""
    import jinja2

    found = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("sparsight.report"), finalize=lambda x: plain(x) if type(x) is str else x,
    )  # fmt: skip
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    found.filters |= {"unbroken": unbroken, "harmless": harmless}
    return found


def harmless(value: Any) -> Any:
    """JSON values with `plain` strings and keys, and null for numbers that are not finite."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, (list, tuple)) else value


@functools.cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, of about 900 kB.

    Bundling takes seconds. The bundle is kept in the user's cache folder, by version and with its checksum.
    """
    kept = Path(user_cache_dir("sparsight", appauthor=False)) / f"charts-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        digest, _, script = kept.read_text(encoding="utf-8").partition("\n")
        if digest == hashlib.sha256(script.encode()).hexdigest():
            return script
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    script = f"(() => {{{bundle}\n}})();"  # keeps its one- and two-letter names out of the global scope
    with contextlib.suppress(OSError):  # without a cache, bundle again next time
        make_folder(kept.parent)
        write_atomically(kept, [f"{hashlib.sha256(script.encode()).hexdigest()}\n{script}".encode()])
    return script


def drawn(spec: Mapping[str, Any], width: int = 760) -> str:
    """A chart as an SVG file, in the light colours. Charts that fill their container become `width` pixels wide."""
    import vl_convert

    return vl_convert.vegalite_to_svg(_wide(harmless(spec), width), config={**config("light"), "background": "white"})


def _wide(spec: Any, width: int) -> Any:
    if isinstance(spec, dict):
        return {k: width if (k, v) == ("width", "container") else _wide(v, width) for k, v in spec.items()}
    return [_wide(x, width) for x in spec] if isinstance(spec, list) else spec
