"""``gemini``: the JSON of Google's generateContent <-> entries.

A request is ``{"systemInstruction": ..., "contents": [...], "tools": [...], ...}``; the bare list is that of contents.
Contents with responses of functions are an entry for each response, and one for what stands beside them. Calls have an
id of their own only where the file gives one; else responses answer calls in their order, by name.

Hidden fields: thought signatures, each on the part that it came with. A call that needs one and has none gets the value
that Google documents for histories of other models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from ..document.canonical import JSON, exact_json
from ..document.entry import Config, Entry, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult, Unknown
from ..document.repairs import NO_RESULT, Call, Late, Result, Said, with_results
from ..document.summaries import is_shown
from ..ids import EntryId
from .format import Answer, Draft, Format, Outline, ReadBlob, Reader, Rule, Survey, Written, only
from .hiding import ANY, Place, hidden_fields, hide, restore
from .json_input import bad, list_at, object_at, text_at
from .native import Native, mapping
from .pictures import beside_result, is_attachment, note_of, picture_of
from .streams.gemini import GeminiStream
from .tool_names import NAMES_REPAIRED, NameForm, Rename, ToolNames, renamed_at
from .turns import CONTINUE, INSTRUCTIONS, Function, functions, is_generated, object_of, settings_of, tools_config

_NATIVE = Native("gemini")
_SIGNATURE = "thoughtSignature"
_NO_SIGNATURE = "skip_thought_signature_validator"
_SYSTEM = ("systemInstruction", "system_instruction")
_HANDLES = ("cachedContent",)
_NAMES = NameForm(signs="[a-zA-Z0-9_.:-]", first="[a-zA-Z_]")
_RENAMED = renamed_at(None)
_PLACES = (Place("gemini/thoughts", ANY, (_SIGNATURE,)),)


class Gemini(Format):
    """Google's generateContent."""

    name = "gemini"
    provider = "google"
    member: ClassVar[str] = "contents"
    rules = (
        Rule(
            "a call comes after a turn of the user's",
            "Please ensure that function call turn comes immediately after a user turn",
            "a turn of the user's is made up",
        ),
        Rule(
            "as many responses as calls, right after them",
            "Please ensure that the number of function response parts is equal to the number of function call parts",
            "a missing response is made up, all stand in one content; a late one becomes a text of the user's",
        ),
        Rule(
            "a response follows its call",
            "Please ensure that function response turn comes immediately after a function call turn",
            "it becomes a text of the user's",
        ),
        Rule(
            "a request ends with a turn of the user's",
            "Please ensure that the last turn is a user turn",
            "a turn is made up, and stays when the answer has come",
            quoted=False,
        ),
        Rule(
            "the first turn is the user's",
            "Please ensure that the first turn is a user turn",
            "a turn is made up",
            quoted=False,
        ),
        Rule(
            "the first call of a step is signed",
            "is missing a `thought_signature`",
            f"{_NO_SIGNATURE} where the model asks for one, or the call is another provider's",
        ),
        Rule("parts hold something", "required oneof field 'data' must have one initialized field", "left out"),
        Rule("contents hold parts", "contents.parts must not be empty", "left out"),
        Rule("names of functions have a form", "Invalid function name", NAMES_REPAIRED),
        Rule("names of functions differ", "Duplicate function declaration found", "the first one of a name stays"),
        Rule("arguments are an object", "function_call.args: must be an object", "text stands in one", quoted=False),
        Rule("parts stand on their side", "Function calls are the model's", "left out", quoted=False),
        Rule("instructions are a member of their own", "", "those that come later become a text of the user's"),
    )

    @property
    def hidden_names(self) -> tuple[str, ...]:
        return tuple(place.name for place in _PLACES)

    # -- reading

    def detect(self, about: Survey) -> int:
        if not about.listed or about.base not in (None, "contents"):
            return 0
        contents = [item for item in about.sample if isinstance(item, dict)]
        known = bool(contents) and all(isinstance(item.get("parts"), list) for item in contents)
        return 90 if known else 40 if about.base == "contents" else 0

    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        whole = about.whole
        if about.base not in (None, "contents") or not about.listed:
            raise bad("contents", "is missing", 'Pass {"contents": [...]} or the list itself.')
        system = next((key for key in _SYSTEM if key in whole), None)
        if system:
            list_at(object_at(whole[system], system).get("parts"), f"{system}.parts")
        if all(key in whole for key in _SYSTEM):
            raise bad(_SYSTEM[1], f"stands beside {_SYSTEM[0]}", "Leave one of them out.")
        config: dict[str, JSON] = {}
        if "tools" in whole:
            config = tools_config(whole["tools"], _read_tools(whole["tools"]), self.key)
        model = whole.get("model")
        return Outline(
            about.base,
            provider or self.provider,
            config=config,
            extra={key: value for key, value in whole.items() if key not in ("tools", system)},
            system=(system, whole[system]) if system else None,
            model=model if isinstance(model, str) else None,
        )

    def reader(self, outline: Outline) -> Reader:
        return _Reader(outline)

    def answer(self, response: Mapping[str, JSON]) -> Answer:
        candidate = only(response.get("candidates"), "candidates")
        content = {"role": "model", **object_at(candidate.get("content"), "candidates[0].content")}
        model, usage = response.get("modelVersion"), response.get("usageMetadata")
        return Answer([("candidates[0].content", content)], model, usage, candidate.get("finishReason"))

    def stream(self) -> GeminiStream:
        return GeminiStream()

    # -- writing

    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        settings = settings_of(entries, self.key)
        body: dict[str, JSON] = {
            name: value for name, value in settings.whole.items() if name not in (*_HANDLES, *_SYSTEM)
        }
        body |= {"model": model} if model else {}
        writer = _Writer(read_blob, str(body.get("model", "")))
        for item in with_results(filter(is_shown, entries), _calls_of):
            writer.add(item)
        writer.finish()
        own = settings.own_tools
        are_own = isinstance(own, list) and all(isinstance(tool, dict) for tool in own)
        declared = [_tool(function) for function in functions(settings.tools)]
        names = ToolNames(_NAMES)
        tools = names.declare(own if are_own else [{"functionDeclarations": declared}] if declared else [], _renamed)
        if tools:
            body["tools"] = tools
        body = names.chosen(body, "toolConfig", "functionCallingConfig", "allowedFunctionNames")
        if writer.system is not None:
            body[writer.system_key] = writer.system
        log = writer.contents
        turn = {"role": "user", "parts": [{"text": CONTINUE}]}
        body["contents"] = log if log and log[-1].get("role") != "model" else [*log, turn]
        return Written(log, body, names.true)


def _renamed(tool: JSON, give: Rename) -> JSON:
    """A tool with the names of its functions changed; None where none of them is left, and nothing else."""
    declared = tool.get("functionDeclarations")
    if not isinstance(declared, list):
        return tool
    kept = [one for one in (_RENAMED(each, give) for each in declared) if one is not None]
    rest = {key: value for key, value in tool.items() if key != "functionDeclarations"}
    return {**tool, "functionDeclarations": kept} if kept else rest or None


def _read_tools(tools: JSON) -> list[JSON]:
    made: list[JSON] = []
    for i, tool in enumerate(list_at(tools, "tools")):
        declared = object_at(tool, f"tools[{i}]").get("functionDeclarations")
        for one in declared if isinstance(declared, list) else []:
            name, description = mapping(one).get("name"), mapping(one).get("description")
            parameters = mapping(one).get("parametersJsonSchema", mapping(one).get("parameters"))
            if isinstance(name, str) and name:
                made.append(Function(name, description if isinstance(description, str) else None, parameters).as_chat())
    return made


def _tool(function: Function) -> dict[str, JSON]:
    described = {} if function.description is None else {"description": function.description}
    schema = {"parametersJsonSchema": function.parameters} if isinstance(function.parameters, dict) else {}
    return {"name": function.name, **described, **schema}


class _Reader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._waiting: list[tuple[int, str, str, bool]] = []  # draft, id, name, whether the file gives the id

    def begin(self) -> Iterator[Draft]:
        config = [Config(dict(self.outline.config))] if self.outline.config else []
        if self.outline.system is not None:
            key, system = self.outline.system
            for i, part in enumerate(system["parts"]):
                text_at(object_at(part, f"{key}.parts[{i}]").get("text"), f"{key}.parts[{i}].text")
            parts, hidden = self._parts(system["parts"], f"{key}.parts", "user")
            rest = {name: value for name, value in system.items() if name != "parts"}
            kept = {"place": key, **({"fields": rest} if rest else {})}
            yield Draft("system", (*parts, *_NATIVE.whole(kept), *config), None, hidden)
        elif config:
            yield Draft("system", tuple(config))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        role = item.get("role", "user")
        if role not in ("user", "model", "function"):
            raise bad(f"{path}.role", f"is {role!r}", "Known roles are user, model, function.")
        fields = {key: value for key, value in item.items() if key not in ("role", "parts")}
        kept: dict[str, JSON] = {"fields": fields} if fields else {}
        if "role" not in item or role == "function":
            kept["role"] = item.get("role")
        listed = list_at(item.get("parts"), f"{path}.parts")
        for i, part in enumerate(listed):
            object_at(part, f"{path}.parts[{i}]")
        if role == "model":
            parts, hidden = self._parts(listed, f"{path}.parts", role)
            calls = [part for part in parts if isinstance(part, ToolCall)]
            given = [not _NATIVE.rest_of(call).get("no_id") for call in calls]
            self._waiting = [(self.count, c.id, c.name, g) for c, g in zip(calls, given, strict=True)]
            yield Draft("assistant", (*parts, *_NATIVE.whole(kept)), None, hidden)
            return
        run: list[JSON] = []
        for i, part in enumerate([*listed, None]):
            if run and (part is None or "functionResponse" in part):
                parts, hidden = self._parts(run, f"{path}.parts", role)
                yield Draft("user", (*parts, *_NATIVE.whole(kept)), None, hidden)
                run, kept = [], {"joined": True}
            if part is not None and "functionResponse" in part:
                yield self._response(part, kept, f"{path}.parts[{i}]")
                kept = {"joined": True}
            elif part is not None:
                run.append(part)

    def _parts(self, parts: Sequence[JSON], path: str, role: str) -> tuple[list[Part], dict[str, HiddenField]]:
        cut, found = hide(parts, _PLACES)
        signed = {at[0] for values in found.values() for at, _ in values}
        made: list[Part] = []
        calls = 0
        for i, part in enumerate(cut):
            made.append(_read_part(part, f"{path}[{i}]", role, i in signed, calls))
            calls += isinstance(made[-1], ToolCall)
        return made, hidden_fields(found, lambda name: self._binding())

    def _binding(self) -> dict[str, JSON]:
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "gemini"}
        return bound | ({"model": self.outline.model} if self.outline.model else {})

    def _response(self, part: Mapping[str, JSON], kept: Mapping[str, JSON], path: str) -> Draft:
        at = f"{path}.functionResponse"
        block = object_at(part["functionResponse"], at)
        name = text_at(block.get("name"), f"{at}.name")
        response = object_at(block.get("response"), f"{at}.response")
        found = [
            call
            for call in self._waiting
            if (call[1] == block["id"] if call[3] and "id" in block else call[2] == name and call[3] == ("id" in block))
        ]
        if not found:
            raise bad(at, f"answers no call of {name!r} of the content before", "Put the response after its call.")
        self._waiting.remove(found[0])
        if response.keys() == {"output"} and isinstance(response["output"], str):
            result = ToolResult(response["output"])
        elif response.keys() == {"error"} and isinstance(response["error"], str):
            result = ToolResult(response["error"], True)
        else:
            result = ToolResult(exact_json(response), extra=_NATIVE.extra({"response": response}))
        whole = dict(kept)
        shown: list[Part] = []
        rest = {key: value for key, value in block.items() if key not in ("id", "name", "response")}
        if isinstance(rest.get("parts"), list) and all(_is_shown_there(one) for one in rest["parts"]):
            shown = [_NATIVE.block(one) for one in rest["parts"]]
            rest = {key: value for key, value in rest.items() if key != "parts" or not shown}
        beside = {key: value for key, value in part.items() if key != "functionResponse"}
        whole |= ({"block": rest} if rest else {}) | ({"part": beside} if beside else {})
        return Draft("tool", (result, *shown, *_NATIVE.whole(whole)), (found[0][0], found[0][1]))


def _read_part(part: JSON, path: str, role: str, signed: bool, calls: int) -> Part:
    if "text" in part:
        text = text_at(part["text"], f"{path}.text")
        rest = {key: value for key, value in part.items() if key != "text"}
        if part.get("thought") is True and role == "model":
            return Reasoning(text, _NATIVE.extra(rest))
        return Text(text, _NATIVE.extra(rest))
    if "functionCall" in part and role == "model":
        at = f"{path}.functionCall"
        call = object_at(part["functionCall"], at)
        name = text_at(call.get("name"), f"{at}.name")
        given = object_at(call["args"], f"{at}.args") if "args" in call else {}
        kept: dict[str, JSON] = {"signed": signed}
        kept |= {} if "args" in call else {"no_args": True}
        id_ = f"call-{calls}"
        if "id" in call:
            id_ = text_at(call["id"], f"{at}.id")
        else:
            kept["no_id"] = True
        rest = {key: value for key, value in call.items() if key not in ("id", "name", "args")}
        beside = {key: value for key, value in part.items() if key != "functionCall"}
        kept |= ({"call": rest} if rest else {}) | ({"part": beside} if beside else {})
        return ToolCall(id_, name, exact_json(given), _NATIVE.extra(kept))
    return _NATIVE.block(part)


# -- writing


def _calls_of(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in entry.tool_calls if call.name] if entry.role == "assistant" else []


class _Writer:
    """Writes the items of a log for a model, "" where nobody named one."""

    def __init__(self, read_blob: ReadBlob, model: str) -> None:
        self.contents: list[JSON] = []
        self.system: JSON = None
        self.system_key = _SYSTEM[0]
        self._read_blob = read_blob
        self._signs = "gemini-3" in model  # whether it asks for signatures on calls
        self._shows_within = self._signs or not model  # older models take no pictures within a response
        self._results: list[JSON] | None = None  # the parts of the content of responses that is being written
        self._shown: list[JSON] = []  # what stands behind them: the pictures of these results
        self._ids: dict[tuple[EntryId, int], str | None] = {}

    def add(self, item: Said | Result | Late) -> None:
        match item:
            case Result(call, answer):
                self._result(call, answer)
                return
            case Late(entry, _):
                self.finish()
                attached = [self._attachment(part) for part in entry.parts if is_attachment(part)]
                said = [{"text": item.introduction + entry.text}, *restore(attached, {}, _PLACES)]
                self._put("user", _valid(said, "user"), {})
            case Said(entry) if entry.role == "assistant":
                self.finish()
                self._answer(entry)
            case Said(entry):
                self.finish()
                self._say(entry)
        self._results = None

    def finish(self) -> None:
        """Put the pictures of results behind the last of them."""
        if self._results is not None:
            self._results += self._shown
        self._shown = []

    def _put(self, role: str, parts: list[JSON], kept: Mapping[str, JSON]) -> None:
        if not parts:
            return
        fields = {key: value for key, value in mapping(kept.get("fields")).items() if key not in ("role", "parts")}
        named: dict[str, JSON] = {"role": role}
        if role == "user" and "role" in kept:
            named = {} if kept["role"] is None else {"role": "function"} if self._results is parts else named
        self.contents.append({**fields, **named, "parts": parts})

    def _say(self, entry: Entry) -> None:
        kept = _NATIVE.whole_of(entry.parts)
        parts = _valid(restore(self._said(entry), entry.hidden, _PLACES), "user")
        if entry.role == "system":
            texts = [part for part in parts if "text" in part]
            if self.contents:
                said = "\n\n".join(part["text"] for part in texts)
                self._put("user", [{"text": INSTRUCTIONS + said}] if said else [], {})
            elif texts:
                fields = {key: value for key, value in mapping(kept.get("fields")).items() if key != "parts"}
                before = self.system["parts"] if self.system else []
                self.system_key = _SYSTEM[1] if kept.get("place") == _SYSTEM[1] else self.system_key
                self.system = {**fields, "parts": [*before, *texts]}
        elif parts and self._results is not None and kept.get("joined") is True:
            self._results += parts
        else:
            self._put("user", parts, kept)

    def _said(self, entry: Entry) -> list[JSON]:
        made: list[JSON] = []
        for part in _NATIVE.said(entry.parts):
            if isinstance(part, (Text, ToolResult)):
                made.append({**_beside(part), "text": part.text})
            elif entry.role == "user" and is_attachment(part):
                made.append(self._attachment(part))
            else:
                made.append(_NATIVE.block_of(part))
        return made

    def _attachment(self, part: Part) -> JSON:
        own = _NATIVE.block_of(part)
        if isinstance(own, dict):
            return own
        picture = picture_of(part, self._read_blob)
        if picture is None or (picture.url and picture.url.startswith("data:")):
            return {"text": note_of(part)}
        if picture.url:
            return {"fileData": {"mimeType": "image/*", "fileUri": picture.url}}
        return {"inlineData": {"mimeType": picture.media_type, "data": picture.data}}

    def _answer(self, entry: Entry) -> None:
        made: list[JSON] = []
        index = 0
        for part in _NATIVE.said(entry.parts):
            match part:
                case Text():
                    made.append({**_beside(part), "text": part.text})
                case Reasoning():
                    rest = _NATIVE.rest_of(part)
                    made.append({**rest, "text": part.text} if rest.get("thought") is True else None)
                case ToolCall() if part.name:
                    made.append(_write_call(part))
                    id_ = made[-1]["functionCall"].get("id")
                    self._ids[entry.id, index] = id_
                    index += 1
                case Unknown():
                    block = _NATIVE.block_of(part)
                    made.append(block if isinstance(block, dict) else None)
                case _:
                    made.append(None)
        restored = restore(made, entry.hidden, _PLACES)
        self._sign(entry, restored)
        parts = _valid(restored, "model")
        if not parts:
            return
        generated = is_generated(entry)
        calls = any("functionCall" in part for part in parts)
        if not self.contents or (self.contents[-1].get("role") == "model" and (generated or calls)):
            self._put("user", [{"text": CONTINUE}], {})
        self._put("model", parts, _NATIVE.whole_of(entry.parts))

    def _sign(self, entry: Entry, parts: list[JSON]) -> None:
        """The first call of a step has its signature, or says that there is none."""
        said = list(_NATIVE.said(entry.parts))
        first = next((i for i, part in enumerate(parts) if part is not None and "functionCall" in part), None)
        if first is None or isinstance(parts[first].get(_SIGNATURE), str):
            return
        signed = _NATIVE.rest_of(said[first]).get("signed")
        if self._signs or signed is not False:
            parts[first] = {**parts[first], _SIGNATURE: _NO_SIGNATURE}

    def _result(self, call: Call, answer: Entry | None) -> None:
        kept = _NATIVE.whole_of(answer.parts) if answer else {}
        id_ = self._ids[call.entry, call.index]
        named: dict[str, JSON] = {"name": _NAMES.of(call.name), **({} if id_ is None else {"id": id_})}
        within, notes = self._attached(answer.parts if answer else (), call.name)
        block = {**mapping(kept.get("block")), **named, "response": _response_of(answer, notes)}
        if within:
            before = block.get("parts")
            block["parts"] = [*(before if isinstance(before, list) else []), *within]
        beside = {key: value for key, value in mapping(kept.get("part")).items() if not _is_payload(key)}
        part = {**beside, "functionResponse": block}
        if self._results is not None:
            self._results.append(part)
            return
        self._results = [part]
        self._put("user", self._results, kept)  # keeps the list itself, so that the next response joins it

    def _attached(self, parts: Sequence[Part], tool: str) -> tuple[list[JSON], str]:
        """Pictures that a response shows within it, and the notes in it; other pictures stand behind the responses."""
        within: list[JSON] = []
        notes = ""
        for part in parts:
            if not is_attachment(part):
                continue
            made = self._attachment(part)
            if not _is_shown_there(made):
                notes += note_of(part)
            elif self._shows_within or _NATIVE.block_of(part) is not None:
                within.append(made)
            else:
                self._shown += [{"text": beside_result(tool)}, made]
        return within, notes


def _is_shown_there(part: JSON) -> bool:
    """Whether a part may stand within the response of a function."""
    media = [isinstance(part.get(key), dict) for key in ("inlineData", "fileData")] if isinstance(part, dict) else []
    others = ("text", "functionCall", "functionResponse", _SIGNATURE)
    return any(media) and not any(key in part for key in others)


def _beside(part: Part) -> dict[str, JSON]:
    return {name: value for name, value in _NATIVE.rest_of(part).items() if not _is_payload(name)}


def _is_payload(key: str) -> bool:
    return key in ("text", "functionCall", "functionResponse", "inlineData", "fileData")


def _write_call(call: ToolCall) -> JSON:
    rest = _NATIVE.rest_of(call)
    named: dict[str, JSON] = {"name": _NAMES.of(call.name)}
    if rest and not rest.get("no_id") and call.id:
        named["id"] = call.id
    given = {} if rest.get("no_args") is True else {"args": object_of(call.arguments)}
    beside = {key: value for key, value in mapping(rest.get("part")).items() if not _is_payload(key)}
    return {**beside, "functionCall": {**mapping(rest.get("call")), **named, **given}}


def _response_of(answer: Entry | None, notes: str) -> JSON:
    if answer is None:
        return {"error": NO_RESULT}
    results = [part for part in answer.parts if isinstance(part, ToolResult)]
    own = _NATIVE.rest_of(results[0]).get("response") if len(results) == 1 else None
    if isinstance(own, dict):
        return own
    failed = bool(results) and all(part.error for part in results)
    return {"error" if failed else "output": answer.text + notes}


def _valid(parts: Sequence[JSON], role: str) -> list[JSON]:
    """The parts that the API takes of this side."""
    out: list[JSON] = []
    for part in parts:
        if not isinstance(part, dict) or not part:
            continue
        if "text" in part:
            said = isinstance(part["text"], str) and (part["text"] or isinstance(part.get(_SIGNATURE), str))
            out += [part] if said else []
        elif "functionResponse" in part or ("functionCall" in part and role != "model"):
            continue
        elif "functionCall" not in part or isinstance(mapping(part["functionCall"]).get("name"), str):
            out.append(part)
    return out
