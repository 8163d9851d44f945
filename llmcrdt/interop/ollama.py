"""``ollama``: the JSON of Ollama's chat <-> entries.

A request is ``{"model": ..., "messages": [...], "tools": [...], "options": {...}, ...}``. Content is a text, pictures
stand in a list beside it, arguments are objects, and a result names its tool or its call. Nothing in it is opaque.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from ..document.canonical import JSON, exact_json
from ..document.entry import Config, Entry, Part, Reasoning, Role, Text, ToolCall, ToolResult
from ..document.repairs import NO_RESULT, Call, Late, Result, Said, with_results
from ..document.summaries import is_shown
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import is_attachment, note_of, picture_of
from .streams.ollama import OllamaStream
from .turns import functions, object_of, settings_of, tools_config

_NATIVE = Native("ollama")
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SETTINGS = ("options", "keep_alive", "think")
_NAMED = ("tool_name", "tool_call_id")


class Ollama(Format):
    """Ollama's chat."""

    name = "ollama"
    provider = "ollama"
    member: ClassVar[str] = "messages"
    rules = (
        Rule("content is a text", "cannot unmarshal array into Go struct field .messages.content", "pieces are joined"),
        Rule(
            "arguments are an object",
            "cannot unmarshal string into Go struct field .arguments",
            "text stands in one",
        ),
        Rule("pictures are in base64", "illegal base64 data", "a note about them"),
        Rule("there are messages", "", "nothing is sent: `conv.messages` says so"),
        Rule("every call gets one result, right after it", "", "a missing result is made up, a late one is the user's"),
    )

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base not in (None, "messages") or not about.sample:
            return 0
        for item in about.sample:
            role, content = mapping(item).get("role"), mapping(item).get("content", "")
            if not (isinstance(role, str) and role in _ROLES and isinstance(content, str)):
                return 0
        if any(_has_sign(item) for item in about.sample):
            return 80
        return 60 if any(key in about.whole for key in _SETTINGS) else 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if about.base not in (None, "messages") or not about.listed:
            raise bad("messages", "is missing", 'Pass {"messages": [...]} or the list itself.')
        config: dict[str, JSON] = {}
        if "tools" in whole:
            tools = [object_at(tool, f"tools[{i}]") for i, tool in enumerate(list_at(whole["tools"], "tools"))]
            config = tools_config(whole["tools"], tools, self.key)
        model = whole.get("model")
        return Outline(
            about.base,
            provider or self.provider,
            config=config,
            extra={key: value for key, value in whole.items() if key != "tools"},
            model=model if isinstance(model, str) else None,
        )

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        message = object_at(response.get("message"), "message")
        usage = {key: response[key] for key in ("prompt_eval_count", "eval_count") if key in response}
        return Answer([("message", message)], response.get("model"), usage, response.get("done_reason"))

    def stream(self) -> OllamaStream:
        return OllamaStream()

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        writer = _Writer(read_blob)
        for item in with_results(filter(is_shown, entries), _calls_of):
            writer.add(item)
        settings = settings_of(entries, self.key)
        body: dict[str, JSON] = {**settings.whole, **({"model": model} if model else {})}
        own = settings.own_tools
        tools = own if isinstance(own, list) else [function.as_chat() for function in functions(settings.tools)]
        if tools:
            body["tools"] = tools
        return Written(writer.messages, {**body, "messages": writer.messages})


def _has_sign(item: Mapping[str, JSON]) -> bool:
    calls = item.get("tool_calls")
    called = [mapping(mapping(call).get("function")) for call in calls] if isinstance(calls, list) else []
    objects = any(isinstance(function.get("arguments"), dict) for function in called)
    images = item.get("images")
    pictures = isinstance(images, list) and bool(images) and all(map(_is_base64, images))
    return objects or pictures or "thinking" in item or "tool_name" in item


class _Reader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._waiting: list[tuple[int, ToolCall]] = []

    def begin(self) -> Iterator[Draft]:
        if self.outline.config:
            yield Draft("system", (Config(dict(self.outline.config)),))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        name = text_at(item.get("role"), f"{path}.role")
        if name not in _ROLES:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are {', '.join(_ROLES)}.")
        role = _ROLES[name]
        left = {key: value for key, value in item.items() if key not in ("role", "content")}
        kept: dict[str, JSON] = {}
        parts: list[Part] = []
        if role == "assistant" and isinstance(left.get("thinking"), str):
            parts.append(Reasoning(left.pop("thinking")))
        if "content" in item:
            said = text_at(item["content"], f"{path}.content")
            parts.append(ToolResult(said) if role == "tool" else Text(said))
        else:
            kept["content"] = "absent"
        images = left.get("images")
        if isinstance(images, list) and images and all(map(_is_base64, images)):
            parts += [_NATIVE.block({"type": "image", "data": image}) for image in left.pop("images")]
        calls = left.get("tool_calls")
        if role == "assistant" and isinstance(calls, list) and calls:
            made = [_read_call(call, f"{path}.tool_calls[{i}]", i) for i, call in enumerate(left.pop("tool_calls"))]
            parts += made
            self._waiting = [(self.count, call) for call in made]
        answers = self._answer(left, kept, path) if role == "tool" else None
        if left:
            kept["fields"] = left
        yield Draft(role, (*parts, *_NATIVE.whole(kept)), answers)

    def _answer(self, left: dict[str, JSON], kept: dict[str, JSON], path: str) -> tuple[int, str]:
        named = {key: left.pop(key) for key in _NAMED if key in left}
        kept["named"] = sorted(named)
        for at, (draft, call) in enumerate(self._waiting):
            given = {"tool_name": call.name, "tool_call_id": call.id}
            if all(given[key] == value for key, value in named.items()):
                del self._waiting[at]
                return draft, call.id
        raise bad(path, "answers no call of the message before", "Put the result after its call.")


def _is_base64(text: JSON) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return False
    return isinstance(text, str) and bool(text)


def _read_call(call: JSON, path: str, index: int) -> ToolCall:
    function = object_at(object_at(call, path).get("function"), f"{path}.function")
    name = text_at(function.get("name"), f"{path}.function.name")
    given = object_at(function["arguments"], f"{path}.function.arguments") if "arguments" in function else {}
    kept: dict[str, JSON] = {} if "arguments" in function else {"no_args": True}
    id_ = f"call-{index}"
    if "id" in call:
        id_ = text_at(call["id"], f"{path}.id")
    else:
        kept["no_id"] = True
    rest = {key: value for key, value in call.items() if key not in ("id", "function")}
    inner = {key: value for key, value in function.items() if key not in ("name", "arguments")}
    kept |= ({"call": rest} if rest else {}) | ({"function": inner} if inner else {})
    return ToolCall(id_, name, exact_json(given), _NATIVE.extra(kept))


# -- writing


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


class _Writer:
    def __init__(self, read_blob: ReadBlob) -> None:
        self.messages: list[JSON] = []
        self._read_blob = read_blob
        self._waiting: list[tuple[int, dict[str, JSON]]] = []  # calls of the last message, and how they are named

    def add(self, item: Said | Result | Late) -> None:
        match item:
            case Result(call, answer):
                self._result(call, answer)
            case Late(entry, _):
                told = self._message(entry)
                images = {"images": told["images"]} if "images" in told else {}
                self.messages.append({"role": "user", "content": item.introduction + told.get("content", ""), **images})
            case Said(entry):
                self._say(entry)

    def _say(self, entry: Entry) -> None:
        message = self._message(entry)
        reasoning = [part.text for part in entry.parts if isinstance(part, Reasoning)]
        if entry.role == "assistant":
            if reasoning:
                message["thinking"] = "".join(reasoning)
            usable = [call for call in entry.tool_calls if call.name]
            calls = [_write_call(call, self._id(entry, index, call)) for index, call in enumerate(usable)]
            self._waiting = [(index, _names_of(call)) for index, call in enumerate(calls)]
            if calls:
                message["tool_calls"] = calls
        self.messages.append(message)

    def _id(self, entry: Entry, index: int, call: ToolCall) -> str | None:
        """The id of a call; None where its file gave it none."""
        if _NATIVE.rest_of(call).get("no_id") is True:
            return None
        return call.id or f"call_{entry.id}_{index}"

    def _message(self, entry: Entry) -> dict[str, JSON]:
        kept = _NATIVE.whole_of(entry.parts)
        texts = [part.text for part in entry.parts if isinstance(part, (Text, ToolResult))]
        images: list[JSON] = []
        for part in entry.parts if entry.role != "system" else ():
            if is_attachment(part):
                picture = picture_of(part, self._read_blob)
                if picture is not None and _is_base64(picture.data):
                    images.append(picture.data)
                elif entry.role in ("user", "tool"):
                    texts.append(note_of(part))
        message: dict[str, JSON] = {"role": entry.role}
        if kept.get("content") != "absent" or texts:
            message["content"] = "".join(texts)
        if images:
            message["images"] = images
        fields = {
            key: value
            for key, value in mapping(kept.get("fields")).items()
            if key not in ("role", "content", *_NAMED) and (key not in ("images", "tool_calls") or value == [])
        }
        return {**fields, **message}

    def _result(self, call: Call, answer: Entry | None) -> None:
        if answer is None:
            message: dict[str, JSON] = {"role": "tool", "content": NO_RESULT}
        else:
            message = self._message(answer)
        known = next(names for index, names in self._waiting if index == call.index)
        named = _NATIVE.whole_of(answer.parts).get("named") if answer else None
        keys = [key for key in known if key in named] if isinstance(named, list) else list(known)
        first = next(index for index, names in self._waiting if all(names.get(key) == known[key] for key in keys))
        if first != call.index:
            keys = list(known)  # as it was named, it would be another call's
        self._waiting = [(index, names) for index, names in self._waiting if index != call.index]
        self.messages.append({**message, **{key: known[key] for key in keys}})


def _names_of(call: Mapping[str, JSON]) -> dict[str, JSON]:
    """How a result may name its call."""
    return {"tool_name": call["function"]["name"], **({"tool_call_id": call["id"]} if "id" in call else {})}


def _write_call(call: ToolCall, id_: str | None) -> dict[str, JSON]:
    rest = _NATIVE.rest_of(call)
    given = {} if rest.get("no_args") is True else {"arguments": object_of(call.arguments)}
    function = {**mapping(rest.get("function")), "name": call.name, **given}
    named = {} if id_ is None else {"id": id_}
    return {**mapping(rest.get("call")), **named, "function": function}
