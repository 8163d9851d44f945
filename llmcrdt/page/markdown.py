"""A model's words as HTML that is safe to show: Markdown, then only the tags and attributes that are listed here.

Raw HTML in the Markdown is text. Images are links: to load one would tell its server who reads what.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 200_000  # characters; longer text is shown as it is
_BLOCKS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "li"}
_TABLES = {"table", "thead", "tbody", "tr", "th", "td"}
_INLINE = {"a", "em", "strong", "s", "code"}


class _Renderer(RendererHTML):
    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[index]
        address, words = str(token.attrs.get("src", "")), token.content or "image"
        return f'<a href="{_escaped(address)}">{_escaped(words)}</a>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable(["table", "strikethrough"])


def to_html(text: str) -> str | None:
    """The text as HTML; None where it is too long to be worth it, for whoever shows it as it is."""
    if len(text) > LONGEST:
        return None
    return nh3.clean(
        _parser().render(text),
        tags=_BLOCKS | _TABLES | _INLINE,
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
