"""OpenAI's chat-completions JSON <-> entries. Pure, and lossless: ``write(read(x)) == x`` for all that ``read`` takes.
``export`` makes a valid request of any transcript, also of one that was merged.

A conversation is ``{"messages": [...], "tools": [...]}`` or the bare list of messages. All that our parts can't hold is
kept beside them, verbatim: unknown fields of a text or a call in the part's ``extra``, unknown kinds of content as
``Unknown`` parts, and what belongs to a message or a file as a whole in an ``Unknown`` part of type
``openai_chat/message`` or in the ``openai_chat`` key of a config part.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..document.blob import Blob
from ..document.canonical import JSON
from ..document.entry import Config, Entry, HiddenField, Part, Reasoning, Role, Text, ToolCall, ToolResult, Unknown
from ..document.repairs import NO_RESULT, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..exceptions import FormatError
from ..ids import EntryId
from .json_input import LIST, Member, bad, check_json, kind_of, list_at, members_of, object_at, parse, text_at

__all__ = [
    "MESSAGES", "Draft", "Survey", "drafts", "export", "parse", "read", "read_text", "survey", "title_of", "write",
]  # fmt: skip

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


@dataclass(frozen=True)
class Draft:
    """An entry to append. ``answers``: (which draft of the list made the call, call id) for a tool result."""

    role: Role
    parts: tuple[Part, ...]
    answers: tuple[int, str] | None = None
    hidden: Mapping[str, HiddenField] = field(default_factory=dict)
    author: str = ""

    @property
    def answers_call(self) -> str | None:
        """The id of the call that a tool result answers."""
        return self.answers[1] if self.answers else None


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
    about = survey(members_of(value, MESSAGES))
    config = {**about.config, **({_EXTRA: about.extra} if about.extra else {})}
    return list(drafts(replace(about, config=config), members_of(value, MESSAGES)))


MESSAGES = "messages"
"""The member of a file that ``json_input.read_members`` is to stream for ``survey`` and ``drafts``."""


@dataclass(frozen=True)
class Survey:
    """All that a conversation says outside of its messages. ``base``: the member that is their list; None where
    the list is all. ``config``: its tools; ``extra``: its unknown fields. ``has_system``: whether a message is a
    system's."""

    base: str | None
    title: str | None
    config: Mapping[str, JSON]
    extra: Mapping[str, JSON]
    has_system: bool

    @property
    def source_id(self) -> str | None:
        """The id that the file's own source gives the conversation."""
        found = (self.extra.get(key) for key in ("conversation_id", "id"))
        return next((id_ for id_ in found if isinstance(id_, str) and id_), None)

    def extra_draft(self) -> Draft | None:
        """The unknown fields of the whole, as an entry of their own."""
        return Draft("system", (Config({_EXTRA: dict(self.extra)}),)) if self.extra else None


def survey(members: Iterable[Member]) -> Survey:
    """Look through a conversation. Its messages are only counted as far as ``drafts`` needs it. Raises FormatError for
    what is no conversation."""
    whole: dict[str, JSON] = {}
    listed, has_system = False, False
    base: str | None = None
    for key, item in members:
        if item is LIST:
            listed, base = True, key
        elif listed and key == base:
            has_system = has_system or (isinstance(item, dict) and _role_of(item.get("role")) == "system")
        elif key is None:
            raise FormatError(
                f"Expected an object with messages, or a list of them; this is {kind_of(item)}.",
                hint='Pass {"messages": [...]} or [...].',
            )
        else:
            whole[key] = item
    if MESSAGES in whole:
        list_at(whole[MESSAGES], MESSAGES)
    if not listed:
        raise bad(MESSAGES, "is missing", 'Pass {"messages": [...]} or the list itself.')
    for key, value in whole.items():
        check_json(value, key)
    title = text_at(whole["title"], "title", "Leave it out, or write it in quotes.") if "title" in whole else None
    rest = {key: value for key, value in whole.items() if key not in ("tools", "title")}
    return Survey(base, title, _read_tools(whole), rest, has_system)


def drafts(about: Survey, members: Iterable[Member]) -> Iterator[Draft]:
    """The drafts of the conversation that ``survey`` looked through, one at a time. Its config becomes a part of the
    first system entry, or a system entry of its own. Raises FormatError, with the path of the bad value."""
    config = (Config(dict(about.config)),) if about.config else ()
    reader = _Reader(0)
    if config and not about.has_system:
        yield Draft("system", config)
        reader, config = _Reader(1), ()
    messages = (item for key, item in members if key == about.base and item is not LIST)
    for i, message in enumerate(messages):
        path = f"{about.base or ''}[{i}]"
        check_json(message, path)
        draft = reader.read(object_at(message, path), path)
        if draft.role == "system" and config:
            draft, config = replace(draft, parts=(*draft.parts, *config)), ()
        yield draft


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


class _Reader:
    """Reads messages one after the other. ``count``: how many drafts came before them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._calls: dict[str, int] = {}  # call id -> the last draft that made it

    def read(self, message: Mapping[str, JSON], path: str) -> Draft:
        """The draft of the next message."""
        name = text_at(message.get("role"), f"{path}.role")
        role = _ROLES.get(name)
        if role is None:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are {', '.join(_ROLES)}.")
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
            self._calls.update(dict.fromkeys(_call_ids(calls), self._count))
        if left:
            kept["fields"] = left
        if kept:
            parts.append(Unknown({"type": _MESSAGE, **kept}))
        author = left.get("name")
        self._count += 1
        return Draft(role, tuple(parts), answers, author=author if isinstance(author, str) else "")

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
    if kind == "text":
        text = text_at(item.get("text"), f"{path}.text")
        return Text(text, {key: value for key, value in item.items() if key not in ("type", "text")})
    return Unknown({"type": _ITEM, "item": item}) if kind in _OWN_TYPES else Unknown(item)


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


ReadBlob = Callable[[Blob], bytes | None]


def write(drafts: Sequence[Draft], *, title: str | None = None, bare: bool = False) -> JSON:
    """The JSON that ``read`` made these drafts of. ``bare``: only the list of messages, without tools and title."""
    tools: JSON = None
    whole: dict[str, JSON] = {}
    for part in _configs(drafts):
        tools = part.values["tools"] if isinstance(part.values.get("tools"), list) else tools
        whole |= _object(part.values.get(_EXTRA))
    out: list[JSON] = []
    for draft in drafts:
        if not _is_config(draft):
            message = _write_message(draft, _calls(draft), lambda blob: None)
            out.append(message | ({"tool_call_id": draft.answers[1]} if draft.answers else {}))
    return _write_whole(out, title, whole, tools, bare)


def export(
    entries: Iterable[Entry],
    *,
    title: str | None = None,
    bare: bool = False,
    read_blob: ReadBlob = lambda blob: None,
) -> JSON:
    """A transcript as a request that is valid, whatever was merged. ``bare``: only the list of messages, without tools
    and title.

    Every call gets one result, right after it, as in prompts (``document/repairs.py``); results that can't stand as one
    become messages of the user's. Calls that a crash left without a name are left out, and so are bindings and
    branches, for which OpenAI's format has no place, and unsealed and erased entries. Otherwise it is the JSON that an
    imported conversation was made of.

    ``read_blob`` gives the content of an attachment, None where it is missing. A user's picture becomes a data: URI;
    any other attachment, and one that is missing, becomes a note about it.
    """
    kept = [entry for entry in entries if _is_exported(entry)]
    tools: list[JSON] = []
    whole: dict[str, JSON] = {}
    settings = sorted((entry for entry in kept if entry.role == "system"), key=lambda entry: (entry.lamport, entry.id))
    for part in _configs(settings):  # the youngest count, wherever a merge has put them
        if isinstance(part.values.get("tools"), list):
            tools = [tool for tool in part.values["tools"] if _is_tool(tool)]
        whole |= _object(part.values.get(_EXTRA))
    ids: dict[tuple[EntryId, int], str] = {}
    out: list[JSON] = []
    messages = (entry for entry in kept if not _is_config(entry))
    for item in with_results(messages, lambda entry: [_id_and_name(call) for call in _usable_calls(entry)]):
        match item:
            case Said(entry):
                calls = _with_unique_ids(entry, _usable_calls(entry))
                ids.update({(entry.id, index): call["id"] for index, call in enumerate(calls)})
                out.append(_valid(_write_message(entry, calls, read_blob)))
            case Late(entry, _):
                content = _valid(_write_message(entry, [], read_blob))["content"]
                if isinstance(content, str):
                    content = item.introduction + content
                else:
                    content = [{"type": "text", "text": item.introduction}, *content]
                out.append({"role": "user", "content": content})
            case Result(call, answer):
                said = _valid(_write_message(answer, [], read_blob)) if answer else {"content": NO_RESULT}
                out.append({"role": "tool", **said, "tool_call_id": ids[call.entry, call.index]})
    return _write_whole(out, title, whole, tools or None, bare)


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
                items.append({**part.extra, "type": "text", "text": part.text})
            case Blob():
                items.append(_write_blob(part, read_blob if entry.role == "user" else lambda blob: None))
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
    return {**message, **{key: item for key, item in _object(kept.get("fields")).items() if key not in message}}


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


def _write_blob(blob: Blob, read_blob: ReadBlob) -> JSON:
    content = read_blob(blob) if blob.media_type.startswith("image/") else None
    if content is None:
        what = ", ".join(filter(None, (blob.name, blob.media_type, f"{blob.size} bytes")))
        return {"type": "text", "text": f"[attachment: {what}]"}
    encoded = base64.b64encode(content).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:{blob.media_type};base64,{encoded}"}}


def _write_call(call: ToolCall) -> JSON:
    rest = _object(call.extra.get(_EXTRA))
    kind = "custom" if rest.get("kind") == "custom" else "function"
    inner = {**_object(rest.get("inner")), "name": call.name, _WORDS[kind]: call.arguments}
    return {**_object(rest.get("call")), "id": call.id, "type": kind, kind: inner}


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
    return words is None or (bool(_id_and_name(call)[1]) and isinstance(_object(call[kind]).get(words), str))


def _id_and_name(call: JSON) -> tuple[str, str]:
    name = _object(call.get(call["type"])).get("name")
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
    name = _object(tool.get("function")).get("name")
    return tool["type"] != "function" or (isinstance(name, str) and bool(name))


def _object(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}


def _role_of(name: JSON) -> Role | None:
    return _ROLES.get(name) if isinstance(name, str) else None
