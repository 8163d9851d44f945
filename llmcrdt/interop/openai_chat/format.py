"""The format ``openai-chat``, and the family of those that are written like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from ...document.canonical import JSON
from ...document.entry import Entry
from ...document.repairs import NO_RESULT, Late, Result, Said, with_results
from ...ids import EntryId
from ..format import Answer, Format, Outline, ReadBlob, Rule, Survey, Written, only
from ..hiding import ANY, Place, restore
from ..json_input import bad, list_at, object_at, text_at
from ..native import mapping
from ..pictures import beside_result
from ..streams.chat import ChatStream
from ..streams.growing import object_in
from ..tool_names import NAMES_REPAIRED
from .parts import EXTRA, MEMBER, is_config, role_as_type, role_of
from .reading import ChatReader, read_tools
from .writing import (
    calls_of,
    id_and_name,
    is_exported,
    pictures_in,
    sent_calls,
    sent_tools,
    settings_after,
    usable_calls,
    valid_message,
    whole_of,
    write_message,
)

_CUT_SHORT = ("length", "content_filter")
"""The reasons to end where an answer may be half of one."""


class ChatFormat(Format):
    """A format like chat completions: a list of messages with content, tool calls and results by their ids."""

    member: ClassVar[str] = MEMBER

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of a message with a provider's own state."""
        return tuple(Place(f"{self.name}/{field}", role, path, accepts) for field, role, path, accepts in _PLACES)

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(sorted({place.name for place in self.places}))

    def detect(self, about: Survey) -> int:
        if about.base not in (None, MEMBER) or not about.sample:
            return 0
        if not all(role_of(mapping(item).get("role")) for item in about.sample):
            return 0
        return 30

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if MEMBER in whole:
            list_at(whole[MEMBER], MEMBER)
        if about.base not in (None, MEMBER) or not about.listed:
            raise bad(MEMBER, "is missing", 'Pass {"messages": [...]} or the list itself.')
        title = text_at(whole["title"], "title", "Leave it out, or write it in quotes.") if "title" in whole else None
        rest = {key: value for key, value in whole.items() if key not in ("tools", "title")}
        ids = (rest.get(key) for key in ("conversation_id", "id"))
        return Outline(
            about.base,
            provider or self.provider,
            title,
            next((id_ for id_ in ids if isinstance(id_, str) and id_), None),
            read_tools(whole),
            rest,
            has_system=any(role_of(role) == "system" for role in about.roles),
            model=rest["model"] if isinstance(rest.get("model"), str) else None,
        )

    @property
    def key(self) -> str:
        return EXTRA

    def reader(self, outline: Outline) -> ChatReader:
        return ChatReader(self.places, self.binding(outline), outline)

    def binding(self, outline: Outline) -> dict[str, JSON]:
        """The binding of the hidden fields of an imported message."""
        binding: dict[str, JSON] = {"provider": outline.provider, "api": self.name}
        return binding | ({"model": outline.model} if outline.model else {})

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        choice = only(response.get("choices"), "choices")
        message = object_at(choice.get("message"), "choices[0].message")
        finish = choice.get("finish_reason")
        if finish in _CUT_SHORT:
            message = _without_half_call(message)
        return Answer([("choices[0].message", message)], response.get("model"), response.get("usage"), finish)

    def stream(self) -> ChatStream:
        return ChatStream([place.path[0] for place in self.places if len(place.path) == 1])

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        messages = self.messages(entries, read_blob)
        declared, whole = settings_after(entries)
        tools, names = sent_tools(declared)
        head = {"model": model} if model else {}
        body = whole_of(messages, None, whole | head, tools or None, False)
        return Written(messages, names.chosen(body, "tool_choice", "function", "name"), names.true)

    def messages(self, entries: Sequence[Entry], read_blob: ReadBlob) -> list[JSON]:
        """The messages of a transcript; ``entries`` have the hidden fields that go out."""
        ids: dict[tuple[EntryId, int], str] = {}
        out: list[JSON] = []
        shown: list[JSON] = []  # pictures of results, which only users show: they stand behind the last result
        messages = (entry for entry in entries if is_exported(entry) and not is_config(entry))
        for item in with_results(messages, lambda entry: [id_and_name(call) for call in usable_calls(entry)]):
            if shown and not isinstance(item, Result):
                out.append({"role": "user", "content": shown})
                shown = []
            match item:
                case Said(entry):
                    calls = sent_calls(entry, usable_calls(entry))
                    ids.update({(entry.id, index): call["id"] for index, call in enumerate(calls)})
                    out.append(self._message(entry, calls, read_blob))
                case Late(entry, _):
                    content = valid_message({**write_message(entry, [], read_blob), "role": "user"})["content"]
                    if isinstance(content, str):
                        content = item.introduction + content
                    else:
                        content = [{"type": "text", "text": item.introduction}, *content]
                    out.append({"role": "user", "content": content})
                case Result(call, answer):
                    said = self._message(answer, [], read_blob) if answer else {"content": NO_RESULT}
                    out.append({"role": "tool", **said, "tool_call_id": ids[call.entry, call.index]})
                    pictures = pictures_in(write_message(answer, [], read_blob)) if answer else []
                    shown += [{"type": "text", "text": beside_result(call.name)}, *pictures] if pictures else []
        return [*out, {"role": "user", "content": shown}] if shown else out

    def _message(self, entry: Entry, calls: Sequence[JSON], read_blob: ReadBlob) -> dict[str, JSON]:
        message = valid_message(write_message(entry, calls, read_blob))
        hidden = dict(entry.hidden)
        if len(calls) != len(calls_of(entry)):  # nobody can tell any more which call it belongs to
            hidden.pop(f"{self.name}/extra_content", None)
        (message,) = restore([message], hidden, self.places, role_as_type)
        return self.finish(entry, message)

    def finish(self, entry: Entry, message: dict[str, JSON]) -> dict[str, JSON]:
        """The message as this format has it."""
        return message


def _without_half_call(message: Mapping[str, JSON]) -> dict[str, JSON]:
    """The message of an answer that was cut short, without a last call that may go on."""
    made = dict(message)
    if object_in(str(mapping(made.get("function_call")).get("arguments", "{}"))) is None:
        del made["function_call"]
    calls = made.get("tool_calls")
    if isinstance(calls, list) and calls:
        arguments = mapping(mapping(calls[-1]).get("function")).get("arguments")  # nobody knows where other input ends
        kept = calls if object_in(str(arguments)) is not None else calls[:-1]
        made |= {"tool_calls": kept}
        if not kept:
            del made["tool_calls"]
    return made


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
        Rule(
            "pictures are the user's",
            "Invalid value: 'image_url'",
            "those of results follow the results in a message of the user's, those of an answer are left out",
        ),
        Rule("names of tools have a form", "Expected a string that matches the pattern", NAMES_REPAIRED),
        Rule("names of tools differ", "Duplicate tool name", "the first one of a name stays", quoted=False),
        Rule("there are messages", "Invalid 'messages': empty array", "nothing is sent: `conv.messages` says so"),
        Rule("a call names its tool and has arguments", "Missing required parameter", "left out"),
    )
