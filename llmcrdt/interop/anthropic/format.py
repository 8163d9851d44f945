"""The format ``anthropic``: its rules, its files from outside, and whole requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ...document.canonical import JSON, exact_json
from ...document.entry import Entry
from ...document.repairs import with_results
from ...ids import tagged_hash
from ..format import Answer, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from ..handles import Kept, handle_name
from ..hiding import type_of
from ..json_input import bad, list_at, object_at, text_at
from ..native import mapping
from ..streams.anthropic import AnthropicStream
from ..tool_names import NAMES_REPAIRED, ToolNames, renamed_at
from ..turns import CONTINUE, NO_PARAMETERS, Function, Settings, functions, settings_of, tools_config
from .cache_points import MAX_CACHE_POINTS, with_cache_points, without_points
from .parts import ASSISTANTS, CONTAINER, NAMES, PLACES, RESPONSE_ONLY, ROLES, blocks_of
from .reading import MessageReader
from .writing import MessageWriter, calls_of, ends_well, is_written

_MAX_TOKENS = 4096
_KEPT_FOR = 300.0
_HANDLES = ("thread", "diagnostics")
_SIGNS = (*ASSISTANTS, "tool_result", "image", "document", "search_result")

_CUT_SHORT = ("max_tokens", "model_context_window_exceeded")
"""The reasons to stop where an answer may be half of one."""


class Anthropic(Format):
    """The Messages API."""

    name = "anthropic"
    provider = "anthropic"
    member: ClassVar[str] = "messages"
    rules = (
        Rule(
            "every call gets one result, in the next message",
            "`tool_use` ids were found without `tool_result` blocks immediately after",
            "a missing result is made up; results come first, all in one message",
        ),
        Rule(
            "a result follows its call",
            "unexpected `tool_use_id` found in `tool_result` blocks",
            "it becomes a text of the user's",
        ),
        Rule("ids of calls differ", "`tool_use` ids must be unique", "a new id"),
        Rule("ids of calls have a form", "tool_use.id: String should match pattern", "a new id"),
        Rule("names of tools have a form", "tool_use.name: String should match pattern", NAMES_REPAIRED),
        Rule("names of tools differ", "tools: Tool names must be unique", "the first one of a name stays"),
        Rule("arguments are an object", "tool_use.input: Input should be a valid dictionary", "text stands in one"),
        Rule("the first turn is the user's", 'first message must use the "user" role', "a turn is made up"),
        Rule(
            "a request ends with a turn of the user's",
            "This model does not support assistant message prefill",
            "a turn is made up, and stays when the answer has come; not after a tool of the server's that goes on",
        ),
        Rule("texts say something", "text content blocks must be non-empty", "left out"),
        Rule("messages say something", "all messages must have non-empty content", "left out"),
        Rule("thinking is signed", "thinking.signature: Field required", "the block is left out"),
        Rule("redacted thinking has its data", "redacted_thinking.data: Field required", "the block is left out"),
        Rule(
            "a tool loop that thinks begins with its thinking",
            "Expected `thinking` or `redacted_thinking`, but found",
            "thinking is off for the request",
        ),
        Rule(
            "a tool of the server's has its result",
            "was found without a corresponding",
            "an error is made up as its result; both are left out where what is encrypted in them does not go out",
        ),
        Rule("encrypted results are whole", "encrypted_content: Field required", "left out with their call"),
        Rule("citations are whole", "encrypted_index: Field required", "the citation is left out"),
        Rule("a compaction comes first, alone", "compaction_block_misplaced", "its text stands there as text"),
        Rule("at most four cache points", "A maximum of 4 blocks with cache_control", "the last ones stay"),
        Rule("blocks stand on their side", "Input tag", "left out, or a note about it"),
        Rule("instructions are a member of their own", "", "those that come later become a text of the user's"),
        Rule("max_tokens is there", "max_tokens: Field required", f"{_MAX_TOKENS}"),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(sorted({CONTAINER, handle_name(self.name), *(place.name for place in PLACES)}))

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base not in (None, "messages") or not about.listed:
            return 0
        messages = [item for item in about.sample if isinstance(item, dict)]
        if any(item.get("role") not in ROLES or "tool_calls" in item for item in messages):
            return 0
        blocks = [block for item in messages if isinstance(item.get("content"), list) for block in item["content"]]
        if any(type_of(block) in _SIGNS or type_of(block).endswith("_tool_result") for block in blocks):
            return 90
        tools = about.whole.get("tools")
        if isinstance(tools, list) and any("input_schema" in mapping(tool) for tool in tools):
            return 80
        if isinstance(about.whole.get("system"), (str, list)) or any(_is_response(item) for item in messages):
            return 70
        return 10 if messages else 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if about.base not in (None, "messages") or not about.listed:
            raise bad("messages", "is missing", 'Pass {"messages": [...]} or the list itself.')
        extra = {key: value for key, value in whole.items() if key not in ("tools", "system")}
        config: dict[str, JSON] = {}
        if "tools" in whole:
            config = tools_config(whole["tools"], _read_tools(whole["tools"]), self.key)
        model = whole.get("model")
        return Outline(
            about.base,
            provider or self.provider,
            config=config,
            extra=extra,
            system=blocks_of(whole["system"], "system") if "system" in whole else None,
            model=model if isinstance(model, str) else None,
        )

    def reader(self, outline: Outline) -> Reader:
        return MessageReader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        told = ("model", "usage", "stop_reason")
        message = {key: value for key, value in response.items() if key not in told}
        blocks = message.get("content")
        if response.get("stop_reason") in _CUT_SHORT and isinstance(blocks, list) and blocks:
            message["content"] = blocks[:-1] if type_of(blocks[-1]) == "tool_use" else blocks  # it may be half of one
        return Answer([("", message)], *(response.get(key) for key in told))

    def stream(self) -> AnthropicStream:
        return AnthropicStream()

    # -- state that the server keeps

    def kept(self, sent: Mapping[str, JSON], response: Mapping[str, JSON]) -> Kept | None:
        """In a thread, if the request asked for one. After a refusal a thread can't go on; in an answer that was cut
        short there may be half a call, which nobody can answer."""
        id_ = response.get("id")
        if not isinstance(sent.get("thread"), dict) or response.get("stop_reason") in ("refusal", *_CUT_SHORT):
            return None
        return Kept(id_, _KEPT_FOR) if isinstance(id_, str) and id_ else None

    def continued(self, body: Mapping[str, JSON], id: str, new: list[JSON]) -> dict[str, JSON]:
        """Threads take no cache points."""
        head = {key: without_points(value) for key, value in body.items() if key != "messages"}
        return {**head, "messages": without_points(new), "thread": {"type": "continue", "previous_message_id": id}}

    def anew(self, body: dict[str, JSON]) -> dict[str, JSON]:
        return {**{key: without_points(value) for key, value in body.items()}, "thread": {"type": "create"}}

    def said(self, item: JSON) -> JSON:
        return {key: value for key, value in item.items() if key not in RESPONSE_ONLY}

    def bare(self, items: Sequence[JSON]) -> list[JSON]:
        return [without_points(item) for item in items]

    # -- writing

    def facts(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """Thinking holds on the tools, too, which stand before all messages, whenever they were declared."""
        tools, _ = _declared(settings_of(entries, self.key))
        bare = [{key: value for key, value in tool.items() if key != "cache_control"} for tool in tools]
        return {"tools": tagged_hash("llmcrdt/tools/1", exact_json(bare).encode("utf-8"))}

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        writer = MessageWriter(read_blob)
        for item in with_results(filter(is_written, entries), calls_of):
            writer.add(item)
        writer.finish()
        settings = settings_of(entries, self.key)
        whole = {name: value for name, value in settings.whole.items() if name not in (*_HANDLES, "system")}
        body: dict[str, JSON] = {**whole, **({"model": model} if model else {})}
        if not isinstance(body.get("max_tokens"), int) or isinstance(body["max_tokens"], bool):
            body["max_tokens"] = _MAX_TOKENS
        tools, names = _declared(settings)
        if tools:
            body["tools"] = tools
        body = names.chosen(body, "tool_choice", "name")
        system = writer.system_prompt()
        if system is not None:
            body["system"] = system
        if writer.container is not None:
            body["container"] = writer.container
        log = writer.messages
        ended = log if ends_well(log) else [*log, {"role": "user", "content": CONTINUE}]
        points = max(0, MAX_CACHE_POINTS - sum("cache_control" in block for block in _objects(tools, system)))
        body["messages"] = with_cache_points(ended, points)
        if _must_not_think(body):
            body["thinking"] = {"type": "disabled"}
        return Written(with_cache_points(log, points), body, names.true)


def _declared(settings: Settings) -> tuple[list[JSON], ToolNames]:
    """The tools as they are sent, and their names."""
    own, names = settings.own_tools, ToolNames(NAMES)
    declared = own if _are_tools(own) else [_tool(function) for function in functions(settings.tools)]
    return names.declare(declared, renamed_at(None, None, "custom")), names


def _objects(*lists: JSON) -> list[Mapping[str, JSON]]:
    return [block for listed in lists if isinstance(listed, list) for block in listed if isinstance(block, dict)]


def _is_response(item: Mapping[str, JSON]) -> bool:
    return item.get("type") == "message" and "stop_reason" in item


def _read_tools(tools: JSON) -> list[JSON]:
    """Those that the app runs, in the form of chat completions."""
    made: list[JSON] = []
    for i, tool in enumerate(list_at(tools, "tools")):
        name = text_at(object_at(tool, f"tools[{i}]").get("name", ""), f"tools[{i}].name")
        if isinstance(tool.get("input_schema"), dict):
            description = tool.get("description")
            described = description if isinstance(description, str) else None
            made.append(Function(name, described, tool["input_schema"]).as_chat())
    return made


def _tool(function: Function) -> dict[str, JSON]:
    described = {} if function.description is None else {"description": function.description}
    schema = function.parameters if mapping(function.parameters).get("type") == "object" else dict(NO_PARAMETERS)
    return {"name": function.name, **described, "input_schema": schema}


def _are_tools(tools: JSON) -> bool:
    return isinstance(tools, list) and all(isinstance(mapping(tool).get("name"), str) for tool in tools)


def _must_not_think(body: Mapping[str, JSON]) -> bool:
    """Whether the API would miss the thinking of a loop of tools that is going on."""
    if mapping(body.get("thinking")).get("type") != "enabled":
        return False
    messages = body["messages"]
    last = messages[-1]["content"]
    if not isinstance(last, list) or not any(type_of(block) == "tool_result" for block in last):
        return False
    content = messages[-2]["content"]
    return isinstance(content, list) and type_of(content[0]) not in ("thinking", "redacted_thinking")
