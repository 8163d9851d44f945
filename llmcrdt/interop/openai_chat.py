"""``openai-chat``: OpenAI's chat-completions JSON <-> entries, and the family of those that are written like it.

``write(read(x)) == x`` for all that ``read`` takes. ``export`` makes a valid request of any transcript, also of one
that was merged.

A conversation is ``{"messages": [...], "tools": [...]}`` or the bare list of messages. All that our parts can't hold is
kept beside them, verbatim: unknown fields of a text or a call in the part's ``extra``, unknown kinds of content as
``Unknown`` parts, and what belongs to a message or a file as a whole in an ``Unknown`` part of type
``openai_chat/message`` or in the ``openai_chat`` key of a config part. Fields with a provider's own state (``PLACES``)
become hidden fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from ..document.blob import Blob
from ..document.canonical import JSON
from ..document.entry import (
    Config,
    Entry,
    Part,
    Reasoning,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
    oldest_first,
)
from ..document.repairs import NO_RESULT, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..ids import EntryId
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written, only, survey
from .hiding import ANY, Place, hidden_fields, hide, restore
from .json_input import bad, check_json, kind_of, list_at, members_of, object_at, parse, text_at
from .native import has_native_key, is_native_type, mapping, without_native
from .pictures import is_attachment, note_of, picture_of
from .streams.chat import ChatStream

__all__ = [
    "ChatFormat",
    "ChatReader",
    "Draft",
    "OpenAIChat",
    "export",
    "parse",
    "read",
    "read_text",
    "title_of",
    "write",
]

_MESSAGE, _ITEM, _CALL = "openai_chat/message", "openai_chat/content", "openai_chat/tool_call"
_EXTRA = "openai_chat"
_OWN_TYPES = ("text", "reasoning", "tool_call", "tool_result", "config", "blob", _MESSAGE, _ITEM, _CALL)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_REASONING = ("reasoning_content", "reasoning")
_WORDS = {"function": "arguments", "custom": "input"}
_INSTEAD_OF_CONTENT = ("refusal", "audio", "function_call")
_MESSAGES = "messages"


def read_text(text: str) -> list[Draft]:
    """The drafts of a JSON file's text. Raises FormatError, with line and column where the text is not JSON."""
    return read(parse(text))


def title_of(value: JSON) -> str | None:
    """The title that a file gives its conversation. Raises FormatError if it is not text."""
    title = value.get("title") if isinstance(value, dict) else None
    if title is not None and not isinstance(title, str):
        raise bad("title", "is not text", "Leave it out, or write it in quotes.")
    return title


def read(value: JSON) -> list[Draft]:
    """The drafts of a conversation, in order.

    Tools and unknown fields of the whole become a config part of the first system entry, or of a system entry of their
    own. Raises FormatError, with the path of the bad value, for what is not such a conversation.
    """
    check_json(value)
    chat = OpenAIChat()
    outline = chat.outline(survey(members_of(value, (_MESSAGES,))))
    config = {**outline.config, **({_EXTRA: outline.extra} if outline.extra else {})}
    return list(chat.drafts(replace(outline, config=config), members_of(value, (_MESSAGES,))))


def _read_tools(whole: Mapping[str, JSON]) -> dict[str, JSON]:
    if "tools" not in whole:
        return {}
    tools = list_at(whole["tools"], "tools")
    for i, tool in enumerate(tools):
        object_at(tool, f"tools[{i}]")
        if tool.get("type") == "function":
            function = object_at(tool.get("function"), f"tools[{i}].function")
            text_at(function.get("name"), f"tools[{i}].function.name")
    return {"tools": tools}


class ChatReader(Reader):
    """Reads messages one after the other; ``chat``: the format that they are in."""

    def __init__(self, chat: ChatFormat, outline: Outline) -> None:
        super().__init__(outline)
        self._chat = chat
        self._calls: dict[str, int] = {}  # call id -> the last draft that made it
        self._config: tuple[Part, ...] = (Config(dict(outline.config)),) if outline.config else ()

    def begin(self) -> Iterator[Draft]:
        if self._config and not self.outline.has_system:
            yield Draft("system", self._config)
            self._config = ()

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        draft = self.read_message(item, path)
        if draft.role == "system" and self._config:
            draft, self._config = replace(draft, parts=(*draft.parts, *self._config)), ()
        yield draft

    def read_message(self, message: Mapping[str, JSON], path: str) -> Draft:
        """The draft of the next message."""
        name = text_at(message.get("role"), f"{path}.role")
        role = _ROLES.get(name)
        if role is None:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are {', '.join(_ROLES)}.")
        (message,), found = hide([message], self._chat.places, _role_as_type)
        hidden = hidden_fields(found, lambda name: self._chat.binding(self.outline))
        left = {key: item for key, item in message.items() if key != "role"}
        kept: dict[str, JSON] = {} if name == role else {"role": name}
        parts: list[Part] = []
        if role == "assistant":
            parts += _read_reasoning(left, kept)
        parts += _read_content(left, kept, role, path)
        answers = self._answer(left, path) if role == "tool" else None
        if role == "assistant":
            calls = _read_calls(left, path)
            parts += calls
            self._calls.update(dict.fromkeys(_call_ids(calls), self.count))
        if left:
            kept["fields"] = left
        if kept:
            parts.append(Unknown({"type": _MESSAGE, **kept}))
        author = left.get("name")
        return Draft(role, tuple(parts), answers, hidden, author if isinstance(author, str) else "")

    def _answer(self, left: dict[str, JSON], path: str) -> tuple[int, str]:
        call = text_at(left.pop("tool_call_id", None), f"{path}.tool_call_id")
        if call not in self._calls:
            raise bad(
                f"{path}.tool_call_id", f"is {call!r}, which no message before made", "Put the result after its call."
            )
        return self._calls[call], call


def _read_reasoning(left: dict[str, JSON], kept: dict[str, JSON]) -> list[Part]:
    for key in _REASONING:
        if isinstance(left.get(key), str):
            if key != _REASONING[0]:
                kept["reasoning"] = key
            return [Reasoning(left.pop(key))]
    return []


def _read_content(left: dict[str, JSON], kept: dict[str, JSON], role: Role, path: str) -> list[Part]:
    path = f"{path}.content"
    if role == "assistant" and left.get("content") is None:
        kept["content"] = "null" if "content" in left else "absent"
        left.pop("content", None)
        if kept["content"] == "null" and left.get("tool_calls"):
            del kept["content"]  # what write prints anyway
        return []
    content = left.pop("content", None)
    if isinstance(content, str):
        return [ToolResult(content) if role == "tool" else Text(content)]
    if not isinstance(content, list):
        raise bad(path, f"is {kind_of(content)}", "Content is text, or a list of content parts.")
    kept["content"] = "list"
    return [_read_item(item, f"{path}[{i}]") for i, item in enumerate(content)]


def _read_item(item: JSON, path: str) -> Part:
    kind = text_at(object_at(item, path).get("type"), f"{path}.type")
    if kind == "text" and not has_native_key(item):
        text = text_at(item.get("text"), f"{path}.text")
        return Text(text, {key: value for key, value in item.items() if key not in ("type", "text")})
    own = kind in _OWN_TYPES or is_native_type(kind)
    return Unknown({"type": _ITEM, "item": item}) if own else Unknown(item)


def _read_calls(left: dict[str, JSON], path: str) -> list[Part]:
    calls = left.get("tool_calls")
    if not calls and (calls is None or isinstance(calls, list)):
        return []  # null or an empty list stays among the fields
    del left["tool_calls"]
    return [_read_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(list_at(calls, f"{path}.tool_calls"))]


def _read_call(call: JSON, path: str) -> Part:
    kind = object_at(call, path).get("type")
    name = text_at(call.get("id"), f"{path}.id")
    if not isinstance(kind, str) or kind not in _WORDS:
        return Unknown({"type": _CALL, "call": call})
    inner_key, words_key = kind, _WORDS[kind]
    inner = object_at(call.get(inner_key), f"{path}.{inner_key}")
    tool = text_at(inner.get("name"), f"{path}.{inner_key}.name")
    hint = "Arguments are JSON written as text, in quotes."
    words = text_at(inner.get(words_key), f"{path}.{inner_key}.{words_key}", hint)
    rest = {
        "kind": kind if kind != "function" else None,
        "call": {key: value for key, value in call.items() if key not in ("id", "type", inner_key)},
        "inner": {key: value for key, value in inner.items() if key not in ("name", words_key)},
    }
    rest = {key: value for key, value in rest.items() if value}
    return ToolCall(name, tool, words, {_EXTRA: rest} if rest else {})


def _call_ids(parts: Sequence[Part]) -> list[str]:
    return [part.id if isinstance(part, ToolCall) else part.json["call"]["id"] for part in parts]  # type: ignore[union-attr]


# -- writing


def write(drafts: Sequence[Draft | Entry], *, title: str | None = None, bare: bool = False) -> JSON:
    """The JSON that ``read`` made these drafts of; of entries, without their hidden fields. ``bare``: only the list of
    messages, without tools and title."""
    tools: JSON = None
    whole: dict[str, JSON] = {}
    for part in _configs(drafts):
        tools = part.values["tools"] if isinstance(part.values.get("tools"), list) else tools
        whole |= mapping(part.values.get(_EXTRA))
    out: list[JSON] = []
    for draft in drafts:
        if not _is_config(draft):
            message: JSON = _write_message(draft, _calls(draft), lambda blob: None)
            message |= {"tool_call_id": draft.answers[1]} if draft.answers else {}
            if isinstance(draft, Draft):
                (message,) = restore([message], draft.hidden, OpenAIChat().places, _role_as_type)
            out.append(message)
    return _write_whole(out, title, whole, tools, bare)


def export(
    entries: Iterable[Entry],
    *,
    title: str | None = None,
    bare: bool = False,
    read_blob: ReadBlob = lambda blob: None,
) -> JSON:
    """A transcript as a request that is valid, whatever was merged. ``bare``: only the list of messages, without tools
    and title. No hidden field goes out; ``interop.export`` sends those that hold.

    Every call gets one result, right after it, as in prompts (``document/repairs.py``); results that can't stand as one
    become messages of the user's. Calls that a crash left without a name are left out, and so are bindings and
    branches, for which OpenAI's format has no place, and unsealed and erased entries. Otherwise it is the JSON that an
    imported conversation was made of.

    ``read_blob`` gives the content of an attachment, None where it is missing. A user's picture becomes a data: URI;
    any other attachment, and one that is missing, becomes a note about it.
    """
    chat = OpenAIChat()
    kept = [replace(entry, hidden={}) if entry.hidden else entry for entry in entries]
    tools, whole = _settings(kept)
    return _write_whole(chat.messages(kept, read_blob), title, whole, tools or None, bare)


def _settings(entries: Sequence[Entry]) -> tuple[list[JSON], dict[str, JSON]]:
    """The tools, and the other members of the file, that count after ``entries``."""
    tools: list[JSON] = []
    whole: dict[str, JSON] = {}
    settings = oldest_first(entry for entry in entries if _is_exported(entry) and entry.role == "system")
    for part in _configs(settings):  # the youngest count, wherever a merge has put them
        if isinstance(part.values.get("tools"), list):
            tools = [tool for tool in part.values["tools"] if _is_tool(tool)]
        whole |= mapping(part.values.get(_EXTRA))
    return tools, whole


class ChatFormat(Format):
    """A format like chat completions: a list of messages with content, tool calls and results by their ids."""

    member: ClassVar[str] = _MESSAGES

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of a message with a provider's own state."""
        return tuple(Place(f"{self.name}/{field}", role, path, accepts) for field, role, path, accepts in _PLACES)

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(sorted({place.name for place in self.places}))

    def detect(self, about: Survey) -> int:
        if about.base not in (None, _MESSAGES) or not about.sample:
            return 0
        if not all(_role_of(mapping(item).get("role")) for item in about.sample):
            return 0
        return 30

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if _MESSAGES in whole:
            list_at(whole[_MESSAGES], _MESSAGES)
        if about.base not in (None, _MESSAGES) or not about.listed:
            raise bad(_MESSAGES, "is missing", 'Pass {"messages": [...]} or the list itself.')
        title = text_at(whole["title"], "title", "Leave it out, or write it in quotes.") if "title" in whole else None
        rest = {key: value for key, value in whole.items() if key not in ("tools", "title")}
        ids = (rest.get(key) for key in ("conversation_id", "id"))
        return Outline(
            about.base,
            provider or self.provider,
            title,
            next((id_ for id_ in ids if isinstance(id_, str) and id_), None),
            _read_tools(whole),
            rest,
            has_system=any(_role_of(role) == "system" for role in about.roles),
            model=rest["model"] if isinstance(rest.get("model"), str) else None,
        )

    @property
    def key(self) -> str:
        return _EXTRA

    def reader(self, outline: Outline) -> ChatReader:
        return ChatReader(self, outline)

    def binding(self, outline: Outline) -> dict[str, JSON]:
        """The binding of the hidden fields of an imported message."""
        binding: dict[str, JSON] = {"provider": outline.provider, "api": self.name}
        return binding | ({"model": outline.model} if outline.model else {})

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        choice = only(response.get("choices"), "choices")
        message = object_at(choice.get("message"), "choices[0].message")
        finish = choice.get("finish_reason")
        return Answer([("choices[0].message", message)], response.get("model"), response.get("usage"), finish)

    def stream(self) -> ChatStream:
        return ChatStream([place.path[0] for place in self.places if len(place.path) == 1])

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        messages = self.messages(entries, read_blob)
        tools, whole = _settings(entries)
        head = {"model": model} if model else {}
        return Written(messages, _write_whole(messages, None, whole | head, tools or None, False))

    def messages(self, entries: Sequence[Entry], read_blob: ReadBlob) -> list[JSON]:
        """The messages of a transcript; ``entries`` have the hidden fields that go out."""
        ids: dict[tuple[EntryId, int], str] = {}
        out: list[JSON] = []
        messages = (entry for entry in entries if _is_exported(entry) and not _is_config(entry))
        for item in with_results(messages, lambda entry: [_id_and_name(call) for call in _usable_calls(entry)]):
            match item:
                case Said(entry):
                    calls = _with_unique_ids(entry, _usable_calls(entry))
                    ids.update({(entry.id, index): call["id"] for index, call in enumerate(calls)})
                    out.append(self._message(entry, calls, read_blob))
                case Late(entry, _):
                    content = _valid(_write_message(entry, [], read_blob))["content"]
                    if isinstance(content, str):
                        content = item.introduction + content
                    else:
                        content = [{"type": "text", "text": item.introduction}, *content]
                    out.append({"role": "user", "content": content})
                case Result(call, answer):
                    said = self._message(answer, [], read_blob) if answer else {"content": NO_RESULT}
                    out.append({"role": "tool", **said, "tool_call_id": ids[call.entry, call.index]})
        return out

    def _message(self, entry: Entry, calls: Sequence[JSON], read_blob: ReadBlob) -> dict[str, JSON]:
        message = _valid(_write_message(entry, calls, read_blob))
        hidden = dict(entry.hidden)
        if len(calls) != len(_calls(entry)):  # nobody can tell any more which call it belongs to
            hidden.pop(f"{self.name}/extra_content", None)
        (message,) = restore([message], hidden, self.places, _role_as_type)
        return self.finish(entry, message)

    def finish(self, entry: Entry, message: dict[str, JSON]) -> dict[str, JSON]:
        """The message as this format has it."""
        return message


def _is_details(value: JSON) -> bool:
    return isinstance(value, list) and all(_is_detail(item) for item in value)


def _is_detail(item: JSON) -> bool:
    kind = mapping(item).get("type")
    needed = {"reasoning.encrypted": "data", "reasoning.summary": "summary"}.get(kind) if isinstance(kind, str) else ""
    return isinstance(kind, str) and (needed is None or isinstance(item.get(needed), str))


_PLACES: tuple[tuple[str, str, tuple[str, ...], Callable[[JSON], bool]], ...] = (
    ("reasoning_details", "assistant", ("reasoning_details",), _is_details),
    ("thinking_blocks", "assistant", ("thinking_blocks",), _is_details),
    ("reasoning_opaque", "assistant", ("reasoning_opaque",), lambda value: isinstance(value, str)),
    ("extra_content", "assistant", ("extra_content",), lambda value: isinstance(value, dict)),
    ("extra_content", "assistant", ("tool_calls", ANY, "extra_content"), lambda value: isinstance(value, dict)),
)
"""The places of a message with a provider's own state: OpenRouter's details, LiteLLM's signed blocks of Claude,
Copilot's opaque reasoning, Google's thought signatures."""


class OpenAIChat(ChatFormat):
    """Chat completions as OpenAI has them."""

    name = "openai-chat"
    provider = "openai"
    rules = (
        Rule(
            "every call gets one result, right after it",
            "An assistant message with 'tool_calls' must be followed by tool messages",
            "a missing result is made up, a second or late one becomes a message of the user's",
        ),
        Rule(
            "a result follows its call",
            "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'",
            "it becomes a message of the user's",
        ),
        Rule("ids of the calls of one message differ", "Duplicate value for 'tool_call_id'", "a new id", quoted=False),
        Rule("content is there", "Invalid value for 'content': expected a string, got null", "an empty text"),
        Rule("pictures are the user's", "Invalid value: 'image_url'", "left out"),
        Rule("a call names its tool and has arguments", "Missing required parameter", "left out"),
    )


def _write_whole(messages: JSON, title: str | None, whole: Mapping[str, JSON], tools: JSON, bare: bool) -> JSON:
    if bare:
        return messages
    rest = {key: value for key, value in whole.items() if key not in ("messages", "tools", "title")}
    head = {} if title is None else {"title": title}
    return {**head, **rest, "messages": messages, **({} if tools is None else {"tools": tools})}


def _configs(entries: Iterable[Entry | Draft]) -> Iterator[Config]:
    return (part for entry in entries for part in entry.parts if isinstance(part, Config))


def _is_config(entry: Entry | Draft) -> bool:
    """Whether it holds settings only, which are no message."""
    return entry.role == "system" and all(isinstance(part, Config) for part in entry.parts)


def _write_message(entry: Entry | Draft, calls: Sequence[JSON], read_blob: ReadBlob) -> dict[str, JSON]:
    kept: Mapping[str, JSON] = {}
    items: list[JSON] = []
    reasoning: list[str] = []
    for part in entry.parts:
        match part:
            case Reasoning():
                reasoning.append(part.text)
            case Text() | ToolResult():
                items.append({**without_native(part.extra), "type": "text", "text": part.text})
            case Blob():
                items.append(_write_attachment(part, read_blob if entry.role == "user" else lambda blob: None))
            case Unknown() if is_native_type(part.type):
                if entry.role == "user" and is_attachment(part):
                    items.append(_write_attachment(part, read_blob))
            case Unknown() if part.type == _MESSAGE:
                kept = part.json
            case Unknown() if part.type == _ITEM and isinstance(part.json.get("item"), dict):
                items.append(part.json["item"])
            case Unknown() if part.type != _CALL:
                items.append(dict(part.json))
    name, key = kept.get("role"), kept.get("reasoning")  # strangers' words, like all that is kept beside parts
    message: dict[str, JSON] = {"role": name if _role_of(name) == entry.role else entry.role}
    if reasoning:
        message[key if key in _REASONING else _REASONING[0]] = "".join(reasoning)
    if kept.get("content") != "absent" or items:
        message["content"] = _write_content(items, kept.get("content"), entry.role == "assistant")
    if calls:
        message["tool_calls"] = list(calls)
    return {**message, **{key: item for key, item in mapping(kept.get("fields")).items() if key not in message}}


def _calls(entry: Entry | Draft) -> list[JSON]:
    """The calls of an entry as they were read or made."""
    calls: list[JSON] = []
    for part in entry.parts:
        if isinstance(part, ToolCall):
            calls.append(_write_call(part))
        elif isinstance(part, Unknown) and part.type == _CALL and isinstance(part.json.get("call"), dict):
            calls.append(part.json["call"])
    return calls


def _write_content(items: list[JSON], form: JSON, nullable: bool) -> JSON:
    if form == "list":
        return items
    if not items:
        return None if nullable else ""
    if all(
        isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str) for item in items
    ):
        return "".join(item["text"] for item in items)
    return items


def _write_attachment(part: Part, read_blob: ReadBlob) -> JSON:
    picture = picture_of(part, read_blob)
    if picture is None:
        return {"type": "text", "text": note_of(part)}
    return {"type": "image_url", "image_url": {"url": picture.as_url}}


def _write_call(call: ToolCall) -> JSON:
    rest = mapping(call.extra.get(_EXTRA))
    kind = "custom" if rest.get("kind") == "custom" else "function"
    inner = {**mapping(rest.get("inner")), "name": call.name, _WORDS[kind]: call.arguments}
    return {**mapping(rest.get("call")), "id": call.id, "type": kind, kind: inner}


# -- valid requests


def _is_exported(entry: Entry) -> bool:
    if entry.role == "system":
        return entry.sealed and entry.status != "erased"
    if entry.role == "assistant" and entry.status in ("failed", "stopped"):
        return is_shown(entry) and bool(entry.text or entry.reasoning or _usable_calls(entry))
    return is_shown(entry)


def _usable_calls(entry: Entry) -> list[JSON]:
    """The calls that somebody can run: an answer that was cut short may end with half of one."""
    return [call for call in _calls(entry) if _is_usable(call)] if entry.role == "assistant" else []


def _is_usable(call: JSON) -> bool:
    kind = call.get("type")
    if not isinstance(call.get("id"), str) or not isinstance(kind, str):
        return False
    words = _WORDS.get(kind)
    return words is None or (bool(_id_and_name(call)[1]) and isinstance(mapping(call[kind]).get(words), str))


def _id_and_name(call: JSON) -> tuple[str, str]:
    name = mapping(call.get(call["type"])).get("name")
    return call["id"], name if isinstance(name, str) else ""


def _with_unique_ids(entry: Entry, calls: Sequence[JSON]) -> list[JSON]:
    """The calls of one message, each with an id of its own there."""
    taken: set[str] = set()
    out: list[JSON] = []
    for index, call in enumerate(calls):
        name = call["id"]
        if not name or name in taken:
            name = f"call_{entry.id}_{index}"
        taken.add(name)
        out.append({**call, "id": name})
    return out


def _valid(message: dict[str, JSON]) -> dict[str, JSON]:
    """A message without what makes a request invalid; otherwise as it is."""
    calls = message.get("tool_calls")
    valid = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
    if isinstance(calls, list) and calls and message["role"] == "assistant":
        valid["tool_calls"] = calls
    content = message.get("content")
    if isinstance(content, list):
        content = [item for item in content if _is_item(item, message["role"])]
        valid["content"] = content or ""
    elif content is None and not any(valid.get(key) for key in ("tool_calls", *_INSTEAD_OF_CONTENT)):
        valid["content"] = ""
    return valid


def _is_item(item: JSON, role: str) -> bool:
    if item.get("type") == "image_url" and role != "user":
        return False
    return isinstance(item.get("type"), str) and (item["type"] != "text" or isinstance(item.get("text"), str))


def _is_tool(tool: JSON) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        return False
    name = mapping(tool.get("function")).get("name")
    return tool["type"] != "function" or (isinstance(name, str) and bool(name))


def _role_as_type(message: JSON) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def _role_of(name: JSON) -> Role | None:
    return _ROLES.get(name) if isinstance(name, str) else None
