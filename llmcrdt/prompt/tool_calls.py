"""Tool calls out of a model's own words, as they come. Pure.

Each family of models writes calls in its own way. A reader takes the text piece by piece, shows at once what is
certainly not part of a call, and at the end gives all of it as parts. Text that looks like a call and isn't a whole one
stays text: nothing a model said is lost.

=========  ==========================================================================================
hermes     ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen and many more)
llama3     the whole answer is ``{"name": ..., "parameters": {...}}``, maybe after ``<|python_tag|>``
mistral    ``[TOOL_CALLS][{"name": ..., "arguments": {...}}]``, or ``[TOOL_CALLS]name[ARGS]{...}``
harmony    gpt-oss: channels; ``<|channel|>commentary to=functions.name <|message|>{...}<|call|>``
=========  ==========================================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..document.entry import Part, Reasoning, Text, ToolCall

ToolFormat = Literal["hermes", "llama3", "mistral", "harmony"]
TOOL_FORMATS: tuple[ToolFormat, ...] = get_args(ToolFormat)
Piece = tuple[Literal["text", "reasoning"], str]
"""Visible text, or what a model thinks aloud, as a reader finds it."""

_MARKERS: dict[ToolFormat, tuple[str, ...]] = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "llama3": ("<|python_tag|>",),
    "mistral": ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    "harmony": ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"),
}
_NAME = re.compile(r"[^\s<>\[\]{}\"\ud800-\udfff]{1,256}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Call:
    """``arguments``: JSON text as the model wrote it. ``id``: the model's own name for the call, "" for none."""

    name: str
    arguments: str
    id: str = ""


def tool_format(chat_template: str) -> ToolFormat | None:
    """The format that a model with this template writes, as far as the template tells."""
    if "<|channel|>" in chat_template and "<|message|>" in chat_template:
        return "harmony"
    if "[TOOL_CALLS]" in chat_template:
        return "mistral"
    if "<tool_call>" in chat_template:
        return "hermes"
    if "<|python_tag|>" in chat_template or (
        "<|start_header_id|>" in chat_template and '"parameters"' in chat_template
    ):
        return "llama3"
    return None


class ToolCallReader:
    """Reads one answer. ``name``: makes the id of the call with this number, where the model gave none."""

    def __init__(self, form: ToolFormat, name: Callable[[int], str]) -> None:
        self.form = form
        self._name = name
        self._items: list[Piece | Call] = []
        self._held = ""
        self._inside = False
        self._begun = False
        self._header: str | None = "" if form == "harmony" else None
        self._channel: Literal["text", "reasoning"] = "text"
        self._step = {
            "hermes": self._hermes, "llama3": self._to_the_end, "mistral": self._to_the_end, "harmony": self._harmony,
        }[form]  # fmt: skip

    @property
    def markers(self) -> Sequence[str]:
        """Texts of control tokens that this format needs to see; others mean nothing to it."""
        return _MARKERS[self.form]

    def take(self, text: str) -> list[Piece]:
        """Read more text. Returns the pieces that are certainly to be shown now."""
        self._held += text
        before = len(self._items)
        while self._held and self._step(False):
            pass
        return [item for item in self._items[before:] if not isinstance(item, Call)]

    def end(self) -> list[Piece]:
        """The answer is over: the pieces that were held back and are text after all."""
        before = len(self._items)
        while self._held and self._step(True):
            pass
        self._say(self._held)
        self._held = ""
        return [item for item in self._items[before:] if not isinstance(item, Call)]

    @property
    def called(self) -> bool:
        """Whether a whole call was read."""
        return any(isinstance(item, Call) for item in self._items)

    def parts(self) -> tuple[Part, ...]:
        """All of it, in order. White space between a text and a call is layout, and left out."""
        out: list[Part] = []
        calls = 0
        for i, (kind, value) in enumerate(merged := list(_merged(self._items))):
            if isinstance(value, Call):
                out.append(ToolCall(value.id or self._name(calls), value.name, value.arguments))
                calls += 1
                continue
            if i and merged[i - 1][0] == "call":
                value = value.lstrip()
            if i + 1 < len(merged) and merged[i + 1][0] == "call":
                value = value.rstrip()
            if value:
                out.append(Reasoning(value) if kind == "reasoning" else Text(value))
        return tuple(out)

    def _say(self, text: str, channel: Literal["text", "reasoning"] = "text") -> None:
        if text:
            self._items.append((channel, text))

    # one step each: False where more text is needed

    def _hermes(self, last: bool) -> bool:
        opening, closing = _MARKERS["hermes"]
        if not self._inside:
            return self._up_to(opening, last)
        at = self._held.find(closing, len(opening))
        while at >= 0 and _in_string(self._held[len(opening) : at]):
            at = self._held.find(closing, at + 1)
        if at < 0 and not last:
            return False
        body = self._held[len(opening) : at] if at >= 0 else self._held[len(opening) :]
        call = _call(body, "arguments")
        whole = self._held if at < 0 else self._held[: at + len(closing)]
        self._held = self._held[len(whole) :]
        self._inside = False
        if call:
            self._items.append(call)
        else:
            self._say(whole)
        return True

    def _to_the_end(self, last: bool) -> bool:
        """Formats where a call goes on to the end of the answer."""
        if self._inside:
            if last:
                calls = (_mistral if self.form == "mistral" else _llama3)(self._held)
                self._items += calls or []
                self._held = "" if calls else self._held
            return False
        if self.form == "llama3" and not self._begun:
            start = self._held.lstrip()
            if not start and not last:
                return False
            self._begun = True
            self._inside = start.startswith("{")
            return True
        return self._up_to(_MARKERS[self.form][0], last)

    def _up_to(self, marker: str, last: bool) -> bool:
        """Show the text before the marker, and hold back what may be its beginning."""
        at = self._held.find(marker)
        if at >= 0:
            self._inside = True
        else:
            at = len(self._held) - (0 if last else _overlap(self._held, marker))
        self._say(self._held[:at])
        self._held = self._held[at:]
        return self._inside

    def _harmony(self, last: bool) -> bool:
        if self._header is not None:
            at = self._held.find("<|message|>")
            if at < 0:
                return False
            self._header, self._held = self._held[:at], self._held[at + len("<|message|>") :]
            self._inside = "to=" in self._header
            self._channel = "reasoning" if _channel(self._header) == "analysis" else "text"
            header, self._header = self._header, None
            self._target = header
            return True
        found = [(at, m) for m in ("<|end|>", "<|call|>", "<|return|>", "<|start|>") if (at := self._held.find(m)) >= 0]
        if self._inside:
            if not found and not last:
                return False
            at, marker = min(found) if found else (len(self._held), "")
            self._called(self._held[:at], marker)
        else:
            at, marker = min(found) if found else (len(self._held), "")
            if not found and not last:
                at -= max(_overlap(self._held, m) for m in _MARKERS["harmony"])
            self._say(self._held[:at], self._channel)
        self._held = self._held[at + len(marker) :]
        if marker:
            self._header, self._inside = "", False
        return bool(marker)

    def _called(self, body: str, marker: str) -> None:
        target = re.search(r"to=(?:functions\.)?(\S+?)(?=[\s<]|$)", self._target)
        if target and _NAME.fullmatch(target[1]) and _object(body.strip()) is not None:
            self._items.append(Call(target[1], body.strip()))
        else:
            self._say(f"{self._target}<|message|>{body}{marker}")


def _merged(items: Sequence[Piece | Call]) -> Iterator[tuple[str, Any]]:
    """Neighbours of one kind as one; calls as ("call", call)."""
    kind, words = "", ""
    for item in items:
        if isinstance(item, Call) or item[0] != kind:
            if words:
                yield kind, words
            kind, words = "", ""
        if isinstance(item, Call):
            yield "call", item
        else:
            kind, words = item[0], words + item[1]
    if words:
        yield kind, words


def _channel(header: str) -> str:
    match = re.search(r"<\|channel\|>\s*(\w+)", header)
    return match[1] if match else "final"


def _llama3(text: str) -> list[Call] | None:
    """One call, or several with semicolons between them."""
    rest = text.strip().removeprefix("<|python_tag|>")
    calls = []
    while rest.strip():
        found = _object(rest, whole=False)
        call = found and _as_call(found[0], "parameters", "arguments")
        if not found or not call:
            return None
        calls.append(call)
        rest = rest[found[1] :].lstrip()
        if rest and not rest.startswith(";"):
            return None
        rest = rest.removeprefix(";")
    return calls or None


def _mistral(text: str) -> list[Call] | None:
    first = text.removeprefix("[TOOL_CALLS]").strip()
    if first.startswith("["):
        return _array_of_calls(first)
    calls = []
    for piece in text.split("[TOOL_CALLS]")[1:]:
        head, found, arguments = piece.partition("[ARGS]")
        name, _, id_ = head.strip().partition("[CALL_ID]")
        if not found or not _NAME.fullmatch(name) or _object(arguments.strip()) is None:
            return None
        calls.append(Call(name, arguments.strip(), id_.strip()))
    return calls or None


def _array_of_calls(text: str) -> list[Call] | None:
    calls: list[Call] = []
    at = _after_space(text, 1)
    while text[at : at + 1] != "]":
        found = _object(text[at:], whole=False)
        call = found and _as_call(found[0], "arguments", "parameters")
        if not found or not call:
            return None
        calls.append(call)
        at = _after_space(text, at + found[1])
        if text[at : at + 1] == ",":
            at = _after_space(text, at + 1)
        elif text[at : at + 1] != "]":
            return None
    return calls if not text[at + 1 :].strip() else None


def _call(text: str, *names: str) -> Call | None:
    found = _object(text.strip())
    return _as_call(found[0], *names) if found else None


def _as_call(fields: dict[str, tuple[Any, str]], *names: str) -> Call | None:
    """A call, if these are a name and arguments: an object, or an object's JSON as a string; none are ``{}``."""
    name = fields.get("name", (None, ""))[0]
    id_ = fields.get("id", ("", ""))[0]
    value, raw = next((fields[key] for key in names if key in fields), ({}, "{}"))
    if isinstance(value, str):
        raw, value = value, ({} if _object(value.strip()) else None)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(value, dict):
        return None
    return Call(name, raw, id_ if isinstance(id_, str) and _NAME.fullmatch(id_) else "")


def _object(text: str, *, whole: bool = True) -> tuple[dict[str, tuple[Any, str]], int] | None:
    """The fields of the JSON object at the start, each value with its own text, and where the object ends.

    None unless it is one, strictly; ``whole``: with nothing after it.
    """
    fields: dict[str, tuple[Any, str]] = {}
    at = _after_space(text, 0)
    try:
        if text[at] != "{":
            return None
        at = _after_space(text, at + 1)
        while text[at] != "}":
            if fields:
                if text[at] != ",":
                    return None
                at = _after_space(text, at + 1)
            key, at = _DECODER.raw_decode(text, at)
            at = _after_space(text, at)
            if not isinstance(key, str) or key in fields or text[at] != ":":
                return None
            start = _after_space(text, at + 1)
            value, at = _DECODER.raw_decode(text, start)
            fields[key] = (value, text[start:at])
            at = _after_space(text, at)
    except (ValueError, IndexError, RecursionError):
        return None
    return None if whole and text[at + 1 :].strip() else (fields, at + 1)


def _in_string(text: str) -> bool:
    """Whether this beginning of a JSON text ends amid a string."""
    return text.lstrip().startswith("{") and _STRING.sub("", text).count('"') == 1


def _refuse(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _overlap(text: str, marker: str) -> int:
    """How many characters at the end of ``text`` begin the marker."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if marker.startswith(text[-n:])), 0)
