"""Checks a built site: every link and anchor leads somewhere, and nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ASSETS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Elements that a browser loads something for -> the attribute that says what."""

IMPORTED = re.compile(r"url\(\s*['\"]?(https?:)?//|@import\s+['\"]?(https?:)?//")


class Page(HTMLParser):
    """The anchors and links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element is called, and where it leads."""
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ASSETS and ASSETS[tag] in values and values.get("rel") != "canonical":
            self.assets.append(values[ASSETS[tag]])


def problems(site: Path) -> list[str]:
    """What is wrong, a line each; nothing for a good site."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = [f"{path.name}: {told}" for path in pages for told in _of_page(path, pages)]
    for path in (*site.rglob("*.css"), *site.rglob("*.svg")):
        if IMPORTED.search(path.read_text(encoding="utf-8")):
            found.append(f"{path.name} loads something from the network")
    return found


def _of_page(path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page = pages[path]
    for link in (*page.links, *page.assets):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if link in page.assets and parts.scheme != "data":
                yield f"{link} is loaded from the network"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if path.name == "404.html" and parts.path.startswith("/"):
            continue  # It is shown anywhere, so that its links begin at the root.
        if not target.exists():
            yield f"{link} leads nowhere"
        elif target in pages and unquote(parts.fragment) not in {"", *pages[target].ids}:
            yield f"{link}: no such anchor"
