"""``ai-sdk``: UIMessages, as the AI SDK's chats send and keep them <-> entries.

A request is ``{"id": ..., "messages": [...], ...}``; the bare list is that of messages. A message of the assistant's
has the calls of tools with their results in one part, and goes on over several steps: it is an entry for each step,
and one for each result. Tools that the provider runs stay parts of the answer.

Hidden fields: the metadata of providers on parts, which the AI SDK gives to the provider that it names. All that one
message has of it goes out together; it is bound to the whole list before where a signature of Claude's is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..document.canonical import JSON, exact_json, parse_json
from ..document.entry import Entry, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult
from ..document.repairs import NO_RESULT, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..exceptions import InvalidContent
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from .hiding import ANY, Place, hidden_fields, hide, restore, type_of
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import beside_result, is_attachment, note_of, picture_of
from .streams.ai_sdk import UIMessageStream
from .turns import CONTINUE, INSTRUCTIONS, CallIds, object_of, settings_of

_NATIVE = Native("ai-sdk")
_ROLES = ("system", "user", "assistant")
_METADATA = ("providerMetadata", "callProviderMetadata", "resultProviderMetadata")
_HIDDEN = "ai-sdk/metadata"
_BEGUN, _ASKED, _RESPONDED = "input-streaming", "approval-requested", "approval-responded"
_DONE, _FAILED, _DENIED = "output-available", "output-error", "output-denied"
_STATES = (_BEGUN, "input-available", _ASKED, _RESPONDED, _DONE, _FAILED, _DENIED)
_REFUSED = "Tool execution denied."
_OF_CALL = (
    "type", "toolCallId", "toolName", "input", "output", "errorText", "state", "approval", "preliminary", "rawInput",
    "providerExecuted", *_METADATA,
)  # fmt: skip


def _is_metadata(value: JSON) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())


_PLACES = tuple(Place(_HIDDEN, ANY, (key,), _is_metadata) for key in _METADATA)


class AISDK(Format):
    """The AI SDK's UIMessages."""

    name = "ai-sdk"
    provider = "ai-sdk"
    member: ClassVar[str] = "messages"
    rules = (
        Rule(
            "every call has its result",
            "Tool result is missing for tool call",
            "it fails with a result that is made up, but for the last message of a list; a late one becomes a text of"
            " the user's",
        ),
        Rule("there are messages", "Messages array must not be empty", "a turn of the user's is made up"),
        Rule("messages have parts", "Message must contain at least one part", "left out"),
        Rule("parts have what their type wants", "Type validation failed", "left out"),
        Rule(
            "instructions come first",
            "system messages are only supported at the beginning of the conversation",
            "those that come later become a text of the user's",
        ),
        Rule("ids of messages differ", "Encountered two children with the same key", "a new id"),
        Rule("ids of calls differ", "Duplicate toolCallId", "a new id", quoted=False),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return (_HIDDEN,)

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base not in (None, "messages") or not about.sample:
            return 0
        for item in about.sample:
            message = mapping(item)
            parts = message.get("parts")
            if message.get("role") not in _ROLES or not isinstance(parts, list) or "content" in message:
                return 0
            if not all(type_of(part) for part in parts) or not (parts or isinstance(message.get("id"), str)):
                return 0
        return 95

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if about.base not in (None, "messages") or not about.listed:
            raise bad("messages", "is missing", 'Pass {"messages": [...]} or the list itself.')
        chat, model = whole.get("id"), whole.get("model")
        return Outline(
            about.base,
            provider or self.provider,
            source_id=chat if isinstance(chat, str) and chat else None,
            extra=dict(whole),
            model=model if isinstance(model, str) else None,
        )

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        return Answer([("", response)])

    def stream(self) -> UIMessageStream:
        return UIMessageStream()

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        writer = _Writer(read_blob)
        for item in with_results(filter(is_shown, entries), _calls_of):
            writer.add(item)
        body: dict[str, JSON] = {**settings_of(entries, self.key).whole, **({"model": model} if model else {})}
        log = writer.finished(waiting=True)
        body["messages"] = writer.finished(waiting=False) or [_MADE_UP]
        return Written(log, body)


_MADE_UP: Mapping[str, JSON] = {"id": "continue", "role": "user", "parts": [{"type": "text", "text": CONTINUE}]}


class _Reader(Reader):
    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        role = text_at(item.get("role"), f"{path}.role")
        if role not in _ROLES:
            raise bad(f"{path}.role", f"is {role!r}", f"Known roles are {', '.join(_ROLES)}.")
        parts = list_at(item.get("parts"), f"{path}.parts")
        for i, part in enumerate(parts):
            text_at(object_at(part, f"{path}.parts[{i}]").get("type"), f"{path}.parts[{i}].type")
        fields = {key: value for key, value in item.items() if key not in ("role", "parts")}
        kept: dict[str, JSON] = {"fields": fields} if fields else {}
        if role != "assistant":
            made, hidden, bound = self._parts(parts, f"{path}.parts", False)
            yield Draft(role, (*made, *_NATIVE.whole(kept)), None, hidden, frame_bound=bound)  # type: ignore[arg-type]
            return
        at = 0
        for step in _steps(parts):
            made, hidden, bound = self._parts(step, f"{path}.parts", True, at)
            place = self.count
            yield Draft("assistant", (*made, *_NATIVE.whole(kept)), None, hidden, frame_bound=bound)
            for part, call in zip(step, made, strict=True):
                if isinstance(call, ToolCall) and part["state"] in (_DONE, _FAILED, _DENIED):
                    yield Draft("tool", _read_result(part), (place, call.id))
            kept, at = {"joined": True}, at + len(step)

    def _parts(
        self, parts: Sequence[JSON], path: str, calls: bool, first: int = 0
    ) -> tuple[list[Part], dict[str, HiddenField], frozenset[str]]:
        cut, found = hide(parts, _PLACES)
        made = [_read_part(part, f"{path}[{first + i}]", calls) for i, part in enumerate(cut)]
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "ai-sdk"}
        bound |= {"model": self.outline.model} if self.outline.model else {}
        signed = any("signature" in mapping(value.get("anthropic")) for _, value in found.get(_HIDDEN, []))
        return made, hidden_fields(found, lambda name: bound), frozenset(found if signed else ())


def _steps(parts: Sequence[JSON]) -> Iterator[list[JSON]]:
    """The steps of an answer, each from its mark on; one at least."""
    step: list[JSON] = []
    for part in parts:
        if type_of(part) == "step-start" and step:
            yield step
            step = []
        step.append(part)
    yield step


def _read_part(part: JSON, path: str, calls: bool) -> Part:
    kind = type_of(part)
    if kind == "text" or (kind == "reasoning" and calls):
        extra = _NATIVE.extra({key: value for key, value in part.items() if key not in ("type", "text")})
        text = text_at(part.get("text"), f"{path}.text")
        return Text(text, extra) if kind == "text" else Reasoning(text, extra)
    if not calls or not _is_tool(kind) or part.get("providerExecuted") is True:
        return _NATIVE.block(part)
    call = text_at(part.get("toolCallId"), f"{path}.toolCallId")
    name = text_at(part.get("toolName"), f"{path}.toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
    state = text_at(part.get("state"), f"{path}.state")
    if state not in _STATES:
        raise bad(f"{path}.state", f"is {state!r}", f"Known states are {', '.join(_STATES)}.")
    if state == _FAILED:
        text_at(part.get("errorText"), f"{path}.errorText")
    # The result is an entry of its own.
    rest = {
        k: v for k, v in part.items() if k not in ("type", "toolCallId", "toolName", "input", "output", "errorText")
    }
    kept: dict[str, JSON] = {"part": rest, **({"dynamic": True} if kind == "dynamic-tool" else {})}
    kept |= {} if "input" in part else {"no_input": True}
    return ToolCall(call, name, exact_json(part.get("input")) if "input" in part else "", _NATIVE.extra(kept))


def _is_tool(kind: str) -> bool:
    return kind == "dynamic-tool" or (kind.startswith("tool-") and len(kind) > len("tool-"))


def _read_result(part: Mapping[str, JSON]) -> tuple[Part, ...]:
    if part["state"] == _FAILED:
        return (ToolResult(part["errorText"], True),)
    if part["state"] == _DENIED:
        reason = mapping(part.get("approval")).get("reason")
        return (ToolResult(reason if isinstance(reason, str) else _REFUSED, True), *_NATIVE.whole({"denied": True}))
    if isinstance(part.get("output"), str):
        return (ToolResult(part["output"]),)
    output = part.get("output")
    return (ToolResult(exact_json(output), extra=_NATIVE.extra({"output": output})),)


# -- writing


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


@dataclass
class _Step:
    """An entry in a message: ``parts``, as they stand but for the results of its calls; None for what is not written.
    ``calls``: where its calls stand among them, each with its own id."""

    entry: Entry
    parts: list[JSON] = field(default_factory=list)
    calls: list[tuple[int, ToolCall, str]] = field(default_factory=list)
    answers: dict[int, Entry] = field(default_factory=dict)

    def finished(self, *, waiting: bool) -> list[JSON]:
        """Its parts; ``waiting``: whether calls may go on to wait for a result."""
        parts = list(self.parts)
        for index, (at, call, id_) in enumerate(self.calls):
            parts[at] = _write_call(call, id_, self.answers.get(index), waiting)
        restored = restore(parts, self.entry.hidden, _PLACES)
        return [part for part in restored if part is not None and _is_valid(part)]


@dataclass
class _Message:
    id: str
    role: str
    fields: Mapping[str, JSON]
    steps: list[_Step]


class _Writer:
    """Writes the messages of a log."""

    def __init__(self, read_blob: ReadBlob) -> None:
        self._read_blob = read_blob
        self._messages: list[_Message] = []
        self._open: dict[str, _Step] = {}  # the steps whose calls may still be answered
        self._ids = CallIds(r"[^\0]+")
        self._taken: set[str] = {_MADE_UP["id"]}
        self._shown: list[JSON] = []  # pictures of results, which only users show: they stand behind the answer
        self._shown_by: Entry | None = None  # the first result with one
        self._begins = False  # whether an answer from here is the first message: a turn was made up for it

    def finished(self, *, waiting: bool) -> list[JSON]:
        """The whole log; ``waiting``: whether calls at its end may wait for a result."""
        made: list[JSON] = [_MADE_UP] if self._begins else []
        if not (waiting and self._waits()):  # else the results that are still to come stand before them
            self._show()
        for message in self._messages:
            last = message is self._messages[-1]
            parts = [
                part
                for step in message.steps
                for part in step.finished(waiting=waiting and last and step is message.steps[-1])
            ]
            if parts:
                made.append({**message.fields, "id": message.id, "role": message.role, "parts": parts})
        return made

    def _waits(self) -> bool:
        """Whether a call of the last answer has no result yet."""
        step = self._messages[-1].steps[-1] if self._messages else None
        return step is not None and len(step.answers) < len(step.calls)

    def _show(self) -> None:
        if self._shown_by is not None:
            self._put(replace(self._shown_by, hidden={}), "user", self._shown, {})
        self._shown, self._shown_by = [], None

    def add(self, item: Said | Result | Late) -> None:
        if not isinstance(item, Result):
            self._show()
        match item:
            case Result(call, answer):
                if answer is not None:
                    self._open[call.entry].answers[call.index] = answer
                    attached = self._attached(answer)
                    if attached:
                        self._shown += [{"type": "text", "text": beside_result(call.name)}, *attached]
                        self._shown_by = self._shown_by or answer
            case Late(entry, _):
                said = {"type": "text", "text": item.introduction + entry.text}
                self._put(replace(entry, hidden={}), "user", [said, *self._attached(entry)], {})
            case Said(entry) if entry.role == "assistant":
                self._answer(entry)
            case Said(entry):
                self._say(entry)

    def _put(self, entry: Entry, role: str, parts: list[JSON], kept: Mapping[str, JSON]) -> _Step:
        """A message of its own, with an id of its own."""
        fields = {k: v for k, v in mapping(kept.get("fields")).items() if k not in ("role", "parts")}
        id_ = fields.pop("id", None)
        if not isinstance(id_, str) or id_ in self._taken:
            id_ = entry.id
        step = _Step(entry, parts)
        if step.finished(waiting=True):
            self._taken.add(id_)
            self._messages.append(_Message(id_, role, fields, [step]))
        return step

    def _say(self, entry: Entry) -> None:
        kept = _NATIVE.whole_of(entry.parts)
        if entry.role == "system" and any(message.role != "system" for message in self._messages):
            text = [{"type": "text", "text": INSTRUCTIONS + entry.text}] if entry.text else []
            self._put(entry, "user", text, {})
            return
        parts: list[JSON] = []
        for part in _NATIVE.said(entry.parts):
            block = _own_block(part)
            if isinstance(part, (Text, ToolResult)):
                parts.append(_write_text(part, "text"))
            elif block is not None:
                parts.append(block)
            elif entry.role == "user" and is_attachment(part) and _NATIVE.block_of(part) is None:
                parts.append(self._attachment(part))
            else:
                parts.append(None)
        self._put(entry, entry.role, parts, kept)

    def _attached(self, result: Entry) -> list[JSON]:
        """All that a result shows beside its text, as parts of a user's message."""
        return [self._attachment(part) for part in result.parts if is_attachment(part)]

    def _attachment(self, part: Part) -> JSON:
        picture = picture_of(part, self._read_blob)
        if picture is None:
            return {"type": "text", "text": note_of(part)}
        return {"type": "file", "mediaType": picture.media_type or "image/*", "url": picture.as_url}

    def _answer(self, entry: Entry) -> None:
        kept = _NATIVE.whole_of(entry.parts)
        parts: list[JSON] = []
        calls: list[tuple[int, ToolCall, str]] = []
        for part in _NATIVE.said(entry.parts):
            if isinstance(part, ToolCall) and part.name:
                calls.append((len(parts), part, self._ids.give(entry.id, len(calls), part.id)))
                parts.append(_write_call(part, calls[-1][2], None, True))
            elif isinstance(part, (Text, Reasoning)):
                parts.append(_write_text(part, "text" if isinstance(part, Text) else "reasoning"))
            else:
                parts.append(_own_block(part))
        before = self._messages[-1] if self._messages else None
        imported = entry.frame is None or entry.frame.assumed
        if kept.get("joined") is True and imported and before is not None and before.role == "assistant":
            step = _Step(entry, parts)
            before.steps.append(step)
        else:
            step = self._put(entry, "assistant", parts, kept)
            self._begins = self._begins or (before is None and not imported and bool(self._messages))
        step.calls = calls
        self._open[entry.id] = step


def _own_block(part: Part) -> JSON:
    """The part that this format keeps in one of ours; a call in it is one that the provider runs."""
    block = _NATIVE.block_of(part)
    if not isinstance(block, dict) or (_is_tool(type_of(block)) and block.get("providerExecuted") is not True):
        return None
    return block


def _write_text(part: Text | ToolResult | Reasoning, kind: str) -> JSON:
    rest = {k: v for k, v in _NATIVE.rest_of(part).items() if k not in ("type", "text")}
    if rest.get("state", "done") not in ("done", "streaming"):
        del rest["state"]
    return {**rest, "type": kind, "text": part.text}


def _write_call(call: ToolCall, id_: str, answer: Entry | None, waiting: bool) -> JSON:
    """The part of a call with its result. Without one it waits, where that is allowed, or has failed."""
    kept = _NATIVE.rest_of(call)
    own = mapping(kept.get("part"))
    rest = {key: value for key, value in own.items() if key not in _OF_CALL}
    if not isinstance(rest.get("toolMetadata", {}), dict):
        del rest["toolMetadata"]
    kind = {"type": "dynamic-tool", "toolName": call.name} if kept.get("dynamic") is True else {}
    head: dict[str, JSON] = {**rest, "type": f"tool-{call.name}", **kind, "toolCallId": id_}
    if own.get("providerExecuted") is False:
        head["providerExecuted"] = False
    if kept.get("no_input") is not True:
        head["input"] = _input_of(call, bool(kept))
    state, approval = own.get("state"), _approval_of(own)
    approved = approval.get("approved")
    if answer is None and waiting:
        if state == _RESPONDED and isinstance(approved, bool):
            return {"input": {}, **head, "state": state, "approval": approval}
        if state == _ASKED and approval and "approved" not in approval:
            return {"input": {}, **head, "state": state, "approval": approval}
        return {**head, "state": state} if state == _BEGUN else {"input": {}, **head, "state": "input-available"}
    if answer is None:
        return {**head, "state": _FAILED, "errorText": NO_RESULT}
    if _NATIVE.whole_of(answer.parts).get("denied") is True and approved is False:
        return {"input": {}, **head, "state": _DENIED, "approval": approval}
    head |= {"approval": approval} if approved is True else {}
    results = [part for part in answer.parts if isinstance(part, ToolResult)]
    if results and all(part.error for part in results):
        raw = {"rawInput": own["rawInput"]} if "rawInput" in own else {}
        return {**head, **raw, "state": _FAILED, "errorText": answer.text}
    if isinstance(own.get("preliminary"), bool):
        head["preliminary"] = own["preliminary"]
    told = _NATIVE.rest_of(results[0]) if len(results) == 1 else {}
    return {"input": {}, **head, "state": _DONE, "output": told.get("output", answer.text)}


def _approval_of(part: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """The approval of a call, if it is one."""
    approval = mapping(part.get("approval"))
    good = isinstance(approval.get("id"), str) and isinstance(approval.get("reason", ""), str)
    good = good and isinstance(approval.get("isAutomatic", False), bool)
    if "approved" not in approval:
        good = good and "reason" not in approval
    return approval if good else {}


def _input_of(call: ToolCall, own: bool) -> JSON:
    """The input of a call: what its file had, an object otherwise."""
    if own:
        try:
            return parse_json(call.arguments)
        except InvalidContent:
            pass
    return object_of(call.arguments)


_SHAPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text",), ()),
    "reasoning": (("text",), ()),
    "custom": (("kind",), ()),
    "source-url": (("sourceId", "url"), ("title",)),
    "source-document": (("sourceId", "mediaType", "title"), ("filename",)),
    "file": (("mediaType", "url"), ("filename",)),
    "reasoning-file": (("mediaType", "url"), ()),
}
"""The members of each type that are texts: those that have to be there, and those that may be."""


def _is_valid(part: Mapping[str, JSON]) -> bool:
    """Whether a part has what its type wants. Parts of types that are not known here stay as they are."""
    kind = type_of(part)
    if not kind:
        return False
    if kind.startswith("data-"):
        return "data" in part and isinstance(part.get("id", ""), str)
    if kind == "dynamic-tool" or kind.startswith("tool-"):
        return _is_valid_call(part, kind)
    needed, possible = _SHAPES.get(kind, ((), ()))
    good = all(isinstance(part.get(key), str) for key in needed)
    good = good and all(isinstance(part.get(key, ""), str) for key in possible)
    return good and part.get("state", "done") in ("done", "streaming") if kind in ("text", "reasoning") else good


def _is_valid_call(part: Mapping[str, JSON], kind: str) -> bool:
    """A call of the app's was written here; one that the provider runs stands there as it came."""
    if part.get("providerExecuted") is not True:
        return True
    state, approval = part.get("state"), _approval_of(part)
    if "approval" not in part:
        asked = state in (_BEGUN, "input-available", _DONE, _FAILED)
    elif state == _ASKED:
        asked = bool(approval) and "approved" not in approval
    else:
        answers = {_RESPONDED: (True, False), _DENIED: (False,), _DONE: (True,), _FAILED: (True,)}
        asked = state in answers and approval.get("approved") in answers[state]
    named = kind != "dynamic-tool" or isinstance(part.get("toolName"), str)
    told = isinstance(part.get("errorText"), str) if state == _FAILED else "errorText" not in part
    silent = ("output" in part) == (state == _DONE) and ("input" in part or state in (_BEGUN, _FAILED))
    metadata = isinstance(part.get("toolMetadata", {}), dict) and isinstance(part.get("preliminary", True), bool)
    return named and isinstance(part.get("toolCallId"), str) and asked and told and silent and metadata
