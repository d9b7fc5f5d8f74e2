"""Pages that are written: whole by themselves, and safe with any text."""

from __future__ import annotations

from html.parser import HTMLParser

from sgraf_deploy.html import facts, page, paragraph, section, table

AWKWARD = "<script>alert('&')</script> \"x\""


class Read(HTMLParser):
    """The elements and the text of a page; a page that is not well nested fails."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick", "onload"}
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_text_is_text() -> None:
    body = [
        paragraph(AWKWARD, "soft"),
        *section(AWKWARD, table((AWKWARD, "b"), [(AWKWARD, (AWKWARD, 1))], caption=AWKWARD)),
        *facts([(AWKWARD, AWKWARD)]),
    ]
    read = Read(page(AWKWARD, body))
    assert read.text.count(AWKWARD) == 10
    assert "script" not in read.tags


def test_columns_are_marked_as_what_they_hold() -> None:
    lines = list(table(("a", "b", "c"), [(1, 2, 3)], numbers="b", long="c"))
    assert '<tr><td>1</td><td class="number">2</td><td class="long">3</td></tr>' in lines
