"""Keeps words that look like control tokens from becoming control tokens.

A user, a tool or a model may write ``<|im_end|>``. The template prints its own control tokens beside those words, and
afterwards the text no longer says which is which. So before rendering a mark goes into each occurrence of a control
token's text in the words, after its first character; after rendering the text is cut at the marks and the pieces are
tokenized apart. Nothing else changes: text that holds no control token's text is tokenized exactly as without a guard.

If a string's edge could complete a control token together with what the template prints beside it, the edge is
marked too. A mark that turns out to part no control token's text is taken out before tokenizing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from ..document.canonical import JSON
from ..exceptions import TemplateFailed
from ..tokenizer import Tokenizer
from .messages import Message, Settings

_MARKS = (*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xFFFFE))  # noncharacters first, then a private plane


class Guard:
    """Marks words for one render. ``texts``: everything the words may hold, to find a mark that none of it holds."""

    def __init__(self, special: Iterable[str], texts: Iterable[str]) -> None:
        self._by_first: dict[str, tuple[str, ...]] = {}
        self._all = tuple(text for text in special if text)
        groups: dict[str, list[str]] = defaultdict(list)
        for text in self._all:
            groups[text[0]].append(text)
        self._by_first = {first: tuple(group) for first, group in groups.items()}
        self._longest = max(map(len, self._all), default=0)
        self._inside = "\0".join(self._all)
        self._heads = tuple({text[:n] for text in self._all for n in range(1, len(text))})
        self._tails = tuple({text[n:] for text in self._all for n in range(1, len(text))})
        self.mark = _free_mark("\0".join(texts))

    # -- before rendering

    def message(self, message: Message) -> Message:
        """``message`` with its words marked. Its form (keys, role) stays, so that templates recognise it."""
        out = {**message, "content": self.text(message["content"])}
        if "reasoning_content" in message:
            out["reasoning_content"] = self.text(message["reasoning_content"])
        for key in ("name", "tool_call_id"):
            if key in message:
                out[key] = self.name(message[key])
        if "tool_calls" in message:
            out["tool_calls"] = [self._call(call) for call in message["tool_calls"]]
        return out

    def value(self, value: JSON, *, free: bool = False) -> JSON:
        """A JSON value with its strings marked. ``free``: its keys are words too (of arguments, of properties)."""
        if isinstance(value, str):
            return self.text(value) if free else self.name(value)
        if isinstance(value, list):
            return [self.value(item, free=free) for item in value]
        if isinstance(value, dict):
            mark = self.text if free else self.name
            return {mark(key): self.value(item, free=free) for key, item in value.items()}
        return value

    def name(self, text: str) -> str:
        """Like ``text``; but an identifier keeps its edges, since templates compare it."""
        return self._occurrences(text) if text.isidentifier() else self.text(text)

    def text(self, text: str) -> str:
        """``text`` with every occurrence of a control token's text parted, and edges that could complete one."""
        core = text.strip()
        if not core:
            return text
        inside = core in self._inside and any(core in special for special in self._all)
        start = text.index(core)
        head, tail = text[:start], text[start + len(core) :]
        if inside or core.startswith(self._tails):
            head += self.mark
        if inside or core.endswith(self._heads):
            tail = self.mark + tail
        return head + self._occurrences(core) + tail

    def _call(self, call: Message) -> Message:
        function: dict[str, Any] = call["function"]
        marked = {"name": self.name(function["name"]), "arguments": self.value(function["arguments"], free=True)}
        return {**call, "id": self.name(call["id"]), "function": marked}

    def _occurrences(self, text: str) -> str:
        cuts = set()
        for start, length in self._find(text):
            cuts.add(start + 1)
            if length == 1:
                cuts.add(start)
        if not cuts:
            return text
        edges = [0, *sorted(cuts), len(text)]
        return self.mark.join(text[a:b] for a, b in pairwise(edges))

    def _find(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, length) of every occurrence of a control token's text; they may overlap."""
        for first, group in self._by_first.items():
            at = text.find(first)
            while at >= 0:
                if text.startswith(group, at):
                    for special in group:
                        if text.startswith(special, at):
                            yield at, len(special)
                at = text.find(first, at + 1)

    # -- after rendering

    def restore(self, rendered: str) -> str:
        """Marks that a template printed in their escaped form (Python's repr, ASCII JSON), as marks again."""
        for escaped in _escapes(self.mark):
            rendered = rendered.replace(escaped, self.mark)
        return rendered

    def encode(self, rendered: str, tokenizer: Tokenizer) -> list[int]:
        """The ids of a rendered text: control tokens where the template wrote them, never inside the words."""
        if self.mark not in rendered:
            return tokenizer.encode(rendered, special=True) if rendered else []
        pieces = rendered.split(self.mark)
        text = "".join(pieces)
        marks: set[int] = set()
        at = 0
        for piece in pieces[:-1]:
            at += len(piece)
            marks.add(at)
        ids: list[int] = []
        edges = [0, *sorted(self._needed(text, marks)), len(text)]
        for start, stop in pairwise(edges):
            piece = text[start:stop]
            plain = stop - start == 1 and piece in self._all and start in marks and stop in marks
            if piece:
                ids += tokenizer.encode(piece, special=not plain)
        return ids

    def _needed(self, text: str, marks: set[int]) -> set[int]:
        needed: set[int] = set()
        for mark in marks:
            low = max(0, mark - self._longest)
            for start, length in self._find(text[low : mark + self._longest]):
                begin, end = low + start, low + start + length
                if begin < mark < end or (length == 1 and mark in (begin, end) and {begin, end} <= marks):
                    needed.add(mark)
        return needed

    def plain(self, rendered: str) -> str:
        """The text as the model reads it, without marks."""
        return rendered.replace(self.mark, "")


def guard_settings(guard: Guard, settings: Settings) -> tuple[list[JSON] | None, Mapping[str, JSON]]:
    """Tools and template arguments with their strings marked."""
    tools = None if settings.tools is None else [_tool(guard, tool) for tool in settings.tools]
    return tools, {key: guard.value(value) for key, value in (settings.template or {}).items()}


def _tool(guard: Guard, value: JSON) -> JSON:
    """Templates look up a schema's keys, but the names of properties are words."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            if key == "properties" and isinstance(item, dict):
                out[key] = {guard.text(name): _tool(guard, schema) for name, schema in item.items()}
            elif key == "required" and isinstance(item, list):
                out[key] = guard.value(item, free=True)
            else:
                out[guard.name(key)] = _tool(guard, item)
        return out
    if isinstance(value, list):
        return [_tool(guard, item) for item in value]
    return guard.name(value) if isinstance(value, str) else value


def strings(value: JSON) -> Iterator[str]:
    """Every string of a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)


def _free_mark(texts: str) -> str:
    for code in _MARKS:
        mark = chr(code)
        if mark not in texts and not any(escaped in texts for escaped in _escapes(mark)):
            return mark
    raise TemplateFailed("The conversation uses every character that could mark control tokens in it.")


def _escapes(mark: str) -> tuple[str, str]:
    """How Python's repr and ASCII JSON print a mark."""
    return ascii(mark)[1:-1], json.dumps(mark)[1:-1]
