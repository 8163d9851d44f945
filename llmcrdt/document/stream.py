"""Stream: an entry while it grows. Others see its text in steps; at the end it is sealed, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal

from ..crdt.backend import MAX_VALUE
from ..exceptions import AlreadySealed, InvalidContent, LLMCRDTError
from ..ids import EntryId
from .canonical import JSON, canonical_json
from .core import ConversationCore
from .entry import Entry, HiddenField, Part, Reasoning, Role, Text, ToolCall
from .writer import EntryWriter

PartType = Literal["text", "reasoning", "tool_call"]
_PENDING_CHARS = 2000
_PIECE = 30
"""Letters that are written together where nobody says how often: a piece costs whoever watches some 25 bytes more."""
_QUICKEST, _SLOWEST = 0.1, 1.5
"""Seconds between two pieces then: with that many letters, and with fewer."""
_MOST = MAX_VALUE - (64 << 10)
"""Bytes of what is written, as JSON: the seal puts it into one value, with calls' names and usage."""


class Stream:
    """Made by ``Conversation.stream``. Not shared between threads.

    Leaving the ``with`` block seals the entry: complete; stopped after KeyboardInterrupt or GeneratorExit; failed after
    any other exception.
    """

    def __init__(self, core: ConversationCore, entry: EntryId, role: Role, *, interval: float | None) -> None:
        self.id = entry
        self._role = role
        self._core = core
        self._writer = EntryWriter(core)
        self._clock = core.document.clock
        self._interval = interval
        self._parts: list[tuple[PartType, list[str]]] = []
        self._calls: dict[int, tuple[str, str]] = {}  # index of a part -> id and name of its call
        self._unflushed: list[str] = []
        self._waiting = 0  # characters of these
        self._size = 0  # bytes of what was written, as JSON
        self._flushed_at = float("-inf")  # the first words are shown at once
        self._shared = True
        self._sealed: Entry | None = None

    def write(self, text: str, part: PartType = "text") -> None:
        """Append text; another ``part`` than before begins a new one. Reaches the document with the first write after
        ``interval`` seconds, or at the seal. Raises AlreadySealed, InvalidContent; ConversationDeleted as soon as it is
        known here that the conversation was deleted, on whatever device: what is written then would be kept nowhere."""
        if self._sealed is not None:
            raise AlreadySealed(f"Entry {self.id} is sealed.", hint="Append a new entry.")
        if not isinstance(text, str) or part not in ("text", "reasoning", "tool_call"):
            raise InvalidContent("A stream takes text, as a part of type text, reasoning or tool_call.")
        size = self._size + len(canonical_json(text).encode())
        if size > _MOST:
            raise InvalidContent(
                f"The entry would have {size:,} bytes; {_MOST:,} may be.",
                hint="Seal this one, and go on in another entry.",
            )
        self._size = size
        self._core.document.check_usable()
        if not self._parts or self._parts[-1][0] != part:
            self._begin(part)
        self._parts[-1][1].append(text)
        self._unflushed.append(text)
        self._waiting += len(text)
        elapsed, interval = self._clock() - self._flushed_at, self._interval
        if interval is None:
            interval = _SLOWEST if self._waiting < _PIECE else _QUICKEST
        if not 0 <= elapsed < interval or self._waiting > _PENDING_CHARS:
            self.flush()

    def call(self, id: str, name: str) -> None:
        """Begin a tool call: what is written next as part "tool_call" are its arguments. Others see them grow; id and
        name come with the seal."""
        canonical_json([id, name])
        self._core.document.check_usable()
        self._begin("tool_call")
        self._calls[len(self._parts) - 1] = (id, name)

    def _begin(self, part: PartType) -> None:
        self.flush()
        self._parts.append((part, []))

    def flush(self) -> None:
        """Put what was written so far into the document now."""
        text, self._unflushed, self._waiting = "".join(self._unflushed), [], 0
        if text:
            self._flushed_at = self._clock()
        if text and self._shared:
            index, (part, _) = len(self._parts) - 1, self._parts[-1]
            self._shared = self._writer.grow(self.id, index, part, text)

    def abandon(self) -> None:
        """Stop writing without a seal: the entry is then unfinished, and anybody may seal it."""
        self._writer.abandon(self.id)

    @property
    def stop_asked(self) -> bool:
        """Whether somebody, on whatever device, asked for this stream to stop. Seal it as stopped then."""
        with self._core.reading():
            return self.id in self._core.view.acts.stops

    @property
    def waiting(self) -> int:
        """How many characters are written and not in the document yet."""
        return self._waiting

    @property
    def text(self) -> str:
        """The visible text so far."""
        return "".join("".join(pieces) for part, pieces in self._parts if part == "text")

    def seal(
        self,
        status: Literal["complete", "stopped", "failed"] = "complete",
        *,
        parts: Sequence[Part] | None = None,
        hidden: Mapping[str, bytes | HiddenField] | None = None,
        usage: Mapping[str, JSON] | None = None,
    ) -> Entry:
        """Make what was written immutable; a second call changes nothing. ``parts`` says it better than the raw text
        (tool calls). ``hidden``: fields that come with this version, which vouches for them."""
        if self._sealed is None:
            content = tuple(parts) if parts is not None else self._written()
            self._sealed = self._writer.finish(
                self.id, self._role, content, status=status, hidden=hidden or {}, usage=usage
            )
        return self._sealed

    def _written(self) -> tuple[Part, ...]:
        made: list[Part] = []
        for index, (part, pieces) in enumerate(self._parts):
            text = "".join(pieces)
            if part == "tool_call":
                made.append(ToolCall(*self._calls.get(index, ("", "")), text))
            else:
                made.append(Reasoning(text) if part == "reasoning" else Text(text))
        return tuple(made)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.seal()
            return
        try:
            self.seal("stopped" if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else "failed")
        except LLMCRDTError as other:  # the caller's own error matters more
            self.abandon()
            error.add_note(f"The entry {self.id} could not be sealed: {other}")
