"""``codex``: the rollouts of Codex, a file of lines for each session.

A line is ``{"timestamp", "type", "payload"}``. Those of type ``response_item`` are items of the Responses API, whose
reader (``openai_responses``) reads them; ``session_meta`` names the session and its instructions, ``turn_context``
the model. In older files the first line is the session, and each other one an item.

Events for a screen, contexts, compactions and all else are kept and not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..document.canonical import JSON
from ..exceptions import FormatError
from .format import Draft, Outline
from .hiding import type_of
from .native import mapping
from .openai_responses import OpenAIResponses
from .source import File, Line, Notes, Source, Tell, Told, in_a_row, kept_beside, lines_of, parsed_line, text_or_none

_NAME = "codex"
_FORMAT = OpenAIResponses()
_KINDS = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
_NAMED = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_NOT_SAID = ("ghost_snapshot", "compaction_trigger")


class Codex(Source):
    """Rollouts of Codex."""

    name = _NAME
    provider = "openai"
    ends = (".jsonl",)

    def detect(self, file: File) -> int:
        for row in file.rows:
            if row.get("type") in _KINDS and isinstance(row.get("payload"), dict):
                return 90
            if _is_old_meta(row):
                return 80
        return 0

    def conversations(self, file: File, provider: str | None, tell: Tell) -> Iterator[Told]:
        yield _Rollout(file, provider or self.provider).told()


def _is_old_meta(row: Mapping[str, JSON]) -> bool:
    keys = row.keys()
    return isinstance(row.get("id"), str) and "type" not in keys and {"timestamp", "instructions"} <= keys


class _Rollout:
    """One file."""

    def __init__(self, file: File, provider: str) -> None:
        self._file, self._provider = file, provider
        self._notes = Notes()
        self._shown: set[int] = set()
        self._at = 0

    def told(self) -> Told:
        metas = (meta for _, row in self._rows(named=False) if (meta := _meta_of(row)) is not None)
        meta = next((meta for meta in metas if text_or_none(meta.get("id"))), {})
        named = _NAMED.search(Path(self._file.path).stem)  # where the line that says it is damaged
        id_ = text_or_none(meta.get("id")) or (named[0] if named else None)
        if id_ is None:
            raise FormatError("No line names the session.", hint="Give a file of ~/.codex/sessions, with its name.")
        steps = in_a_row(self._drafts(_instructions(meta)))
        return Told(id_, None, self._file.size, steps, self._beside(), self._notes, lambda: self._at)

    def _rows(self, *, named: bool) -> Iterator[tuple[Line, Mapping[str, JSON]]]:
        """The lines that can be read. ``named``: name the others."""
        with open(self._file.path, "rb") as opened:
            for line in lines_of(opened, self._file.size):
                try:
                    yield line, parsed_line(line.raw)
                except FormatError as error:
                    if named:
                        self._notes.refuse(line.name, error)

    def _drafts(self, instructions: str | None) -> Iterator[Draft]:
        outline = Outline(None, self._provider, system={"instructions": instructions} if instructions else {})
        reader = _FORMAT.reader(outline)
        calls: set[str] = set()

        def counted(drafts: Iterator[Draft]) -> Iterator[Draft]:
            for draft in drafts:
                reader.count += 1
                yield draft

        yield from counted(reader.begin())
        for line, row in self._rows(named=True):
            if row.get("type") == "turn_context":
                model = text_or_none(mapping(row.get("payload")).get("model"))
                if model != reader.outline.model:
                    yield from counted(reader.end())
                    reader.outline = replace(reader.outline, model=model)
            self._at = line.start
            item = _item_of(row)
            if item is None:
                continue
            try:
                _check(item, calls, self._provider)
            except FormatError as error:
                self._notes.refuse(line.name, error)
                continue
            call = text_or_none(item.get("call_id"))
            if call and not type_of(item).endswith("_output"):
                calls.add(call)
            try:
                # An item that ends what the model said gives that first, so nothing of it is lost where it fails.
                yield from counted(reader.read(item, line.name))
                self._shown.add(line.start)
            except FormatError as error:
                self._notes.refuse(line.name, error)
        yield from counted(reader.end())

    def _beside(self) -> Iterator[Draft]:
        return kept_beside(_NAME, self._kept())

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        for line, row in self._rows(named=False):
            if line.start not in self._shown:
                inner = type_of(row.get("payload"))
                kind = text_or_none(row.get("type")) or text_or_none(row.get("record_type")) or "session_meta"
                self._notes.kept[f"{kind} {inner}".strip()] += 1
                yield kind, dict(row)


def _meta_of(row: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
    if row.get("type") == "session_meta":
        return mapping(row.get("payload"))
    return row if _is_old_meta(row) else None


def _instructions(meta: Mapping[str, JSON]) -> str | None:
    base = mapping(meta.get("base_instructions")).get("text")
    return text_or_none(base) or text_or_none(meta.get("instructions"))


def _item_of(row: Mapping[str, JSON]) -> Mapping[str, JSON] | None:
    """The item that a line is, if it is one that was said."""
    inner = mapping(row.get("payload")) if row.get("type") == "response_item" else {}
    item = inner if "payload" in row else row
    kind = type_of(item)
    return item if kind and kind not in _NOT_SAID else None


def _check(item: Mapping[str, JSON], calls: set[str], provider: str) -> None:
    """Raises FormatError where an item can't be read: before the reader, which would lose those that it still holds."""
    kind, call = type_of(item), text_or_none(item.get("call_id"))
    if kind.endswith("_output") and call is not None:
        if call not in calls:
            raise FormatError(f"It answers the call {call!r}, which no line before made.", hint="It is kept.")
        return
    reader = _FORMAT.reader(Outline(None, provider))
    for _ in (*reader.read(item, ""), *reader.end()):
        pass
