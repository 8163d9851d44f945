"""``anthropic``: the Messages API's JSON <-> entries.

A request is ``{"system": ..., "messages": [...], "tools": [...], ...}``; the bare list of messages has no system
prompt. A message of the user's with results of tools is an entry for each result, and one for what stands beside
them. Blocks are parts in their order; the rest of a block stands in its part's ``extra``, a block of another type is
kept whole.

Hidden fields: signatures and redacted thinking (bound to the model and to the whole list before), encrypted search
results and their citations, encrypted output of code, compaction, cache points, the container.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import strptime
from typing import ClassVar

from ..document.canonical import JSON, exact_json, parse_json
from ..document.entry import (
    Config,
    Entry,
    HiddenField,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Unknown,
)
from ..document.repairs import NO_RESULT, Call, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..exceptions import InvalidContent
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from .hiding import ANY, Place, hidden_fields, hide, restore, type_of
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import is_attachment, note_of, picture_of
from .streams.anthropic import AnthropicStream
from .turns import (
    CONTINUE,
    INSTRUCTIONS,
    NO_PARAMETERS,
    CallIds,
    Function,
    functions,
    name_for,
    object_of,
    settings_of,
    text_of_object,
    tools_config,
)

_NATIVE = Native("anthropic")
_ROLES = ("user", "assistant", "system")
_MAX_CACHE_POINTS = 4
_MAX_TOKENS = 4096
_RESPONSE_ONLY = (
    "id", "type", "model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "context_management",
)  # fmt: skip
_HANDLES = ("thread", "diagnostics")
_USERS = ("image", "document", "search_result", "container_upload", "tool_result")
_ASSISTANTS = ("thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use", "compaction")
_SIGNS = (*_ASSISTANTS, "tool_result", "image", "document", "search_result")


def _is_cache_point(value: JSON) -> bool:
    return isinstance(mapping(value).get("type"), str)


def _is_container(value: JSON) -> bool:
    return isinstance(mapping(value).get("id"), str)


_PLACES = (
    Place("anthropic/thinking", "thinking", ("signature",)),
    Place("anthropic/thinking", "redacted_thinking", ("data",)),
    Place("anthropic/search", "web_search_tool_result", ("content", ANY, "encrypted_content")),
    Place("anthropic/search", "text", ("citations", ANY, "encrypted_index")),
    Place("anthropic/code", "code_execution_tool_result", ("content", "encrypted_stdout")),
    Place("anthropic/code", "advisor_tool_result", ("content", "encrypted_content")),
    Place("anthropic/compaction", "compaction", ("signature",)),
    Place("anthropic/compaction", "compaction", ("encrypted_content",)),
    Place("anthropic/cache", ANY, ("cache_control",), _is_cache_point),
    Place("anthropic/cache", "tool_result", ("content", ANY, "cache_control"), _is_cache_point),
)
_CONTAINER = "anthropic/container"
_OF_MODEL = ("anthropic/thinking", "anthropic/compaction")
_OF_FRAME = frozenset(_OF_MODEL)


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
        Rule("names of tools have a form", "tool_use.name: String should match pattern", "other signs become _"),
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
        return tuple(sorted({_CONTAINER, *(place.name for place in _PLACES)}))

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base not in (None, "messages") or not about.listed:
            return 0
        messages = [item for item in about.sample if isinstance(item, dict)]
        if any(item.get("role") not in _ROLES or "tool_calls" in item for item in messages):
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
            system=_blocks(whole["system"], "system") if "system" in whole else None,
            model=model if isinstance(model, str) else None,
        )

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        told = ("model", "usage", "stop_reason")
        message = {key: value for key, value in response.items() if key not in told}
        return Answer([("", message)], *(response.get(key) for key in told))

    def stream(self) -> AnthropicStream:
        return AnthropicStream()

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        writer = _Writer(read_blob)
        for item in with_results(filter(_is_written, entries), _calls_of):
            writer.add(item)
        writer.finish()
        settings = settings_of(entries, self.key)
        whole = {name: value for name, value in settings.whole.items() if name not in _HANDLES}
        body: dict[str, JSON] = {**whole, **({"model": model} if model else {})}
        if not isinstance(body.get("max_tokens"), int) or isinstance(body["max_tokens"], bool):
            body["max_tokens"] = _MAX_TOKENS
        tools = settings.own_tools if _are_tools(settings.own_tools) else [_tool(f) for f in functions(settings.tools)]
        if tools:
            body["tools"] = tools
        system = writer.system_prompt()
        if system is not None:
            body["system"] = system
        if writer.container is not None:
            body["container"] = writer.container
        log = writer.messages
        ended = log if _ends_well(log) else [*log, {"role": "user", "content": CONTINUE}]
        points = max(0, _MAX_CACHE_POINTS - sum("cache_control" in block for block in _objects(tools, system)))
        body["messages"] = _with_cache_points(ended, points)
        if _must_not_think(body):
            body["thinking"] = {"type": "disabled"}
        return Written(_with_cache_points(log, points), body)


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
    return {"name": name_for(function.name, longest=128), **described, "input_schema": schema}


def _are_tools(tools: JSON) -> bool:
    return isinstance(tools, list) and all(isinstance(mapping(tool).get("name"), str) for tool in tools)


def _blocks(content: JSON, path: str) -> tuple[str, list[JSON]]:
    """How content is written, "text" or "list", and its blocks."""
    if isinstance(content, str):
        return "text", [{"type": "text", "text": content}]
    blocks = list_at(content, path)
    for i, block in enumerate(blocks):
        kind = text_at(object_at(block, f"{path}[{i}]").get("type"), f"{path}[{i}].type")
        if kind in ("text", "thinking"):
            text_at(block.get(kind), f"{path}[{i}].{kind}")
    return "list", blocks


class _Reader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._calls: dict[str, int] = {}

    def begin(self) -> Iterator[Draft]:
        config = [Config(dict(self.outline.config))] if self.outline.config else []
        if self.outline.system is not None:
            form, blocks = self.outline.system
            draft = self._said("system", form, blocks, {"place": "system"}, "system", None)
            # Settings stand last, or the blocks would be counted wrong.
            yield replace(draft, parts=(*draft.parts, *config))
        elif config:
            yield Draft("system", tuple(config))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        role = text_at(item.get("role"), f"{path}.role")
        if role not in _ROLES:
            raise bad(f"{path}.role", f"is {role!r}", f"Known roles are {', '.join(_ROLES)}.")
        form, blocks = _blocks(item.get("content"), f"{path}.content")
        fields = {key: value for key, value in item.items() if key not in ("role", "content")}
        kept: dict[str, JSON] = {"fields": fields} if fields else {}
        model = fields.get("model") if isinstance(fields.get("model"), str) else None
        if role == "system":
            kept["place"] = "message"
        if role != "user":
            yield self._said(role, form, blocks, kept, f"{path}.content", model)
            return
        for run, is_result, at in _runs(blocks):
            if is_result:
                yield self._result(run[0], kept, f"{path}.content[{at}]")
            else:
                yield self._said("user", form, run, kept, f"{path}.content", None)
            kept = {"joined": True}
        if not blocks:
            yield self._said("user", form, [], kept, f"{path}.content", None)

    def _binding(self, name: str, model: str | None) -> dict[str, JSON]:
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "anthropic"}
        model = model or self.outline.model
        return bound | ({"model": model} if model and name in _OF_MODEL else {})

    def _hide(self, blocks: Sequence[JSON], model: str | None) -> tuple[list[JSON], dict[str, HiddenField]]:
        cut, found = hide(blocks, _PLACES)
        return cut, hidden_fields(found, lambda name: self._binding(name, model))

    def _said(
        self, role: str, form: str, blocks: Sequence[JSON], kept: Mapping[str, JSON], path: str, model: str | None
    ) -> Draft:
        kept = dict(kept)
        hidden: dict[str, HiddenField] = {}
        fields = dict(mapping(kept.get("fields")))
        if _is_container(fields.get("container")):
            hidden[_CONTAINER] = self._container(fields.pop("container"))
        if fields:
            kept["fields"] = fields
        else:
            kept.pop("fields", None)
        cut, more = self._hide(blocks, model)
        parts = [_read_block(block, role, f"{path}[{i}]") for i, block in enumerate(cut)]
        if role == "assistant":
            self._calls.update({part.id: self.count for part in parts if isinstance(part, ToolCall)})
        if form == "list" and _as_text(parts) is not None:
            kept["content"] = "list"
        draft_role = "system" if role == "system" else "assistant" if role == "assistant" else "user"
        bound = frozenset(more.keys() & _OF_FRAME)
        return Draft(draft_role, (*parts, *_NATIVE.whole(kept)), None, hidden | more, frame_bound=bound)  # type: ignore[arg-type]

    def _container(self, value: JSON) -> HiddenField:
        binding = self._binding(_CONTAINER, None)
        expires = mapping(value).get("expires_at")
        try:
            moment = strptime(expires[:19], "%Y-%m-%dT%H:%M:%S") if isinstance(expires, str) else None
        except ValueError:
            moment = None
        if moment is not None:
            binding["expires"] = timegm(moment)
        return HiddenField(exact_json(value).encode(), binding)

    def _result(self, block: JSON, kept: Mapping[str, JSON], path: str) -> Draft:
        call = text_at(block.get("tool_use_id"), f"{path}.tool_use_id")
        if call not in self._calls:
            raise bad(
                f"{path}.tool_use_id", f"is {call!r}, which no message before made", "Put the result after its call."
            )
        (cut,), hidden = self._hide([block], None)
        error = cut.get("is_error") is True
        kept = dict(kept)
        parts: list[Part] = []
        if "content" not in cut:
            kept["content"] = "absent"
        elif isinstance(cut["content"], str):
            parts = [ToolResult(cut["content"], error)]
        else:
            kept["content"] = "list"
            _, blocks = _blocks(cut["content"], f"{path}.content")
            parts = [
                ToolResult(inner["text"], error, _NATIVE.extra(_rest(inner, "text")))
                if inner["type"] == "text"
                else _NATIVE.block(inner)
                for inner in blocks
            ]
        rest = _rest(cut, "tool_use_id", "content")
        if rest:
            kept["block"] = rest
        return Draft("tool", (*parts, *_NATIVE.whole(kept)), (self._calls[call], call), hidden)


def _runs(blocks: Sequence[JSON]) -> Iterator[tuple[list[JSON], bool, int]]:
    """The blocks of a user's message: each result alone, with its place, and what stands between them together."""
    run: list[JSON] = []
    for at, block in enumerate(blocks):
        if block["type"] == "tool_result":
            if run:
                yield run, False, at
            yield [block], True, at
            run = []
        else:
            run.append(block)
    if run:
        yield run, False, len(blocks)


def _rest(block: Mapping[str, JSON], *taken: str) -> dict[str, JSON]:
    return {key: value for key, value in block.items() if key not in ("type", *taken)}


def _read_block(block: JSON, role: str, path: str) -> Part:
    kind = block["type"]
    if kind == "text":
        return Text(block["text"], _NATIVE.extra(_rest(block, "text")))
    if kind == "compaction" and isinstance(block.get("content"), str) and role == "assistant":
        return Text(block["content"], _NATIVE.extra({**_rest(block, "content"), "type": "compaction"}))
    if kind == "thinking" and role == "assistant":
        return Reasoning(block["thinking"], _NATIVE.extra(_rest(block, "thinking")))
    if kind == "tool_use" and role == "assistant":
        id_, name = text_at(block.get("id"), f"{path}.id"), text_at(block.get("name"), f"{path}.name")
        given = object_at(block.get("input"), f"{path}.input")
        return ToolCall(id_, name, text_of_object(given), _NATIVE.extra(_rest(block, "id", "name", "input")))
    return _NATIVE.block(block)


def _as_text(parts: Sequence[Part]) -> str | None:
    """The text of content that is one plain text."""
    if len(parts) == 1 and isinstance(parts[0], Text) and not _NATIVE.rest_of(parts[0]):
        return parts[0].text
    return None


# -- writing


def _is_written(entry: Entry) -> bool:
    """Whether an entry is a message; instructions that came as one need not have a text."""
    if entry.role == "system" and entry.sealed and entry.status != "erased":
        return is_shown(entry) or _NATIVE.whole_of(entry.parts).get("place") == "message"
    return is_shown(entry)


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in _usable(entry)]


def _usable(entry: Entry) -> list[ToolCall]:
    """The calls that somebody can run: an answer that was cut short may end with half of one."""
    return [call for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


class _Writer:
    """Writes the items of a log. ``messages``: what was written so far."""

    def __init__(self, read_blob: ReadBlob) -> None:
        self.messages: list[JSON] = []
        self.container: str | None = None
        self._read_blob = read_blob
        self._ids = CallIds()
        self._system: list[tuple[JSON, bool]] = []  # blocks, and whether they were written as a list
        self._results: list[JSON] | None = None  # the content of the message of results that is being written
        self._began = False
        self._open: dict[str, str] = {}  # ids of the server's tools that have no result yet, with their names

    def add(self, item: Said | Result | Late) -> None:
        match item:
            case Result(call, answer):
                self._result(call, answer)
            case Late(entry, _):
                self._put("user", [{"type": "text", "text": item.introduction + entry.text}], {})
                self._results = None
            case Said(entry):
                self._say(entry)

    def system_prompt(self) -> JSON:
        """The instructions that stand before all messages."""
        blocks = [block for block, _ in self._system]
        if not blocks:
            return None
        if len(blocks) == 1 and not self._system[0][1] and blocks[0].keys() == {"type", "text"}:
            return blocks[0]["text"]
        return blocks

    def _say(self, entry: Entry) -> None:
        kept = _NATIVE.whole_of(entry.parts)
        if entry.role == "assistant":
            self._answer(entry, kept)
            self._results = None
            return
        blocks = _user_blocks(entry, self._read_blob)
        if entry.role == "system":
            if kept.get("place") == "message":
                self._close_server_tools()
                self._put("system", blocks, kept)
                self._results = None
                return
            texts = [block for block in blocks if block["type"] == "text"]
            if not self.messages:
                self._system += [(block, kept.get("content") == "list") for block in texts]
            else:
                said = "\n\n".join(block["text"] for block in texts)
                if said:
                    self._put("user", [{"type": "text", "text": INSTRUCTIONS + said}], {})
        elif blocks and self._results is not None and kept.get("joined") is True:
            self._results += blocks
        else:
            self._put("user", blocks, kept)
        self._results = None

    def _put(self, role: str, blocks: list[JSON], kept: Mapping[str, JSON]) -> None:
        if not blocks:
            return
        if role == "user":
            self._close_server_tools()
        self._began = self._began or role != "system"
        fields = {
            key: value
            for key, value in mapping(kept.get("fields")).items()
            if key not in ("role", "content", *_RESPONSE_ONLY)
        }
        plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
        content = blocks[0]["text"] if plain and kept.get("content") != "list" else blocks
        self.messages.append({"role": role, "content": content, **fields})

    def _answer(self, entry: Entry, kept: Mapping[str, JSON]) -> None:
        field = entry.hidden.get(_CONTAINER)
        blocks = self._assistant_blocks(entry)
        if blocks:
            if _is_generated(entry) and not _ends_well(self.messages):
                self._put("user", [{"type": "text", "text": CONTINUE}], {})  # the request for this answer ended so
            elif self._open and not any(_answered(block) in self._open for block in blocks):
                self._close_server_tools()  # a turn that went on would have brought the results
            elif not self._began and type_of(blocks[0]) != "compaction":
                self._put("user", [{"type": "text", "text": CONTINUE}], {})
            for block in blocks:
                if block["type"] in ("server_tool_use", "mcp_tool_use"):
                    self._open[block["id"]] = block["name"] if block["type"] == "server_tool_use" else "mcp"
                else:
                    self._open.pop(_answered(block), None)
            if any(block["type"] == "tool_use" for block in blocks):  # results of the app's must follow at once
                blocks += [_error_result(id_, name) for id_, name in self._open.items()]
                self._open = {}
            self._put("assistant", blocks, kept)
        if field is not None:
            self.container = _container_id(field) or self.container

    def finish(self) -> None:
        """End the log: only its last turn may wait for a tool of the server's."""
        if not _ends_well(self.messages):
            self._close_server_tools()

    def _close_server_tools(self) -> None:
        """Make up results for the tools of the server's that got none."""
        if self._open:
            made = [_error_result(id_, name) for id_, name in self._open.items()]
            self.messages.append({"role": "assistant", "content": made})
            self._open = {}

    def _assistant_blocks(self, entry: Entry) -> list[JSON]:
        index = 0
        made: list[JSON] = []
        for part in _NATIVE.said(entry.parts):
            block: JSON = None
            match part:
                case Text() if _NATIVE.rest_of(part).get("type") == "compaction":
                    block = {**_NATIVE.rest_of(part), "content": part.text}
                case Text():
                    block = {**_NATIVE.rest_of(part), "type": "text", "text": part.text}
                case Reasoning():
                    block = {**_NATIVE.rest_of(part), "type": "thinking", "thinking": part.text}
                case ToolCall() if part.name:
                    id_ = self._ids.give(entry.id, index, part.id)
                    index += 1
                    name = name_for(part.name, longest=128)
                    given = object_of(part.arguments)
                    block = {**_NATIVE.rest_of(part), "type": "tool_use", "id": id_, "name": name, "input": given}
                case Unknown():
                    block = _NATIVE.block_of(part)
            made.append(block if isinstance(block, dict) else None)
        blocks = restore(made, entry.hidden, _PLACES)
        lacking = {_answered(block) for block in blocks if block and _lacks_content(block)}
        first = not self.messages and not _is_generated(entry)
        out: list[JSON] = []
        for block in blocks:
            if block is None or (lacking and _of_pair(block) in lacking):
                continue
            valid = _valid_answer(block, is_first=first and not out, open_=self._open, out=out)
            if valid is not None:
                out.append(valid)
        return out

    def _result(self, call: Call, answer: Entry | None) -> None:
        id_ = self._ids.of(call.entry, call.index)
        block = _write_result(answer, id_, self._read_blob) if answer else _no_result(id_)
        if self._results is not None:
            self._results.append(block)
            return
        kept = _NATIVE.whole_of(answer.parts) if answer else {}
        self._results = [block]
        self._put("user", self._results, {"fields": kept.get("fields"), "content": "list"})
        # _put keeps the list itself, so that the next result joins it


def _user_blocks(entry: Entry, read_blob: ReadBlob) -> list[JSON]:
    made: list[JSON] = []
    for part in _NATIVE.said(entry.parts):
        if isinstance(part, (Text, ToolResult)):
            made.append({**_NATIVE.rest_of(part), "type": "text", "text": part.text})
        elif entry.role == "user" and is_attachment(part):
            made.append(_attachment(part, read_blob))
        else:
            made.append(_NATIVE.block_of(part))
    restored = restore(made, entry.hidden, _PLACES)
    return [block for block in (_valid_said(block, entry.role) for block in restored) if block is not None]


def _attachment(part: Part, read_blob: ReadBlob) -> JSON:
    own = _NATIVE.block_of(part)
    if isinstance(own, dict) and isinstance(own.get("type"), str):
        return own
    picture = picture_of(part, read_blob)
    if picture is None:
        return {"type": "text", "text": note_of(part)}
    if picture.url:
        return {"type": "image", "source": {"type": "url", "url": picture.url}}
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": picture.media_type, "data": picture.data},
    }


def _valid_said(block: JSON, role: str) -> JSON:
    """A block of a user's message, or of instructions, as the API takes it; None where it takes none of it."""
    kind = type_of(block)
    if kind == "text":
        return block if isinstance(block.get("text"), str) and block["text"].strip() else None
    if kind in ("", *_ASSISTANTS, "tool_result") or kind.endswith("_tool_result"):
        return None
    return block if role == "user" or kind not in _USERS else None


def _valid_answer(block: JSON, *, is_first: bool, open_: Mapping[str, str], out: Sequence[JSON]) -> JSON:
    """The same of an assistant's message. ``open_``: tools of the server's that wait for a result; ``out``: the blocks
    before."""
    kind = type_of(block)
    if kind == "text":
        if not isinstance(block.get("text"), str) or not block["text"].strip():
            return None
        citations = block.get("citations")
        if isinstance(citations, list):
            whole = [one for one in citations if not _lacks_index(one)]
            return block if len(whole) == len(citations) else {**block, "citations": whole}
        return block
    if kind == "thinking":
        return block if isinstance(block.get("signature"), str) and isinstance(block.get("thinking"), str) else None
    if kind == "redacted_thinking":
        return block if isinstance(block.get("data"), str) else None
    if kind == "compaction":
        content = block.get("content")
        if is_first and any(isinstance(block.get(key), str) for key in ("signature", "encrypted_content")):
            return block
        return {"type": "text", "text": content} if isinstance(content, str) and content.strip() else None
    if kind == "tool_use":
        return block if isinstance(block.get("input"), dict) and isinstance(block.get("id"), str) else None
    if kind in ("server_tool_use", "mcp_tool_use"):
        known = isinstance(block.get("id"), str) and isinstance(block.get("name"), str)
        return block if known and isinstance(block.get("input"), dict) else None
    if kind.endswith("_tool_result"):
        answered = block.get("tool_use_id")
        used = {one["id"] for one in out if one["type"] in ("server_tool_use", "mcp_tool_use")} | open_.keys()
        used -= {_answered(one) for one in out}
        return block if isinstance(answered, str) and answered in used else None
    return block if kind and kind not in _USERS else None


def _lacks_content(block: JSON) -> bool:
    """Whether the result of a search, or of code, is without what was encrypted in it."""
    content = block.get("content")
    if block.get("type") == "web_search_tool_result" and isinstance(content, list):
        return any(
            type_of(one) == "web_search_result" and not isinstance(one.get("encrypted_content"), str) for one in content
        )
    if block.get("type") in ("code_execution_tool_result", "advisor_tool_result"):
        key = {"encrypted_code_execution_result": "encrypted_stdout", "advisor_redacted_result": "encrypted_content"}
        wanted = key.get(type_of(content))
        return wanted is not None and not isinstance(content.get(wanted), str)
    return False


def _answered(block: JSON) -> str:
    """The id of the call that a result answers; "" for what is none."""
    id_ = block.get("tool_use_id")
    return id_ if isinstance(id_, str) else ""


def _of_pair(block: JSON) -> str:
    """The id that a call of the server's and its result have in common."""
    id_ = block.get("id") if type_of(block) == "server_tool_use" else block.get("tool_use_id")
    return id_ if isinstance(id_, str) else "\0"


def _lacks_index(citation: JSON) -> bool:
    located = type_of(citation) == "web_search_result_location"
    return located and not isinstance(citation.get("encrypted_index"), str)


def _write_result(answer: Entry, id_: str, read_blob: ReadBlob) -> JSON:
    kept = _NATIVE.whole_of(answer.parts)
    items: list[JSON] = []
    error = False
    for part in _NATIVE.said(answer.parts):
        if isinstance(part, (ToolResult, Text)):
            items.append({**_NATIVE.rest_of(part), "type": "text", "text": part.text})
            error = error or (isinstance(part, ToolResult) and part.error)
        elif is_attachment(part):
            items.append(_attachment(part, read_blob))
        else:
            items.append(None)
    form, content = kept.get("content"), {}
    plain = len(items) == 1 and type_of(items[0]) == "text" and items[0].keys() == {"type", "text"}
    if plain and form != "list":
        content = {"content": items[0]["text"]}
    elif items or form == "list":
        content = {"content": items}
    elif form != "absent":
        content = {"content": ""}
    rest = {key: value for key, value in mapping(kept.get("block")).items() if key not in ("type", "content")}
    flag = {"is_error": True} if error else {}
    block: JSON = {**flag, **rest, "type": "tool_result", "tool_use_id": id_, **content}
    (block,) = restore([block], answer.hidden, _PLACES)
    if not isinstance(block.get("is_error", False), bool):
        block = {key: value for key, value in block.items() if key != "is_error"}
    if isinstance(block.get("content"), list):
        block = {**block, "content": [inner for inner in block["content"] if _may_be_in_result(inner)]}
    return block


def _may_be_in_result(block: JSON) -> bool:
    kind = type_of(block)
    if kind == "text":
        return isinstance(block.get("text"), str)
    return bool(kind) and kind not in (*_ASSISTANTS, "tool_result") and not kind.endswith("_tool_result")


def _no_result(id_: str) -> JSON:
    return {"type": "tool_result", "tool_use_id": id_, "content": NO_RESULT, "is_error": True}


def _error_result(id_: str, name: str) -> JSON:
    if name == "mcp":
        return {"type": "mcp_tool_result", "tool_use_id": id_, "is_error": True, "content": []}
    error = {"type": f"{name}_tool_result_error", "error_code": "unavailable"}
    return {"type": f"{name}_tool_result", "tool_use_id": id_, "content": error}


def _is_generated(entry: Entry) -> bool:
    """Whether a request was sent for it from here."""
    return entry.frame is not None and not entry.frame.assumed


def _container_id(field: HiddenField) -> str | None:
    try:
        id_ = mapping(parse_json(field.data.decode("utf-8"))).get("id")
    except (InvalidContent, UnicodeDecodeError):
        return None
    return id_ if isinstance(id_, str) else None


def _ends_well(log: Sequence[JSON]) -> bool:
    """Whether a request may end so: with a turn of the user's, or with a tool of the server's that goes on."""
    if not log:
        return False
    last = log[-1]
    if last["role"] == "user":
        return True
    blocks = last["content"] if isinstance(last["content"], list) else []
    return bool(blocks) and type_of(blocks[-1]) in ("server_tool_use", "mcp_tool_use")


def _with_cache_points(messages: Sequence[JSON], points: int) -> list[JSON]:
    """The messages with their last cache points."""
    out: list[JSON] = []
    for message in reversed(messages):
        content = message["content"]
        if isinstance(content, list) and any("cache_control" in exact_json(block) for block in content):
            blocks: list[JSON] = []
            for block in reversed(content):
                block, points = _thinned(block, points)
                blocks.insert(0, block)
            message = {**message, "content": blocks}
        out.append(message)
    return out[::-1]


def _thinned(block: JSON, points: int) -> tuple[JSON, int]:
    inner = block.get("content") if block.get("type") == "tool_result" else None
    if "cache_control" in block:
        if points == 0:
            block = {key: value for key, value in block.items() if key != "cache_control"}
        points = max(0, points - 1)
    if isinstance(inner, list):
        kept: list[JSON] = []
        for one in reversed(inner):
            one, points = _thinned(one, points)
            kept.insert(0, one)
        block = {**block, "content": kept}
    return block, points


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
