"""Entries -> messages, and their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...document.canonical import JSON, parse_json
from ...document.entry import Entry, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult, Unknown
from ...document.repairs import NO_RESULT, Call, Late, Result, Said
from ...document.summaries import is_shown
from ...exceptions import InvalidContent
from ..format import ReadBlob
from ..hiding import restore, type_of
from ..native import mapping
from ..pictures import is_attachment, note_of, picture_of
from ..turns import CONTINUE, INSTRUCTIONS, CallIds, is_generated, object_of
from .parts import ASSISTANTS, CONTAINER, NAMES, NATIVE, PLACES, RESPONSE_ONLY
from .valid_blocks import answered_id, lacks_content, pair_id, valid_answer, valid_said


def is_written(entry: Entry) -> bool:
    """Whether an entry is a message; instructions that came as one need not have a text."""
    if entry.role == "system" and entry.sealed and entry.status != "erased":
        return is_shown(entry) or NATIVE.whole_of(entry.parts).get("place") == "message"
    return is_shown(entry)


def calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in _usable(entry)]


def _usable(entry: Entry) -> list[ToolCall]:
    """The calls that somebody can run: an answer that was cut short may end with half of one."""
    return [call for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


class MessageWriter:
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
                attached = [_attachment(part, self._read_blob) for part in entry.parts if is_attachment(part)]
                said = {"type": "text", "text": item.introduction + entry.text}
                blocks = (valid_said(block, "user") for block in restore([said, *attached], {}, PLACES))
                self._put("user", [block for block in blocks if block is not None], {})
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
        kept = NATIVE.whole_of(entry.parts)
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
            if key not in ("role", "content", *RESPONSE_ONLY)
        }
        plain = len(blocks) == 1 and blocks[0].keys() == {"type", "text"} and blocks[0]["type"] == "text"
        content = blocks[0]["text"] if plain and kept.get("content") != "list" else blocks
        self.messages.append({"role": role, "content": content, **fields})

    def _answer(self, entry: Entry, kept: Mapping[str, JSON]) -> None:
        field = entry.hidden.get(CONTAINER)
        blocks = self._assistant_blocks(entry)
        if blocks:
            if is_generated(entry) and not ends_well(self.messages):
                self._put("user", [{"type": "text", "text": CONTINUE}], {})  # the request for this answer ended so
            elif self._open and not any(answered_id(block) in self._open for block in blocks):
                self._close_server_tools()  # a turn that went on would have brought the results
            elif not self._began and type_of(blocks[0]) != "compaction":
                self._put("user", [{"type": "text", "text": CONTINUE}], {})
            for block in blocks:
                if block["type"] in ("server_tool_use", "mcp_tool_use"):
                    self._open[block["id"]] = block["name"] if block["type"] == "server_tool_use" else "mcp"
                else:
                    self._open.pop(answered_id(block), None)
            if any(block["type"] == "tool_use" for block in blocks):  # results of the app's must follow at once
                blocks += [_error_result(id_, name) for id_, name in self._open.items()]
                self._open = {}
            self._put("assistant", blocks, kept)
        if field is not None:
            self.container = _container_id(field) or self.container

    def finish(self) -> None:
        """End the log: only its last turn may wait for a tool of the server's."""
        if not ends_well(self.messages):
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
        for part in NATIVE.said(entry.parts):
            block: JSON = None
            match part:
                case Text() if NATIVE.rest_of(part).get("type") == "compaction":
                    block = {**NATIVE.rest_of(part), "content": part.text}
                case Text():
                    block = {**NATIVE.rest_of(part), "type": "text", "text": part.text}
                case Reasoning():
                    block = {**NATIVE.rest_of(part), "type": "thinking", "thinking": part.text}
                case ToolCall() if part.name:
                    id_ = self._ids.give(entry.id, index, part.id)
                    index += 1
                    name = NAMES.of(part.name)
                    given = object_of(part.arguments)
                    block = {**NATIVE.rest_of(part), "type": "tool_use", "id": id_, "name": name, "input": given}
                case Unknown():
                    block = NATIVE.block_of(part)
            made.append(block if isinstance(block, dict) else None)
        blocks = restore(made, entry.hidden, PLACES)
        lacking = {answered_id(block) for block in blocks if block and lacks_content(block)}
        first = not self.messages and not is_generated(entry)
        out: list[JSON] = []
        for block in blocks:
            if block is None or (lacking and pair_id(block) in lacking):
                continue
            valid = valid_answer(block, is_first=first and not out, open_=self._open, out=out)
            if valid is not None:
                out.append(valid)
        return out

    def _result(self, call: Call, answer: Entry | None) -> None:
        id_ = self._ids.of(call.entry, call.index)
        block = _write_result(answer, id_, self._read_blob) if answer else _no_result(id_)
        if self._results is not None:
            self._results.append(block)
            return
        kept = NATIVE.whole_of(answer.parts) if answer else {}
        self._results = [block]
        self._put("user", self._results, {"fields": kept.get("fields"), "content": "list"})


def _user_blocks(entry: Entry, read_blob: ReadBlob) -> list[JSON]:
    made: list[JSON] = []
    for part in NATIVE.said(entry.parts):
        if isinstance(part, (Text, ToolResult)):
            made.append({**NATIVE.rest_of(part), "type": "text", "text": part.text})
        elif entry.role == "user" and is_attachment(part):
            made.append(_attachment(part, read_blob))
        else:
            made.append(NATIVE.block_of(part))
    restored = restore(made, entry.hidden, PLACES)
    return [block for block in (valid_said(block, entry.role) for block in restored) if block is not None]


def _attachment(part: Part, read_blob: ReadBlob) -> JSON:
    own = NATIVE.block_of(part)
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


def _write_result(answer: Entry, id_: str, read_blob: ReadBlob) -> JSON:
    kept = NATIVE.whole_of(answer.parts)
    items: list[JSON] = []
    error = False
    for part in NATIVE.said(answer.parts):
        if isinstance(part, (ToolResult, Text)):
            items.append({**NATIVE.rest_of(part), "type": "text", "text": part.text})
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
    (block,) = restore([block], answer.hidden, PLACES)
    if not isinstance(block.get("is_error", False), bool):
        block = {key: value for key, value in block.items() if key != "is_error"}
    if isinstance(block.get("content"), list):
        block = {**block, "content": [inner for inner in block["content"] if _may_be_in_result(inner)]}
    return block


def _may_be_in_result(block: JSON) -> bool:
    kind = type_of(block)
    if kind == "text":
        return isinstance(block.get("text"), str)
    return bool(kind) and kind not in (*ASSISTANTS, "tool_result") and not kind.endswith("_tool_result")


def _no_result(id_: str) -> JSON:
    return {"type": "tool_result", "tool_use_id": id_, "content": NO_RESULT, "is_error": True}


def _error_result(id_: str, name: str) -> JSON:
    if name == "mcp":
        return {"type": "mcp_tool_result", "tool_use_id": id_, "is_error": True, "content": []}
    error = {"type": f"{name}_tool_result_error", "error_code": "unavailable"}
    return {"type": f"{name}_tool_result", "tool_use_id": id_, "content": error}


def _container_id(field: HiddenField) -> str | None:
    try:
        id_ = mapping(parse_json(field.data.decode("utf-8"))).get("id")
    except (InvalidContent, UnicodeDecodeError):
        return None
    return id_ if isinstance(id_, str) else None


def ends_well(log: Sequence[JSON]) -> bool:
    """Whether a request may end so: with a turn of the user's, or with a tool of the server's that goes on."""
    if not log:
        return False
    last = log[-1]
    if last["role"] == "user":
        return True
    blocks = last["content"] if isinstance(last["content"], list) else []
    return bool(blocks) and type_of(blocks[-1]) in ("server_tool_use", "mcp_tool_use")
