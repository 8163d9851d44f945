"""The messages of a file -> drafts of entries."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import strptime

from ...document.canonical import JSON, exact_json
from ...document.entry import Config, HiddenField, Part, Reasoning, Text, ToolCall, ToolResult
from ..format import Draft, Outline, Reader
from ..hiding import hidden_fields, hide
from ..json_input import bad, object_at, text_at
from ..native import mapping
from ..turns import text_of_object
from .parts import CONTAINER, NATIVE, OF_FRAME, OF_MODEL, PLACES, ROLES, blocks_of, is_container


class MessageReader(Reader):
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
        if role not in ROLES:
            raise bad(f"{path}.role", f"is {role!r}", f"Known roles are {', '.join(ROLES)}.")
        form, blocks = blocks_of(item.get("content"), f"{path}.content")
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
        return bound | ({"model": model} if model and name in OF_MODEL else {})

    def _hide(self, blocks: Sequence[JSON], model: str | None) -> tuple[list[JSON], dict[str, HiddenField]]:
        cut, found = hide(blocks, PLACES)
        return cut, hidden_fields(found, lambda name: self._binding(name, model))

    def _said(
        self, role: str, form: str, blocks: Sequence[JSON], kept: Mapping[str, JSON], path: str, model: str | None
    ) -> Draft:
        kept = dict(kept)
        hidden: dict[str, HiddenField] = {}
        fields = dict(mapping(kept.get("fields")))
        if is_container(fields.get("container")):
            hidden[CONTAINER] = self._container(fields.pop("container"))
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
        bound = frozenset(more.keys() & OF_FRAME)
        return Draft(draft_role, (*parts, *NATIVE.whole(kept)), None, hidden | more, frame_bound=bound)  # type: ignore[arg-type]

    def _container(self, value: JSON) -> HiddenField:
        binding = self._binding(CONTAINER, None)
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
            _, blocks = blocks_of(cut["content"], f"{path}.content")
            parts = [
                ToolResult(inner["text"], error, NATIVE.extra(_rest(inner, "text")))
                if inner["type"] == "text"
                else NATIVE.block(inner)
                for inner in blocks
            ]
        rest = _rest(cut, "tool_use_id", "content")
        if rest:
            kept["block"] = rest
        return Draft("tool", (*parts, *NATIVE.whole(kept)), (self._calls[call], call), hidden)


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
        return Text(block["text"], NATIVE.extra(_rest(block, "text")))
    if kind == "compaction" and isinstance(block.get("content"), str) and role == "assistant":
        return Text(block["content"], NATIVE.extra({**_rest(block, "content"), "type": "compaction"}))
    if kind == "thinking" and role == "assistant":
        return Reasoning(block["thinking"], NATIVE.extra(_rest(block, "thinking")))
    if kind == "tool_use" and role == "assistant":
        id_, name = text_at(block.get("id"), f"{path}.id"), text_at(block.get("name"), f"{path}.name")
        given = object_at(block.get("input"), f"{path}.input")
        return ToolCall(id_, name, text_of_object(given), NATIVE.extra(_rest(block, "id", "name", "input")))
    return NATIVE.block(block)


def _as_text(parts: Sequence[Part]) -> str | None:
    """The text of content that is one plain text."""
    if len(parts) == 1 and isinstance(parts[0], Text) and not NATIVE.rest_of(parts[0]):
        return parts[0].text
    return None
