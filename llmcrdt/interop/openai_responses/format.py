"""The format ``openai-responses``: its rules, its files from outside, and whole requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar

from ...document.canonical import JSON
from ...document.entry import Entry
from ...document.repairs import with_results
from ...document.summaries import is_shown
from ..format import Answer, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from ..handles import Kept, handle_name
from ..hiding import type_of
from ..json_input import list_at, object_at, text_at
from ..native import mapping
from ..streams.growing import object_in
from ..streams.responses import ResponsesStream
from ..tool_names import NAMES_REPAIRED, ToolNames, renamed_at
from ..turns import CONTINUE, NO_PARAMETERS, Function, functions, outline_of_input, settings_of
from .parts import INPUT, NAMES, PIECES, PLACES, RUN_BY_APP, WORDS, is_output, is_result
from .reading import ItemReader
from .writing import ItemWriter, calls_of

_KEPT_FOR = 30 * 86_400.0
_HANDLES = ("previous_response_id", "conversation", "stream_id")


class OpenAIResponses(Format):
    """The Responses API."""

    name = "openai-responses"
    provider = "openai"
    member: ClassVar[str] = "input"
    rules = (
        Rule(
            "every call gets one output",
            "No tool output found for function call",
            "a missing output is made up, in the form of the call's kind",
        ),
        Rule(
            "an output follows its call",
            "No tool call found for function call output with call_id",
            "it becomes a message of the user's",
        ),
        Rule("ids of calls differ", "Duplicate call_id", "a new id", quoted=False),
        Rule("ids of calls are short", "string too long", "a new id"),
        Rule("names of functions have a form", "Expected a string that matches the pattern", NAMES_REPAIRED),
        Rule("names of functions differ", "Duplicate tool name", "the first one of a name stays", quoted=False),
        Rule(
            "reasoning stands before an item",
            "of type 'reasoning' was provided without its required following item",
            "reasoning that nothing follows is left out",
        ),
        Rule(
            "items go with their reasoning",
            "was provided without its required 'reasoning' item",
            "where reasoning does not go out, or has no id, the ids of the items after it don't either",
        ),
        Rule("reasoning is whole", "Missing required parameter: 'id' or 'encrypted_content'", "left out", quoted=False),
        Rule("ids of items differ", "Duplicate item found with id", "the second one goes without"),
        Rule("compaction is whole", "Missing required parameter: 'encrypted_content'", "left out"),
        Rule(
            "a compaction trigger is last", "compaction_trigger must be the final input item", "left out", quoted=False
        ),
        Rule("references name an item", "Missing required parameter: 'id'", "left out"),
        Rule("programs are whole", "Missing required parameter: 'fingerprint'", "left out"),
        Rule("instructions are a text", "instructions: Invalid type", "those of a list become one", quoted=False),
        Rule("there is an input", "One of 'input' or 'previous_response_id'", "a turn of the user's is made up"),
        Rule("pieces stand on their side", "Invalid value: content type", "left out, or a note about it", quoted=False),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(sorted({handle_name(self.name), *(place.name for place in PLACES)}))

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base == "input" or (not about.listed and isinstance(about.whole.get("input"), str)):
            return 90
        if about.base is not None or not about.listed:
            return 0
        for item in about.sample:
            pieces = mapping(item).get("content")
            kinds = [type_of(piece) for piece in pieces] if isinstance(pieces, list) else []
            known = is_output(item, False) and "role" not in mapping(item)
            if known or is_result(item) or type_of(item) in ("message", *INPUT) or {*kinds} & {*PIECES}:
                return 90
        return 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        hint = "Pass the list of items, or a text."
        take = partial(outline_of_input, about, provider or self.provider, self.key, "instructions", _read_tools, hint)
        return take(text_of=_instructions)

    def reader(self, outline: Outline) -> Reader:
        return ItemReader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        output = list_at(response.get("output"), "output")
        items = [(f"output[{i}]", object_at(item, f"output[{i}]")) for i, item in enumerate(output)]
        if items and _is_cut_short(response) and _is_half_call(items[-1][1]):
            items = items[:-1] or [("output", _NOTHING)]
        finish = mapping(response.get("incomplete_details")).get("reason") or response.get("status")
        return Answer(items, response.get("model"), response.get("usage"), finish)

    def stream(self) -> ResponsesStream:
        return ResponsesStream()

    # -- state that the server keeps

    def kept(self, sent: Mapping[str, JSON], response: Mapping[str, JSON]) -> Kept | None:
        """Not where the request asks for none, nor with a conversation, which anybody may append to. In an answer that
        was cut short there may be half a call, which nobody can answer."""
        id_ = response.get("id")
        if _is_cut_short(response):
            return None
        if sent.get("store") is False or sent.get("conversation") is not None or response.get("store") is False:
            return None
        return Kept(id_, _KEPT_FOR) if isinstance(id_, str) and id_ else None

    def continued(self, body: Mapping[str, JSON], id: str, new: list[JSON]) -> dict[str, JSON]:
        return {**body, "previous_response_id": id, "input": new}

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        answers = [entry for entry in entries if entry.role == "assistant"]
        apart = {entry.id for before, entry in pairwise(answers) if not is_shown(before)}
        writer = ItemWriter(read_blob, apart)
        for item in with_results(filter(is_shown, entries), calls_of):
            writer.add(item)
        settings = settings_of(entries, self.key)
        body: dict[str, JSON] = {name: value for name, value in settings.whole.items() if name not in _HANDLES}
        if body.get("instructions") is not None:  # whoever wrote it there: it is none of the conversation's
            del body["instructions"]
        body |= {"model": model} if model else {}
        if writer.instructions is not None:
            body["instructions"] = writer.instructions
        own = settings.own_tools
        are_own = isinstance(own, list) and all(type_of(tool) for tool in own)
        names = ToolNames(NAMES)
        declared = own if are_own else [_tool(function) for function in functions(settings.tools)]
        tools = names.declare(declared, renamed_at(None, "function", "custom"))
        if tools:
            body["tools"] = tools
        body = names.chosen(body, "tool_choice", "name")
        log = writer.finished()
        body["input"] = log or [{"role": "user", "content": CONTINUE}]
        if writer.is_text and len(log) == 1 and isinstance(log[0]["content"], str):
            body["input"] = log[0]["content"] or CONTINUE
        return Written(log, body, names.true)


_NOTHING: dict[str, JSON] = {"type": "message", "role": "assistant", "status": "incomplete", "content": []}


def _is_cut_short(response: Mapping[str, JSON]) -> bool:
    return response.get("status") == "incomplete"


def _is_half_call(item: Mapping[str, JSON]) -> bool:
    """Whether the last item of an answer that was cut short is a call that may go on."""
    if type_of(item) == "function_call":
        return object_in(str(item.get("arguments"))) is None
    return type_of(item) in (*WORDS, *RUN_BY_APP) and item.get("status") != "completed"


def _instructions(value: JSON, path: str) -> str:
    """Instructions as a text; responses have them as a list of messages, too. Raises FormatError."""
    if not isinstance(value, list):
        return text_at(value, path, "Pass a text.")
    texts: list[str] = []
    for i, item in enumerate(value):
        content = object_at(item, f"{path}[{i}]").get("content")
        pieces = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
        for j, piece in enumerate(list_at(pieces, f"{path}[{i}].content")):
            texts.append(text_at(mapping(piece).get("text"), f"{path}[{i}].content[{j}].text", "Pass a text."))
    return "\n\n".join(texts)


def _read_tools(tools: JSON) -> list[JSON]:
    made: list[JSON] = []
    for i, tool in enumerate(list_at(tools, "tools")):
        if object_at(tool, f"tools[{i}]").get("type") == "function":
            name = text_at(tool.get("name"), f"tools[{i}].name")
            description = tool.get("description")
            described = description if isinstance(description, str) else None
            made.append(Function(name, described, tool.get("parameters")).as_chat())
    return made


def _tool(function: Function) -> dict[str, JSON]:
    described = {} if function.description is None else {"description": function.description}
    parameters = function.parameters if isinstance(function.parameters, dict) else dict(NO_PARAMETERS)
    return {"type": "function", "name": function.name, **described, "parameters": parameters, "strict": False}
