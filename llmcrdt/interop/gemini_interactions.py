"""``gemini-interactions``: the steps of Google's Interactions API <-> entries.

A request is ``{"model": ..., "input": [...], "system_instruction": ..., "tools": [...], ...}``; the bare list is that
of steps. An input that is a text, or a list of contents, is written as the one step that it is. All that a model put
out between two inputs is one entry: its thoughts, outputs, calls and all other steps, in their order. Each result of a
function is an entry, and so is each input of the user's.

Hidden fields: signatures of steps. A thought without its signature is left out, and so is a step of the server's that
had one, with the step that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from ..document.canonical import JSON, exact_json
from ..document.entry import Config, Entry, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult
from ..document.repairs import NO_RESULT, Call, Late, Result, Said, with_results
from ..document.summaries import is_shown
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written
from .handles import Kept, handle_name
from .hiding import ANY, Place, hidden_fields, hide, restore, type_of
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import is_attachment, note_of, picture_of
from .streams.interactions import InteractionsStream
from .tool_names import NAMES_REPAIRED, NameForm, ToolNames, renamed_at
from .turns import (
    CONTINUE,
    INSTRUCTIONS,
    CallIds,
    Function,
    functions,
    is_generated,
    object_of,
    outline_of_input,
    settings_of,
)

_NATIVE = Native("gemini-interactions")
_KEPT_FOR = 86_400.0
_HANDLES = ("previous_interaction_id", "continuation_token", "cached_content")
_SETTINGS = ("system_instruction", "generation_config", "previous_interaction_id", "response_modalities", "agent")
_INPUT = ("user_input", "function_result")
_CONTENTS = ("text", "image", "document", "audio", "video")
_NAMES = NameForm(signs="[a-zA-Z0-9_.:-]", first="[a-zA-Z_]")
_HIDDEN = "gemini-interactions/signatures"
_PLACES = (Place(_HIDDEN, ANY, ("signature",)),)


class GeminiInteractions(Format):
    """Google's Interactions API."""

    name = "gemini-interactions"
    provider = "google"
    member: ClassVar[str] = "input"
    rules = (
        Rule(
            "every call gets one result",
            "No function_result for function_call",
            "a missing result is made up, a late one becomes an input of the user's",
            quoted=False,
        ),
        Rule(
            "a result follows its call",
            "No function_call for function_result",
            "it becomes an input of the user's",
            quoted=False,
        ),
        Rule("ids of calls differ", "Duplicate id of a function_call", "a new id", quoted=False),
        Rule("names of functions have a form", "Invalid function name", NAMES_REPAIRED),
        Rule(
            "names of functions differ", "Duplicate function declaration", "the first one of a name stays", quoted=False
        ),
        Rule(
            "arguments are an object", "function_call.arguments: must be an object", "text stands in one", quoted=False
        ),
        Rule("thoughts are signed", "thought.signature: is missing", "left out", quoted=False),
        Rule(
            "a step of the server's has its other half",
            "belongs to no step before it",
            "both are left out where the signature of one does not go out",
            quoted=False,
        ),
        Rule(
            "contents have what their type wants", "content: is invalid", "left out, or a note about it", quoted=False
        ),
        Rule(
            "a request ends with an input",
            "the last step is the model's",
            "one is made up, and stays when the answer has come",
            quoted=False,
        ),
        Rule("the first step is an input", "the first step is the model's", "one is made up", quoted=False),
        Rule("there is an input", "input: is missing", "one is made up", quoted=False),
        Rule("instructions are a member of their own", "", "those that come later become an input of the user's"),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return (handle_name(self.name), _HIDDEN)

    # -- reading

    def detect(self, about: Survey) -> int:
        if about.base not in (None, "input"):
            return 0
        whole = about.base == "input" or (not about.listed and isinstance(about.whole.get("input"), str))
        if whole and any(key in about.whole for key in _SETTINGS):
            return 95
        return 95 if about.listed and any(map(_is_known, about.sample)) else 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        hint = "Pass the list of steps, or a text."
        return outline_of_input(about, provider or self.provider, self.key, "system_instruction", _read_tools, hint)

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        steps = list_at(response.get("steps"), "steps")
        items = [(f"steps[{i}]", object_at(step, f"steps[{i}]")) for i, step in enumerate(steps)]
        asked = max((i for i, (_, step) in enumerate(items) if type_of(step) in _INPUT), default=-1)  # an echo
        return Answer(items[asked + 1 :], response.get("model"), response.get("usage"), response.get("status"))

    def stream(self) -> InteractionsStream:
        return InteractionsStream()

    # -- state that the server keeps

    def kept(self, sent: Mapping[str, JSON], response: Mapping[str, JSON]) -> Kept | None:
        id_ = response.get("id")
        return Kept(id_, _KEPT_FOR) if isinstance(id_, str) and id_ and sent.get("store") is not False else None

    def continued(self, body: Mapping[str, JSON], id: str, new: list[JSON]) -> dict[str, JSON]:
        return {**body, "previous_interaction_id": id, "input": new}

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        writer = _Writer(read_blob)
        for item in with_results(filter(is_shown, entries), _calls_of):
            writer.add(item)
        settings = settings_of(entries, self.key)
        body: dict[str, JSON] = {name: value for name, value in settings.whole.items() if name not in _HANDLES}
        if body.get("system_instruction") is not None:  # whoever wrote it there: it is none of the conversation's
            del body["system_instruction"]
        body |= {"model": model} if model else {}
        if writer.instructions is not None:
            body["system_instruction"] = writer.instructions
        own = settings.own_tools
        are_own = isinstance(own, list) and all(type_of(tool) for tool in own)
        names = ToolNames(_NAMES)
        declared = own if are_own else [_tool(function) for function in functions(settings.tools)]
        tools = names.declare(declared, renamed_at(None, "function"))
        if tools:
            body["tools"] = tools
        log = writer.steps
        body["input"] = log if log and type_of(log[-1]) in _INPUT else [*log, _said(CONTINUE)]
        return Written(log, body, names.true)


def _said(text: str) -> dict[str, JSON]:
    return {"type": "user_input", "content": [{"type": "text", "text": text}]}


def _is_known(step: JSON) -> bool:
    """Whether an item is a step of this API, and of no other one."""
    kind = type_of(step)
    if kind == "function_call":
        return isinstance(step.get("arguments"), dict)
    return kind in ("user_input", "model_output", "thought", "function_result")


def _read_tools(tools: JSON) -> list[JSON]:
    made: list[JSON] = []
    for i, tool in enumerate(list_at(tools, "tools")):
        name, description = object_at(tool, f"tools[{i}]").get("name"), tool.get("description")
        if tool.get("type") == "function" and isinstance(name, str) and name:
            described = description if isinstance(description, str) else None
            made.append(Function(name, described, tool.get("parameters")).as_chat())
    return made


def _tool(function: Function) -> dict[str, JSON]:
    described = {} if function.description is None else {"description": function.description}
    schema = {"parameters": function.parameters} if isinstance(function.parameters, dict) else {}
    return {"type": "function", "name": function.name, **described, **schema}


def _is_output(step: JSON, in_run: bool) -> bool:
    """Whether a model made a step. One of an unknown type belongs to what stands before it."""
    kind = type_of(step)
    if kind in _INPUT or kind in _CONTENTS:
        return False
    return kind in ("model_output", "thought") or kind.endswith(("_call", "_result")) or in_run


class _Reader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._calls: dict[str, int] = {}
        self._run: list[JSON] = []  # steps of the model's
        self._contents: list[JSON] = []  # of an input that is no list of steps
        self._path = ""

    def begin(self) -> Iterator[Draft]:
        system = mapping(self.outline.system)
        config = [Config(dict(self.outline.config))] if self.outline.config else []
        if "system_instruction" in system:
            yield Draft("system", (Text(system["system_instruction"]), *config))
        elif config:
            yield Draft("system", tuple(config))
        if "input" in system:
            yield Draft("user", (Text(system["input"]),))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        kind = text_at(item.get("type"), f"{path}.type")
        if _is_output(item, bool(self._run)):
            yield from self._ended(contents=True)
            self._path = self._path if self._run else path
            self._run.append(item)
        elif kind in _CONTENTS:
            yield from self._ended(run=True)
            self._contents.append(item)
            self._path = path
        else:
            yield from self.end()
            yield self._result(item, path) if kind == "function_result" else self._input(item, path)

    def end(self) -> Iterator[Draft]:
        return self._ended(run=True, contents=True)

    def _ended(self, *, run: bool = False, contents: bool = False) -> Iterator[Draft]:
        """All that was collected, as far as it has come to its end."""
        if run and self._run:
            steps, self._run = self._run, []
            cut, hidden = self._hide(steps)
            signed = {index for index, step in enumerate(steps) if isinstance(step.get("signature"), str)}
            parts: list[Part] = []
            for index, step in enumerate(cut):
                parts += _read_output(step, self._path, index in signed)
            self._calls.update({part.id: self.count for part in parts if isinstance(part, ToolCall)})
            yield Draft("assistant", tuple(parts), None, hidden)
        if contents and self._contents:
            found, self._contents = self._contents, []
            yield Draft("user", tuple(_read_contents(found, self._path, Text)))

    def _hide(self, steps: Sequence[JSON]) -> tuple[list[JSON], dict[str, HiddenField]]:
        cut, found = hide(steps, _PLACES)
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "gemini-interactions"}
        bound |= {"model": self.outline.model} if self.outline.model else {}
        return cut, hidden_fields(found, lambda name: bound)

    def _input(self, step: Mapping[str, JSON], path: str) -> Draft:
        if type_of(step) != "user_input":
            (cut,), hidden = self._hide([dict(step)])
            return Draft("user", (_NATIVE.block(cut), *_NATIVE.whole({"form": "step"})), None, hidden)
        rest = {key: value for key, value in step.items() if key not in ("type", "content")}
        parts = _read_contents(step.get("content"), f"{path}.content", Text)
        return Draft("user", (*parts, *_NATIVE.whole({"fields": rest} if rest else {})))

    def _result(self, step: Mapping[str, JSON], path: str) -> Draft:
        call = text_at(step.get("call_id"), f"{path}.call_id")
        if call not in self._calls:
            raise bad(f"{path}.call_id", f"is {call!r}, which no step before made", "Put the result after its call.")
        result, failed = step.get("result"), step.get("is_error") is True
        rest = {key: value for key, value in step.items() if key not in ("type", "call_id", "result")}
        kept: dict[str, JSON] = {"fields": rest} if rest else {}
        parts: list[Part]
        if isinstance(result, str):
            parts = [ToolResult(result, failed)]
        elif isinstance(result, list):
            kept["content"] = "list"
            parts = _read_contents(result, f"{path}.result", ToolResult, failed)
        else:
            extra = _NATIVE.extra({"result": object_at(result, f"{path}.result")})
            parts = [ToolResult(exact_json(result), failed, extra)]
        return Draft("tool", (*parts, *_NATIVE.whole(kept)), (self._calls[call], call))


def _read_contents(contents: JSON, path: str, kind: type[Text] | type[ToolResult], failed: bool = False) -> list[Part]:
    parts: list[Part] = []
    for i, content in enumerate(list_at(contents, path)):
        if text_at(object_at(content, f"{path}[{i}]").get("type"), f"{path}[{i}].type") == "text":
            extra = _NATIVE.extra({key: value for key, value in content.items() if key not in ("type", "text")})
            text = text_at(content.get("text"), f"{path}[{i}].text")
            parts.append(Text(text, extra) if kind is Text else ToolResult(text, failed, extra))
        else:
            parts.append(_NATIVE.block(content))
    return parts


def _read_output(step: JSON, path: str, signed: bool) -> list[Part]:
    """The parts of a step that a model made. Those of one step say "joined", but for the first."""
    kind = type_of(step)
    mark: dict[str, JSON] = {"signed": True} if signed else {}
    rest = {key: value for key, value in step.items() if key not in ("type", "content", "id", "name", "arguments")}
    if kind == "thought":
        summary = step.get("summary")
        texts = [mapping(one).get("text") for one in summary] if isinstance(summary, list) else []
        said = "\n".join(text for text in texts if isinstance(text, str))
        return [Reasoning(said, _NATIVE.extra({"step": step}))]
    if kind == "function_call":
        call, name = text_at(step.get("id"), f"{path}.id"), text_at(step.get("name"), f"{path}.name")
        given = exact_json(object_at(step.get("arguments"), f"{path}.arguments"))
        return [ToolCall(call, name, given, _NATIVE.extra({"step": rest, **mark} if rest else mark))]
    if kind != "model_output" or not isinstance(step.get("content"), list) or not step["content"]:
        return [_NATIVE.block({"type": "step", "step": step, **mark})]
    parts: list[Part] = []
    for i, content in enumerate(step["content"]):
        at = f"{path}.content[{i}]"
        of_text = text_at(object_at(content, at).get("type"), f"{at}.type") == "text"
        kept: dict[str, JSON] = {"joined": True} if parts else {"step": rest, **mark} if rest else dict(mark)
        if of_text:
            more = {key: value for key, value in content.items() if key not in ("type", "text")}
            extra = {**kept, **({"content": more} if more else {})}
            parts.append(Text(text_at(content.get("text"), f"{at}.text"), _NATIVE.extra(extra)))
        else:
            parts.append(_NATIVE.block({"type": "content", "content": content, **kept}))
    return parts


# -- writing


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


class _Writer:
    """Writes the steps of a log."""

    def __init__(self, read_blob: ReadBlob) -> None:
        self.steps: list[JSON] = []
        self.instructions: str | None = None
        self._read_blob = read_blob
        self._ids = CallIds(r"[^\0]+")

    def add(self, item: Said | Result | Late) -> None:
        match item:
            case Result(call, answer):
                self.steps.append(self._result(call, answer))
            case Late(entry, _):
                attached = (self._content(part, "tool") for part in entry.parts if is_attachment(part))
                told = _said(item.introduction + entry.text)
                told["content"] += [content for content in attached if content is not None]
                self.steps.append(told)
            case Said(entry) if entry.role == "assistant":
                self._answer(entry)
            case Said(entry):
                self._say(entry)

    def _say(self, entry: Entry) -> None:
        if entry.role == "system":
            if self.steps:
                self.steps += [_said(INSTRUCTIONS + entry.text)] if entry.text else []
            elif self.instructions is None:
                self.instructions = entry.text
            else:
                self.instructions += "\n\n" + entry.text
            return
        kept = _NATIVE.whole_of(entry.parts)
        parts = list(_NATIVE.said(entry.parts))
        if kept.get("form") == "step" and len(parts) == 1:
            own = _NATIVE.block_of(parts[0])
            unknown = bool(type_of(own)) and type_of(own) not in (*_INPUT, *_CONTENTS) and not _is_output(own, False)
            self.steps += restore([own], entry.hidden, _PLACES) if unknown else []
            return
        contents = [content for part in parts if (content := self._content(part, entry.role)) is not None]
        fields = {k: v for k, v in mapping(kept.get("fields")).items() if k not in ("type", "content", "signature")}
        if contents:
            self.steps.append({**fields, "type": "user_input", "content": contents})

    def _content(self, part: Part, role: str) -> JSON:
        if isinstance(part, (Text, ToolResult)):
            rest = {k: v for k, v in _NATIVE.rest_of(part).items() if k not in ("step", "joined", "content", "result")}
            return {**rest, "type": "text", "text": part.text}
        if not is_attachment(part):
            return None
        own = _NATIVE.block_of(part)
        if own is not None:
            return own if _is_content(own) else None
        picture = picture_of(part, self._read_blob)
        if picture is None:
            return {"type": "text", "text": note_of(part)}
        if picture.url:
            return {"type": "image", "uri": picture.url}
        return {"type": "image", "data": picture.data, "mime_type": picture.media_type}

    def _answer(self, entry: Entry) -> None:
        made = self._made(entry)
        steps = restore([step for step, _ in made], entry.hidden, _PLACES)
        out = _whole(steps, [signed for _, signed in made])
        if not out:
            return
        generated = is_generated(entry)
        if not self.steps or (type_of(self.steps[-1]) not in _INPUT and generated):
            self.steps.append(_said(CONTINUE))
        self.steps += out

    def _made(self, entry: Entry) -> list[tuple[JSON, bool]]:
        """The steps of an answer, as they were before their signatures were cut out, each with whether it had one; None
        for what is not written."""
        made: list[tuple[JSON, bool]] = []
        calls = 0
        for part in _NATIVE.said(entry.parts):
            rest, block = _NATIVE.rest_of(part), mapping(_NATIVE.block_of(part))
            signed = (rest or block).get("signed") is True
            if isinstance(part, ToolCall) and part.name:
                named = {"id": self._ids.give(entry.id, calls, part.id), "name": _NAMES.of(part.name)}
                calls += 1
                own = mapping(rest.get("step"))
                made.append(({**own, "type": "function_call", **named, "arguments": object_of(part.arguments)}, signed))
            elif isinstance(part, Text):
                content = {**mapping(rest.get("content")), "type": "text", "text": part.text}
                _add_content(made, content, rest, signed)
            elif type_of(block) == "content":
                _add_content(made, block.get("content"), block, signed)
            elif isinstance(part, Reasoning):
                step = mapping(rest.get("step"))
                made.append((step if type_of(step) == "thought" else None, signed))
            else:
                step = mapping(block.get("step"))
                made.append((step if type_of(block) == "step" and _is_kept_whole(step) else None, signed))
        return made

    def _result(self, call: Call, answer: Entry | None) -> JSON:
        head: dict[str, JSON] = {"type": "function_result", "call_id": self._ids.of(call.entry, call.index)}
        if answer is None:
            return {**head, "result": NO_RESULT, "is_error": True}
        kept = _NATIVE.whole_of(answer.parts)
        fields = {
            k: v for k, v in mapping(kept.get("fields")).items() if k not in ("type", "call_id", "result", "signature")
        }
        if not isinstance(fields.get("name", ""), str):
            del fields["name"]
        results = [part for part in answer.parts if isinstance(part, ToolResult)]
        if results and all(part.error for part in results):
            fields["is_error"] = True
        elif fields.get("is_error", False) is not False:
            del fields["is_error"]
        own = _NATIVE.rest_of(results[0]).get("result") if len(results) == 1 else None
        if isinstance(own, dict):
            return {**fields, **head, "result": own}
        contents = [c for part in _NATIVE.said(answer.parts) if (c := self._content(part, "tool")) is not None]
        plain = kept.get("content") != "list" and all(content.keys() == {"type", "text"} for content in contents)
        return {**fields, **head, "result": "".join(one["text"] for one in contents) if plain else contents}


def _add_content(made: list[tuple[JSON, bool]], content: JSON, kept: Mapping[str, JSON], signed: bool) -> None:
    """Add a content of an answer to its step, or begin one."""
    joined = kept.get("joined") is True
    if not _is_content(content):
        made += [] if joined else [(None, signed)]
        return
    last = made[-1][0] if made else None
    if joined and isinstance(last, dict) and type_of(last) == "model_output" and isinstance(last.get("content"), list):
        made[-1] = ({**last, "content": [*last["content"], content]}, made[-1][1])
        return
    made.append(({**mapping(kept.get("step")), "type": "model_output", "content": [content]}, signed))


def _is_content(content: JSON) -> bool:
    """Whether a content has what its type wants."""
    kind = type_of(content)
    if kind == "text":
        return isinstance(content.get("text"), str)
    if kind not in _CONTENTS:
        return bool(kind) and kind not in _INPUT and not _is_output(content, False)
    members = [content[key] for key in ("data", "uri") if key in content]
    return bool(members) and all(isinstance(one, str) for one in (*members, content.get("mime_type", "")))


def _is_kept_whole(step: Mapping[str, JSON]) -> bool:
    """Whether a step may stand in an answer as it was kept; the others are written anew."""
    kind = type_of(step)
    if kind == "model_output":
        return not step.get("content")
    return bool(kind) and kind not in (*_INPUT, *_CONTENTS, "function_call", "thought")


def _whole(steps: Sequence[JSON], signed: Sequence[bool]) -> list[JSON]:
    """The steps of an answer that have all that the API wants of them. ``signed``: which of them had a signature."""
    lacking = {_pair_of(step) for step, was in zip(steps, signed, strict=True) if was and not _is_signed(step)}
    begun: set[JSON] = set()
    out: list[JSON] = []
    for step in steps:
        kind = type_of(step)
        if step is None or (kind == "thought" and not _is_signed(step)):
            continue
        if kind != "function_call" and kind.endswith(("_call", "_result")):
            pair = _pair_of(step)
            if pair is None or pair in lacking or kind.endswith("_call") == (pair in begun):
                continue
            begun.add(pair)
        out.append(step)
    return out


def _is_signed(step: JSON) -> bool:
    return isinstance(mapping(step).get("signature"), str)


def _pair_of(step: JSON) -> str | None:
    """The id by which a call of the server's and its result belong together."""
    named = mapping(step).get("id" if type_of(step).endswith("_call") else "call_id")
    return named if isinstance(named, str) else None
