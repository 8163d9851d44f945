"""Entries -> items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from ...document.canonical import JSON
from ...document.entry import Entry, Part, Reasoning, Text, ToolCall, ToolResult, Unknown
from ...document.repairs import NO_RESULT, Call, Late, Result, Said
from ...ids import EntryId
from ..format import ReadBlob
from ..hiding import restore, type_of
from ..native import mapping
from ..pictures import is_attachment, note_of, picture_of
from ..turns import CONTINUE, CallIds, is_generated
from .parts import INPUT, NAMES, NATIVE, PIECES, PLACES, ROLES, RUN_BY_APP, WORDS, call_of, is_output, is_result

_PIXEL = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _usable(entry: Entry) -> list[tuple[str, str, str]]:
    if entry.role != "assistant":
        return []
    return [call for part in entry.parts if (call := call_of(part)) is not None and call[1]]


def calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(id_, name) for id_, name, _ in _usable(entry)]


class ItemWriter:
    """Writes the items of a log."""

    def __init__(self, read_blob: ReadBlob, apart: Set[EntryId]) -> None:
        self.instructions: str | None = None
        self.is_text = False  # whether the input was a text, and no list
        self._items: list[JSON] = []
        self._read_blob = read_blob
        self._ids = CallIds(r"[^\0]{1,64}")
        self._kinds: dict[tuple[EntryId, int], str] = {}
        self._taken: set[str] = set()
        self._reasoned: set[str] = set()  # ids of the reasoning so far
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
                attached = (self._piece(part, "tool") for part in entry.parts if is_attachment(part))
                said = {"type": "input_text", "text": item.introduction + entry.text}
                pieces = [said, *(_of_message(piece) for piece in attached if piece is not None)]
                self._put([{"role": "user", "content": _content(pieces, None)}])
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
        kept = NATIVE.whole_of(entry.parts)
        first = not self._items and self.instructions is None
        if entry.role == "system" and kept.get("place") == "instructions" and first:
            self.instructions = entry.text
            return
        parts = list(NATIVE.said(entry.parts))
        own = NATIVE.block_of(parts[0]) if len(parts) == 1 else None
        if entry.role == "user" and isinstance(own, dict) and not kept:
            self._put(self._own_input(entry, own))
            return
        self.is_text = self.is_text or kept.get("place") == "input"
        pieces = [piece for part in parts if (piece := self._piece(part, entry.role)) is not None]
        fields = {k: v for k, v in mapping(kept.get("fields")).items() if k not in ("role", "content")}
        fields = fields if fields.get("type", "message") == "message" else {}
        name = kept.get("role")
        role = name if isinstance(name, str) and ROLES.get(name) == entry.role else entry.role
        self._put([{**fields, "role": role, "content": _content(pieces, kept.get("content"))}])

    def _own_input(self, entry: Entry, item: JSON) -> list[JSON]:
        """An item of its own kind among the inputs, or a piece that stands alone."""
        if type_of(item) in PIECES:
            piece = self._piece(NATIVE.block(item), "user")
            return [{"role": "user", "content": [piece]}] if piece is not None else []
        if not type_of(item) or type_of(item) in ("message", "piece") or is_output(item, False) or is_result(item):
            return []
        (item,) = restore([item], entry.hidden, PLACES)
        if type_of(item) == "item_reference" and not isinstance(item.get("id"), str):
            return []
        return [item]

    def _piece(self, part: Part, role: str) -> JSON:
        if isinstance(part, (Text, ToolResult)):
            rest = {k: v for k, v in NATIVE.rest_of(part).items() if k not in ("item", "joined", "form", "piece")}
            return {**rest, "type": "input_text", "text": part.text}
        if role == "system" or not is_attachment(part):
            return None
        own = NATIVE.block_of(part)
        if isinstance(own, dict):
            good = type_of(own) and not type_of(own).startswith("output_") and type_of(own) not in ("refusal", "piece")
            return own if good and (type_of(own) != "input_text" or isinstance(own.get("text"), str)) else None
        picture = picture_of(part, self._read_blob)
        if picture is None:
            return {"type": "input_text", "text": note_of(part)}
        return {"type": "input_image", "image_url": picture.as_url, "detail": "auto"}

    def _answer(self, entry: Entry) -> None:
        items = restore(self._made(entry), entry.hidden, PLACES)
        stripped = any(type_of(item) == "reasoning" and not _is_whole(item) for item in items)
        self._lacks_reasoning = self._lacks_reasoning or entry.id in self._apart
        kept: list[JSON] = []
        for item in items:
            if item is None or not _is_whole(item):
                continue
            if type_of(item) == "reasoning":
                item = self._once(item)
                self._lacks_reasoning = item is None or not isinstance(item.get("id"), str)
            elif stripped or self._lacks_reasoning:  # the server would miss the reasoning that belongs to it
                item = {key: value for key, value in item.items() if key != "id"}
            kept += [] if item is None else [item]
        self._lacks_reasoning = self._lacks_reasoning or stripped
        while kept and type_of(kept[-1]) == "reasoning":
            kept.pop()
            self._lacks_reasoning = True
        if kept and not self._items and is_generated(entry):
            self._put([{"role": "user", "content": CONTINUE}])
        self._put(kept)

    def _once(self, reasoning: JSON) -> JSON:
        """Reasoning without an id that stands before already; None where nothing would be left of it."""
        id_ = reasoning.get("id")
        if not isinstance(id_, str) or id_ not in self._reasoned | self._taken:
            self._reasoned |= {id_} if isinstance(id_, str) else set()
            return reasoning
        if not isinstance(reasoning.get("encrypted_content"), str):
            return None
        return {key: value for key, value in reasoning.items() if key != "id"}

    def _made(self, entry: Entry) -> list[JSON]:
        """The items of an answer, as they were before what is hidden was cut out; None for what is not written."""
        items: list[JSON] = []
        index = 0
        for part in NATIVE.said(entry.parts):
            rest = NATIVE.rest_of(part)
            block = mapping(NATIVE.block_of(part))
            call = call_of(part)
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
        if kind not in WORDS:
            own = mapping(NATIVE.block_of(answer.parts[0])) if answer and answer.parts else {}
            if type_of(own) == head["type"]:
                return {**own, **head}
            return {**head, **_OUTPUTS[kind](answer.text if answer else NO_RESULT)}
        if answer is None:
            return {**head, "output": NO_RESULT}
        kept = NATIVE.whole_of(answer.parts)
        pieces = [p for part in NATIVE.said(answer.parts) if (p := self._piece(part, "tool")) is not None]
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


def _of_message(piece: Mapping[str, JSON]) -> dict[str, JSON]:
    """A piece of an output as it stands in a message, whose pictures name their detail."""
    return {"detail": "auto", **piece} if type_of(piece) == "input_image" else dict(piece)


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
        return {**mapping(NATIVE.block_of(part)), "call_id": id_}
    rest = mapping(NATIVE.rest_of(part).get("item"))
    name = NAMES.of(part.name)
    return {**rest, "type": kind, "call_id": id_, "name": name, WORDS[kind]: part.arguments}


def _is_own_output(item: JSON) -> bool:
    """Whether a kept item may stand in an answer as it is; calls and messages are written anew."""
    kind = type_of(item)
    empty = kind == "message" and item.get("role") == "assistant" and item.get("content") == []
    return empty or (bool(kind) and kind not in ("message", "piece", *WORDS, *RUN_BY_APP, *INPUT, *PIECES)
                     and not is_result(item) and kind != "refusal")  # fmt: skip


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
