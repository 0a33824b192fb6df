"""HTML as an element tree, so that all text is escaped."""

import base64
import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from string import Template
from typing import Any
from xml.etree import ElementTree

from regrow.report import palette

Element = ElementTree.Element
Content = Element | str | None

# In dependency order.
SCRIPTS = (
    "svg.js",
    "explore.js",
    "curves.js",
    "intervals.js",
    "strips.js",
    "scatter.js",
    "page.js",
)


def tag(name: str, *children: Content, **attributes: str | None) -> Element:
    """An element; `class_` becomes class, `data_label` data-label; None is left out."""
    element = Element(
        name,
        {
            key.rstrip("_").replace("_", "-"): _text(value)
            for key, value in attributes.items()
            if value is not None
        },
    )
    for child in children:
        if isinstance(child, str):
            _append(element, _text(child))
        elif child is not None:
            element.append(child)
    return element


def _append(element: Element, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text


def _text(text: str) -> str:
    """Text that is valid in a page: control characters are replaced, lone surrogates escaped."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c in "\n\t\u00a0" else "\ufffd" for c in shown)


def table(
    head: Iterable[str], rows: Iterable[Iterable[Content]], *, caption: str | None = None
) -> Element:
    """A table of numbers; the first cell of a row is its heading."""
    lines = []
    for first, *rest in rows:
        heading = tag("th", first, scope="row")
        lines.append(tag("tr", heading, *(tag("td", cell) for cell in rest)))
    headings = tag("tr", *(tag("th", text, scope="col") for text in head))
    held = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", headings),
        tag("tbody", *lines),
    )
    label = caption or "table"
    return tag("div", held, class_="wide", tabindex="0", role="region", aria_label=label)


def document(title: str, body: Iterable[Element], data: Any, *, generator: str) -> str:
    """A self-contained page: it loads nothing, and runs only its own scripts.

    `data` is what the scripts draw. A content security policy lists the digests of the page's style
    and scripts, so an injected script would not run.
    """
    style = palette.style() + _held("page.css")
    scripts = [_held(name) for name in SCRIPTS]
    allowed = " ".join(map(_digest, scripts))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_held("page.html")).substitute(
        policy=policy,
        generator=_rendered(generator),
        title=_rendered(title),
        style=style,
        body="\n".join(ElementTree.tostring(e, "unicode", method="html") for e in body),
        data=embedded(data),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def embedded(data: Any) -> str:
    """JSON that is safe inside a script element: nothing in it ends the element or a line."""
    text = json.dumps(_clean(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _clean(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _clean(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_clean(value) for value in data]
    return _text(data) if isinstance(data, str) else data


def _rendered(text: str) -> str:
    span = ElementTree.tostring(tag("i", text), "unicode", method="html")
    return span.removeprefix("<i>").removesuffix("</i>").replace('"', "&quot;")


def _held(name: str) -> str:
    return files("regrow.report").joinpath("page", name).read_text("utf-8")


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
