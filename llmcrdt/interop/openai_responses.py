"""``openai-responses``: the items of OpenAI's Responses API <-> entries.

A request is ``{"input": [...] | "text", "instructions": ..., "tools": [...], ...}``; the bare list is that of items.
All that a model put out between two inputs is one entry: its messages, reasoning, calls and all other items, in their
order. Each output of a tool is an entry, and so is each message of others.

Hidden fields: ids and encrypted content of reasoning, so that it goes out whole with the items after it or not at all;
compaction; fingerprints of programs; references to items that the server keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import pairwise
from typing import ClassVar

from ..document.canonical import JSON
from ..document.entry import Config, Entry, HiddenField, Part, Reasoning, Role, Text, ToolCall, ToolResult, Unknown
from ..document.repairs import NO_RESULT, Call, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..ids import EntryId
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from .hiding import Place, hidden_fields, hide, restore, type_of
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import is_attachment, note_of, picture_of
from .streams.responses import ResponsesStream
from .turns import CONTINUE, NO_PARAMETERS, CallIds, Function, functions, name_for, outline_of_input, settings_of

_NATIVE = Native("openai-responses")
_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "system"}
_WORDS = {"function_call": "arguments", "custom_tool_call": "input"}
_RUN_BY_APP = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
_OUTPUT = (
    "reasoning", "compaction", "mcp_list_tools", "mcp_approval_request", "program", "program_output",
    "tool_search_output",
)  # fmt: skip
_INPUT = ("item_reference", "mcp_approval_response", "compaction_trigger", "configuration_update", "additional_tools")
_HANDLES = ("previous_response_id", "conversation", "stream_id")
_PIXEL = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _is_text_or_null(value: JSON) -> bool:
    return value is None or isinstance(value, str)


_PLACES = (
    Place("openai-responses/reasoning", "reasoning", ("id",)),
    Place("openai-responses/reasoning", "reasoning", ("encrypted_content",), _is_text_or_null),
    Place("openai-responses/compaction", "compaction", ("id",)),
    Place("openai-responses/compaction", "compaction", ("encrypted_content",)),
    Place("openai-responses/program", "program", ("fingerprint",)),
    Place("openai-responses/references", "item_reference", ("id",)),
)
_OF_MODEL = ("openai-responses/reasoning", "openai-responses/compaction")


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
        Rule("names of functions have a form", "Expected a string that matches the pattern", "other signs become _"),
        Rule(
            "reasoning stands before an item",
            "of type 'reasoning' was provided without its required following item",
            "reasoning that nothing follows is left out",
        ),
        Rule(
            "items go with their reasoning",
            "was provided without its required 'reasoning' item",
            "where reasoning does not go out, the ids of the items after it don't either",
        ),
        Rule("reasoning is whole", "Missing required parameter: 'id' or 'encrypted_content'", "left out", quoted=False),
        Rule("ids of items differ", "Duplicate item found with id", "the second one goes without"),
        Rule("compaction is whole", "Missing required parameter: 'encrypted_content'", "left out"),
        Rule(
            "a compaction trigger is last", "compaction_trigger must be the final input item", "left out", quoted=False
        ),
        Rule("references name an item", "Missing required parameter: 'id'", "left out"),
        Rule("programs are whole", "Missing required parameter: 'fingerprint'", "left out"),
        Rule("there is an input", "One of 'input' or 'previous_response_id'", "a turn of the user's is made up"),
        Rule("pieces stand on their side", "Invalid value: content type", "left out, or a note about it", quoted=False),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(sorted({place.name for place in _PLACES}))

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base == "input" or (not about.listed and isinstance(about.whole.get("input"), str)):
            return 90
        if about.base is not None or not about.listed:
            return 0
        for item in about.sample:
            pieces = mapping(item).get("content")
            kinds = [type_of(piece) for piece in pieces] if isinstance(pieces, list) else []
            known = _is_output(item, False) and "role" not in mapping(item)
            if known or _is_result(item) or type_of(item) in ("message", *_INPUT) or {*kinds} & {*_PIECES}:
                return 90
        return 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        hint = "Pass the list of items, or a text."
        return outline_of_input(about, provider or self.provider, self.key, "instructions", _read_tools, hint)

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        output = list_at(response.get("output"), "output")
        items = [(f"output[{i}]", object_at(item, f"output[{i}]")) for i, item in enumerate(output)]
        finish = mapping(response.get("incomplete_details")).get("reason") or response.get("status")
        return Answer(items, response.get("model"), response.get("usage"), finish)

    def stream(self) -> ResponsesStream:
        return ResponsesStream()

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        answers = [entry for entry in entries if entry.role == "assistant"]
        apart = {entry.id for before, entry in pairwise(answers) if not is_shown(before)}
        writer = _Writer(read_blob, apart)
        for item in with_results(filter(is_shown, entries), _calls_of):
            writer.add(item)
        settings = settings_of(entries, self.key)
        body: dict[str, JSON] = {name: value for name, value in settings.whole.items() if name not in _HANDLES}
        body |= {"model": model} if model else {}
        if writer.instructions is not None:
            body["instructions"] = writer.instructions
        own = settings.own_tools
        are_own = isinstance(own, list) and all(type_of(tool) for tool in own)
        tools = own if are_own else [_tool(function) for function in functions(settings.tools)]
        if tools:
            body["tools"] = tools
        log = writer.finished()
        body["input"] = log or [{"role": "user", "content": CONTINUE}]
        if writer.is_text and len(log) == 1 and isinstance(log[0]["content"], str):
            body["input"] = log[0]["content"] or CONTINUE
        return Written(log, body)


_PIECES = ("input_text", "input_image", "input_file", "output_text")


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
    name = name_for(function.name)
    return {"type": "function", "name": name, **described, "parameters": parameters, "strict": False}


def _is_output(item: JSON, in_run: bool) -> bool:
    """Whether a model made an item. One of an unknown type belongs to what stands before it."""
    kind = type_of(item)
    if kind in ("", "message"):
        return mapping(item).get("role") == "assistant"
    if _is_result(item) or kind in _INPUT:
        return False
    return kind in _OUTPUT or kind.endswith("_call") or in_run


def _is_result(item: JSON) -> bool:
    kind = type_of(item).removesuffix("_output")
    return type_of(item).endswith("_output") and (kind in _WORDS or kind in _RUN_BY_APP)


class _Reader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._calls: dict[str, int] = {}
        self._run: list[JSON] = []
        self._path = ""

    def begin(self) -> Iterator[Draft]:
        system = mapping(self.outline.system)
        config = [Config(dict(self.outline.config))] if self.outline.config else []
        if "instructions" in system:
            parts = [Text(system["instructions"]), *_NATIVE.whole({"place": "instructions"}), *config]
            yield Draft("system", tuple(parts))
        elif config:
            yield Draft("system", tuple(config))
        if "input" in system:
            yield Draft("user", (Text(system["input"]), *_NATIVE.whole({"place": "input"})))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        if _is_output(item, bool(self._run)):
            self._path = self._path if self._run else path
            self._run.append(item)
            return
        yield from self.end()
        if _is_result(item):
            yield self._result(item, path)
        elif type_of(item) in ("", "message"):
            yield self._message(item, path)
        else:
            (cut,), hidden = self._hide([item])
            yield Draft("user", (_NATIVE.block(cut),), None, hidden)

    def end(self) -> Iterator[Draft]:
        if self._run:
            run, self._run = self._run, []
            cut, hidden = self._hide(run)
            parts = [part for item in cut for part in _read_output(item, self._path)]
            for part in parts:
                if (call := _call_of(part)) is not None:
                    self._calls[call[0]] = self.count
            yield Draft("assistant", tuple(parts), None, hidden)

    def _hide(self, items: Sequence[JSON]) -> tuple[list[JSON], dict[str, HiddenField]]:
        cut, found = hide(items, _PLACES)
        return cut, hidden_fields(found, self._binding)

    def _binding(self, name: str) -> dict[str, JSON]:
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "openai-responses"}
        return bound | ({"model": self.outline.model} if self.outline.model and name in _OF_MODEL else {})

    def _result(self, item: Mapping[str, JSON], path: str) -> Draft:
        call = text_at(item.get("call_id"), f"{path}.call_id")
        if call not in self._calls:
            raise bad(f"{path}.call_id", f"is {call!r}, which no item before made", "Put the output after its call.")
        answers = (self._calls[call], call)
        if type_of(item).removesuffix("_output") not in _WORDS:
            return Draft("tool", (_NATIVE.block(dict(item)),), answers)
        kept: dict[str, JSON] = {}
        output = item.get("output")
        if isinstance(output, str):
            parts: list[Part] = [ToolResult(output)]
        else:
            kept["content"] = "list"
            parts = _read_pieces(output, f"{path}.output", ToolResult)
        rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "output")}
        if rest:
            kept["fields"] = rest
        return Draft("tool", (*parts, *_NATIVE.whole(kept)), answers)

    def _message(self, item: Mapping[str, JSON], path: str) -> Draft:
        name = text_at(item.get("role"), f"{path}.role")
        if name not in _ROLES:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are assistant, {', '.join(_ROLES)}.")
        kept: dict[str, JSON] = {} if name == _ROLES[name] else {"role": name}
        content = item.get("content")
        if isinstance(content, str):
            parts: list[Part] = [Text(content)]
        else:
            parts = _read_pieces(content, f"{path}.content", Text)
            kept["content"] = "list"
        rest = {key: value for key, value in item.items() if key not in ("role", "content")}
        if rest:
            kept["fields"] = rest
        return Draft(_ROLES[name], (*parts, *_NATIVE.whole(kept)))


def _read_pieces(pieces: JSON, path: str, kind: type[Text] | type[ToolResult]) -> list[Part]:
    parts: list[Part] = []
    for i, piece in enumerate(list_at(pieces, path)):
        if text_at(object_at(piece, f"{path}[{i}]").get("type"), f"{path}[{i}].type") == "input_text":
            text = text_at(piece.get("text"), f"{path}[{i}].text")
            rest = {key: value for key, value in piece.items() if key not in ("type", "text")}
            parts.append(kind(text, extra=_NATIVE.extra(rest)))
        else:
            parts.append(_NATIVE.block(piece))
    return parts


def _read_output(item: JSON, path: str) -> list[Part]:
    """The parts of an item that a model made. Those of one item say "joined", but for the first."""
    kind = type_of(item)
    if kind in ("", "message"):
        return _read_answer(item, path)
    if kind == "reasoning":
        texts = [mapping(one).get("text") for key in ("summary", "content") for one in _list(item.get(key))]
        said = "\n".join(text for text in texts if isinstance(text, str))
        return [Reasoning(said, _NATIVE.extra({"item": item}))]
    if kind in _WORDS:
        words = _WORDS[kind]
        rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "name", words)}
        call, name = text_at(item.get("call_id"), f"{path}.call_id"), text_at(item.get("name"), f"{path}.name")
        kept = ({"item": rest} if rest else {}) | ({"kind": kind} if kind != "function_call" else {})
        given = text_at(item.get(words), f"{path}.{words}", "Arguments are JSON written as text, in quotes.")
        return [ToolCall(call, name, given, _NATIVE.extra(kept))]
    if kind in _RUN_BY_APP:
        text_at(item.get("call_id"), f"{path}.call_id")
    return [_NATIVE.block(item)]


def _read_answer(item: JSON, path: str) -> list[Part]:
    rest = {key: value for key, value in item.items() if key not in ("role", "content")}
    kept: dict[str, JSON] = {"item": rest} if rest else {}
    content = item.get("content")
    if isinstance(content, str):
        return [Text(content, _NATIVE.extra(kept))]
    pieces = list_at(content, f"{path}.content")
    if not pieces:
        return [_NATIVE.block(item)]
    parts: list[Part] = []
    for i, piece in enumerate(pieces):
        at = f"{path}.content[{i}]"
        kind = text_at(object_at(piece, at).get("type"), f"{at}.type")
        kept = {**kept, "form": "list"} if not parts else {"joined": True}
        if kind == "output_text":
            more = {key: value for key, value in piece.items() if key not in ("type", "text")}
            extra = {**kept, **({"piece": more} if more else {})}
            parts.append(Text(text_at(piece.get("text"), f"{at}.text"), _NATIVE.extra(extra)))
        else:
            parts.append(_NATIVE.block({"type": "piece", "piece": piece, **kept}))
    return parts


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _call_of(part: Part) -> tuple[str, str, str] | None:
    """Id, name and kind of the call that a part makes, if the app is to answer it."""
    if isinstance(part, ToolCall):
        kind = _NATIVE.rest_of(part).get("kind")
        return (part.id, part.name, "custom_tool_call" if kind == "custom_tool_call" else "function_call")
    block = mapping(_NATIVE.block_of(part))
    if type_of(block) in _RUN_BY_APP and isinstance(block.get("call_id"), str):
        return block["call_id"], type_of(block), type_of(block)
    return None


# -- writing


def _usable(entry: Entry) -> list[tuple[str, str, str]]:
    if entry.role != "assistant":
        return []
    return [call for part in entry.parts if (call := _call_of(part)) is not None and call[1]]


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(id_, name) for id_, name, _ in _usable(entry)]


class _Writer:
    """Writes the items of a log."""

    def __init__(self, read_blob: ReadBlob, apart: Set[EntryId]) -> None:
        self.instructions: str | None = None
        self.is_text = False  # whether the input was a text, and no list
        self._items: list[JSON] = []
        self._read_blob = read_blob
        self._ids = CallIds(r"[^\0]{1,64}")
        self._kinds: dict[tuple[EntryId, int], str] = {}
        self._taken: set[str] = set()
        self._apart = apart  # answers whose reasoning may stand in one before, which is not shown
        self._lacks_reasoning = False  # whether the reasoning that the next items may belong to was left out

    def finished(self) -> list[JSON]:
        """The whole log."""
        last = len(self._items) - 1
        return [item for i, item in enumerate(self._items) if type_of(item) != "compaction_trigger" or i == last]

    def add(self, item: Said | Result | Late) -> None:
        match item:
            case Result(call, answer):
                self._put([self._result(call, answer)])
            case Late(entry, _):
                self._put([{"role": "user", "content": item.introduction + entry.text}])
            case Said(entry) if entry.role == "assistant":
                self._answer(entry)
            case Said(entry):
                self._say(entry)

    def _put(self, items: Sequence[JSON]) -> None:
        """Add items, each with an id of its own or none."""
        for item in items:
            id_ = item.get("id")
            if isinstance(id_, str):
                if id_ in self._taken:
                    item = {key: value for key, value in item.items() if key != "id"}
                    if type_of(item) == "item_reference":
                        continue
                self._taken.add(id_)
            self._items.append(item)

    def _say(self, entry: Entry) -> None:
        kept = _NATIVE.whole_of(entry.parts)
        first = not self._items and self.instructions is None
        if entry.role == "system" and kept.get("place") == "instructions" and first:
            self.instructions = entry.text
            return
        parts = list(_NATIVE.said(entry.parts))
        own = _NATIVE.block_of(parts[0]) if len(parts) == 1 else None
        if entry.role == "user" and isinstance(own, dict) and not kept:
            self._put(self._own_input(entry, own))
            return
        self.is_text = self.is_text or kept.get("place") == "input"
        pieces = [piece for part in parts if (piece := self._piece(part, entry.role)) is not None]
        fields = {k: v for k, v in mapping(kept.get("fields")).items() if k not in ("role", "content")}
        fields = fields if fields.get("type", "message") == "message" else {}
        name = kept.get("role")
        role = name if isinstance(name, str) and _ROLES.get(name) == entry.role else entry.role
        self._put([{**fields, "role": role, "content": _content(pieces, kept.get("content"))}])

    def _own_input(self, entry: Entry, item: JSON) -> list[JSON]:
        """An item of its own kind among the inputs, or a piece that stands alone."""
        if type_of(item) in _PIECES:
            piece = self._piece(_NATIVE.block(item), "user")
            return [{"role": "user", "content": [piece]}] if piece is not None else []
        if not type_of(item) or type_of(item) in ("message", "piece") or _is_output(item, False) or _is_result(item):
            return []
        (item,) = restore([item], entry.hidden, _PLACES)
        if type_of(item) == "item_reference" and not isinstance(item.get("id"), str):
            return []
        return [item]

    def _piece(self, part: Part, role: str) -> JSON:
        if isinstance(part, (Text, ToolResult)):
            rest = {k: v for k, v in _NATIVE.rest_of(part).items() if k not in ("item", "joined", "form", "piece")}
            return {**rest, "type": "input_text", "text": part.text}
        if role == "system" or not is_attachment(part):
            return None
        own = _NATIVE.block_of(part)
        if isinstance(own, dict):
            good = type_of(own) and not type_of(own).startswith("output_") and type_of(own) not in ("refusal", "piece")
            return own if good and (type_of(own) != "input_text" or isinstance(own.get("text"), str)) else None
        picture = picture_of(part, self._read_blob)
        if picture is None:
            return {"type": "input_text", "text": note_of(part)}
        return {"type": "input_image", "image_url": picture.as_url, "detail": "auto"}

    def _answer(self, entry: Entry) -> None:
        items = restore(self._made(entry), entry.hidden, _PLACES)
        stripped = any(type_of(item) == "reasoning" and not _is_whole(item) for item in items)
        kept = [item for item in items if item is not None and _is_whole(item)]
        self._lacks_reasoning = self._lacks_reasoning or entry.id in self._apart
        for index, item in enumerate(kept):
            if type_of(item) == "reasoning":
                self._lacks_reasoning = False
            elif stripped or self._lacks_reasoning:  # the server would miss the reasoning that belongs to it
                kept[index] = {key: value for key, value in item.items() if key != "id"}
        self._lacks_reasoning = self._lacks_reasoning or stripped
        seen: set[str] = set()
        for index, item in enumerate(kept):
            if type_of(item) == "reasoning" and isinstance(item.get("id"), str):
                again = item["id"] in self._taken | seen
                seen.add(item["id"])
                if again and not isinstance(item.get("encrypted_content"), str):
                    kept[index] = None  # nothing would be left of it
        kept = [item for item in kept if item is not None]
        while kept and type_of(kept[-1]) == "reasoning":
            kept.pop()
            self._lacks_reasoning = True
        if kept and not self._items and entry.frame is not None and not entry.frame.assumed:
            self._put([{"role": "user", "content": CONTINUE}])
        self._put(kept)

    def _made(self, entry: Entry) -> list[JSON]:
        """The items of an answer, as they were before what is hidden was cut out; None for what is not written."""
        items: list[JSON] = []
        index = 0
        for part in _NATIVE.said(entry.parts):
            rest = _NATIVE.rest_of(part)
            block = mapping(_NATIVE.block_of(part))
            call = _call_of(part)
            if call is not None and call[1]:
                id_ = self._ids.give(entry.id, index, call[0])
                self._kinds[entry.id, index] = call[2]
                index += 1
                items.append(_write_call(part, call[2], id_))
            elif isinstance(part, Text) or type_of(block) == "piece":
                _add_piece(items, part, rest if isinstance(part, Text) else block)
            elif isinstance(part, Reasoning):
                item = mapping(rest.get("item"))
                items.append(item if type_of(item) == "reasoning" else None)
            elif isinstance(part, Unknown) and block:
                items.append(block if _is_own_output(block) else None)
            else:
                items.append(None)
        return items

    def _result(self, call: Call, answer: Entry | None) -> JSON:
        kind, id_ = self._kinds[call.entry, call.index], self._ids.of(call.entry, call.index)
        head = {"type": f"{kind}_output", "call_id": id_}
        if kind not in _WORDS:
            own = mapping(_NATIVE.block_of(answer.parts[0])) if answer and answer.parts else {}
            if type_of(own) == head["type"]:
                return {**own, **head}
            return {**head, **_OUTPUTS[kind](answer.text if answer else NO_RESULT)}
        if answer is None:
            return {**head, "output": NO_RESULT}
        kept = _NATIVE.whole_of(answer.parts)
        pieces = [p for part in _NATIVE.said(answer.parts) if (p := self._piece(part, "tool")) is not None]
        fields = {k: v for k, v in mapping(kept.get("fields")).items() if k not in ("type", "call_id", "output")}
        return {**fields, **head, "output": _content(pieces, kept.get("content"))}


_OUTPUTS: Mapping[str, Callable[[str], dict[str, JSON]]] = {
    "computer_call": lambda text: {"output": {"type": "computer_screenshot", "image_url": _PIXEL}},
    "local_shell_call": lambda text: {"output": text},
    "shell_call": lambda text: {
        "output": [{"stdout": "", "stderr": text, "outcome": {"type": "exit", "exit_code": 1}}]
    },
    "apply_patch_call": lambda text: {"status": "failed", "output": text},
}
"""The output of each kind of call that the app runs, where only a text is known, or nothing."""


def _content(pieces: Sequence[JSON], form: JSON) -> JSON:
    if form == "list" and pieces:
        return list(pieces)
    if all(piece.keys() == {"type", "text"} and type_of(piece) == "input_text" for piece in pieces):
        return "".join(piece["text"] for piece in pieces)
    return list(pieces)


def _add_piece(items: list[JSON], part: Part, kept: Mapping[str, JSON]) -> None:
    """Add a piece of an answer to its message, or begin one."""
    if isinstance(part, Text):
        piece = {**mapping(kept.get("piece")), "type": "output_text", "text": part.text}
    else:
        piece = dict(mapping(kept.get("piece")))
        wrong = type_of(piece) in ("", "output_text") or type_of(piece).startswith("input_")
        if wrong or (type_of(piece) == "refusal" and not isinstance(piece.get("refusal"), str)):
            items += [] if kept.get("joined") is True else [None]
            return
    last = items[-1] if items else None
    if kept.get("joined") is True and isinstance(last, dict) and isinstance(last.get("content"), list):
        items[-1] = {**last, "content": [*last["content"], piece]}
        return
    rest = {k: v for k, v in mapping(kept.get("item")).items() if k not in ("role", "content")}
    rest = rest if rest.get("type", "message") == "message" else {}
    if kept.get("form") == "list" or type_of(piece) != "output_text":
        items.append({**rest, "role": "assistant", "content": [piece]})
    else:
        items.append({**rest, "role": "assistant", "content": piece["text"]})


def _write_call(part: Part, kind: str, id_: str) -> JSON:
    if not isinstance(part, ToolCall):
        return {**mapping(_NATIVE.block_of(part)), "call_id": id_}
    rest = mapping(_NATIVE.rest_of(part).get("item"))
    name = name_for(part.name, longest=128)
    return {**rest, "type": kind, "call_id": id_, "name": name, _WORDS[kind]: part.arguments}


def _is_own_output(item: JSON) -> bool:
    """Whether a kept item may stand in an answer as it is; calls and messages are written anew."""
    kind = type_of(item)
    empty = kind == "message" and item.get("role") == "assistant" and item.get("content") == []
    return empty or (bool(kind) and kind not in ("message", "piece", *_WORDS, *_RUN_BY_APP, *_INPUT, *_PIECES)
                     and not _is_result(item) and kind != "refusal")  # fmt: skip


def _is_whole(item: JSON) -> bool:
    """Whether an item has all that the API wants of it."""
    kind = type_of(item)
    if item is None:
        return False
    if kind == "reasoning":
        return any(isinstance(item.get(key), str) for key in ("id", "encrypted_content")) and isinstance(
            item.get("summary"), list
        )
    if kind == "compaction":
        return isinstance(item.get("encrypted_content"), str)
    if kind == "program":
        return isinstance(item.get("fingerprint"), str)
    return True
