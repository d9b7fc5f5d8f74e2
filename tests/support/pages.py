"""Reads a page of this program: its words, and whatever it would load or run."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}


class ReadPage(HTMLParser):
    """What a page holds; it must be well formed.

    `loads` are scripts, event handlers and references to anything but the page and its own data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.title = self.style = self.policy = self.text = ""
        self.loads: list[str] = []
        self.tags: Counter[str] = Counter()
        self.labels: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        named = dict(attrs)
        if tag in {"script", "iframe", "object", "embed", "link", "base"}:
            self.loads.append(tag)
        self.loads += [name for name in named if name.startswith("on")]
        for name in ("href", "src", "action", "xlink:href"):
            value = named.get(name) or "#"
            if not value.startswith(("#", "data:image/")):
                self.loads.append(value)
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""
        if "aria-label" in named:
            self.labels.append(named["aria-label"] or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            self.style += data
        elif inside == "title":
            self.title += data
        elif data.strip():
            self.text = f"{self.text} {data.strip()}".strip()

    def close(self) -> None:
        super().close()
        assert self._open == []


def read_page(text: str) -> ReadPage:
    page = ReadPage()
    page.feed(text)
    page.close()
    assert "@import" not in page.style
    assert "url(" not in page.style
    return page
