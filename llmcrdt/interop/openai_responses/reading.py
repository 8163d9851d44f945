"""The items of a file -> drafts of entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...document.canonical import JSON
from ...document.entry import Config, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult
from ..format import Draft, Outline, Reader
from ..hiding import hidden_fields, hide, type_of
from ..json_input import bad, list_at, object_at, text_at
from ..native import mapping
from .parts import NATIVE, OF_MODEL, PLACES, ROLES, RUN_BY_APP, WORDS, call_of, is_output, is_result


class ItemReader(Reader):
    def __init__(self, outline: Outline) -> None:
        super().__init__(outline)
        self._calls: dict[str, int] = {}
        self._run: list[JSON] = []
        self._path = ""

    def begin(self) -> Iterator[Draft]:
        system = mapping(self.outline.system)
        config = [Config(dict(self.outline.config))] if self.outline.config else []
        if "instructions" in system:
            parts = [Text(system["instructions"]), *NATIVE.whole({"place": "instructions"}), *config]
            yield Draft("system", tuple(parts))
        elif config:
            yield Draft("system", tuple(config))
        if "input" in system:
            yield Draft("user", (Text(system["input"]), *NATIVE.whole({"place": "input"})))

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        if is_output(item, bool(self._run)):
            self._path = self._path if self._run else path
            self._run.append(item)
            return
        yield from self.end()
        if is_result(item):
            yield self._result(item, path)
        elif type_of(item) in ("", "message"):
            yield self._message(item, path)
        else:
            (cut,), hidden = self._hide([item])
            yield Draft("user", (NATIVE.block(cut),), None, hidden)

    def end(self) -> Iterator[Draft]:
        if self._run:
            run, self._run = self._run, []
            cut, hidden = self._hide(run)
            parts = [part for item in cut for part in _read_output(item, self._path)]
            for part in parts:
                if (call := call_of(part)) is not None:
                    self._calls[call[0]] = self.count
            yield Draft("assistant", tuple(parts), None, hidden)

    def _hide(self, items: Sequence[JSON]) -> tuple[list[JSON], dict[str, HiddenField]]:
        cut, found = hide(items, PLACES)
        return cut, hidden_fields(found, self._binding)

    def _binding(self, name: str) -> dict[str, JSON]:
        bound: dict[str, JSON] = {"provider": self.outline.provider, "api": "openai-responses"}
        return bound | ({"model": self.outline.model} if self.outline.model and name in OF_MODEL else {})

    def _result(self, item: Mapping[str, JSON], path: str) -> Draft:
        call = text_at(item.get("call_id"), f"{path}.call_id")
        if call not in self._calls:
            raise bad(f"{path}.call_id", f"is {call!r}, which no item before made", "Put the output after its call.")
        answers = (self._calls[call], call)
        if type_of(item).removesuffix("_output") not in WORDS:
            return Draft("tool", (NATIVE.block(dict(item)),), answers)
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
        return Draft("tool", (*parts, *NATIVE.whole(kept)), answers)

    def _message(self, item: Mapping[str, JSON], path: str) -> Draft:
        name = text_at(item.get("role"), f"{path}.role")
        if name not in ROLES:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are assistant, {', '.join(ROLES)}.")
        kept: dict[str, JSON] = {} if name == ROLES[name] else {"role": name}
        content = item.get("content")
        if isinstance(content, str):
            parts: list[Part] = [Text(content)]
        else:
            parts = _read_pieces(content, f"{path}.content", Text)
            kept["content"] = "list"
        rest = {key: value for key, value in item.items() if key not in ("role", "content")}
        if rest:
            kept["fields"] = rest
        return Draft(ROLES[name], (*parts, *NATIVE.whole(kept)))


def _read_pieces(pieces: JSON, path: str, kind: type[Text] | type[ToolResult]) -> list[Part]:
    parts: list[Part] = []
    for i, piece in enumerate(list_at(pieces, path)):
        if text_at(object_at(piece, f"{path}[{i}]").get("type"), f"{path}[{i}].type") == "input_text":
            text = text_at(piece.get("text"), f"{path}[{i}].text")
            rest = {key: value for key, value in piece.items() if key not in ("type", "text")}
            parts.append(kind(text, extra=NATIVE.extra(rest)))
        else:
            parts.append(NATIVE.block(piece))
    return parts


def _read_output(item: JSON, path: str) -> list[Part]:
    """The parts of an item that a model made. Those of one item say "joined", but for the first."""
    kind = type_of(item)
    if kind in ("", "message"):
        return _read_answer(item, path)
    if kind == "reasoning":
        texts = [mapping(one).get("text") for key in ("summary", "content") for one in _list(item.get(key))]
        said = "\n".join(text for text in texts if isinstance(text, str))
        return [Reasoning(said, NATIVE.extra({"item": item}))]
    if kind in WORDS:
        words = WORDS[kind]
        rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "name", words)}
        call, name = text_at(item.get("call_id"), f"{path}.call_id"), text_at(item.get("name"), f"{path}.name")
        kept = ({"item": rest} if rest else {}) | ({"kind": kind} if kind != "function_call" else {})
        given = text_at(item.get(words), f"{path}.{words}", "Arguments are JSON written as text, in quotes.")
        return [ToolCall(call, name, given, NATIVE.extra(kept))]
    if kind in RUN_BY_APP:
        text_at(item.get("call_id"), f"{path}.call_id")
    return [NATIVE.block(item)]


def _read_answer(item: JSON, path: str) -> list[Part]:
    rest = {key: value for key, value in item.items() if key not in ("role", "content")}
    kept: dict[str, JSON] = {"item": rest} if rest else {}
    content = item.get("content")
    if isinstance(content, str):
        return [Text(content, NATIVE.extra(kept))]
    pieces = list_at(content, f"{path}.content")
    if not pieces:
        return [NATIVE.block(item)]
    parts: list[Part] = []
    for i, piece in enumerate(pieces):
        at = f"{path}.content[{i}]"
        kind = text_at(object_at(piece, at).get("type"), f"{at}.type")
        kept = {**kept, "form": "list"} if not parts else {"joined": True}
        if kind == "output_text":
            more = {key: value for key, value in piece.items() if key not in ("type", "text")}
            extra = {**kept, **({"piece": more} if more else {})}
            parts.append(Text(text_at(piece.get("text"), f"{at}.text"), NATIVE.extra(extra)))
        else:
            parts.append(NATIVE.block({"type": "piece", "piece": piece, **kept}))
    return parts


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []
