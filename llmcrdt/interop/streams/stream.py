"""The contract of a reader of streamed answers. One file a family of APIs, and one class a format (``Format.stream``).

Every reader holds to this (``llmcrdt.testing.stream_suite`` checks it):

1. *The same answer.* Of a whole stream, ``response()`` is the JSON that the API answers without streaming, as far as
   ``Format.answer`` and the reader of the format look at it; so the entry is the same.
2. *Cut anywhere.* What was complete stays. Of what was not, visible text and reasoning stay, as far as they came; a
   signature, an opaque value and a call stay only where they are known to be whole.
3. *Any bytes.* Whatever comes, FormatError is all that is raised, and time is linear in what came. Events and members
   of unknown kinds are passed over, or kept where they stand.
4. *Errors are told.* An event that says that the provider gave up is ``AnswerFailed``; nothing after it counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from ...document.canonical import JSON, exact_json, parse_json
from ...document.deltas import AnswerEnded, AnswerFailed, Delta
from ...exceptions import FormatError, InvalidContent
from ..json_input import check_json, kind_of, object_at
from ..native import mapping
from .events import EventParser, Parser

DONE = "[DONE]"
_HINT = "Pass the body of the response as it comes, in bytes, or its events as JSON objects."


class ResponseStream(ABC):
    """Reads one streamed answer. ``ended``: whether it is whole. ``error``: that the provider gave up. ``model``: the
    one that answers, as soon as that was said."""

    parser: ClassVar[type[Parser]] = EventParser

    def __init__(self) -> None:
        self.ended = False
        self.error: AnswerFailed | None = None
        self.model: str | None = None
        self._parser = self.parser()
        self._over = False

    def feed(self, piece: bytes | Mapping[str, JSON]) -> list[Delta]:
        """The deltas that a piece brings: some of the body's bytes, cut anywhere, or one event's JSON. Raises
        FormatError; what came before that stays, and nothing comes after it."""
        try:
            if isinstance(piece, Mapping):
                check_json(dict(piece), "The event")
                return list(self._take(dict(piece)))
            if isinstance(piece, (bytes, bytearray, memoryview)):
                return list(self._read(self._parser.feed(bytes(piece))))
            raise FormatError(f"A piece of a stream is {kind_of(piece)}.", hint=_HINT)
        except FormatError:
            self._over = True
            raise

    def close(self) -> list[Delta]:
        """The deltas that the end of the body brings. Raises FormatError."""
        try:
            return list(self._read(self._parser.close(), cut=True))
        finally:
            self._over = True

    @abstractmethod
    def response(self) -> dict[str, JSON] | None:
        """The answer so far, as the API answers without streaming; of one that is not whole, what may be kept. None
        where nothing of it came. Changes nothing."""

    @abstractmethod
    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        """The deltas that an event brings. Raises FormatError."""

    def end(self, finish: JSON) -> Iterator[Delta]:
        """The answer is whole, once."""
        if not self.ended:
            self.ended = True
            yield AnswerEnded(finish if isinstance(finish, str) else None)

    def fail(self, error: JSON) -> Iterator[Delta]:
        """The provider gave up."""
        message = mapping(error).get("message", error)
        self.error = AnswerFailed(message if isinstance(message, str) else exact_json(error)[:200], error)
        self._over = True
        yield self.error

    def name(self, model: JSON) -> None:
        """The model that answers is this one, if that says something."""
        if isinstance(model, str) and model:
            self.model = model

    def _read(self, texts: Iterator[str], *, cut: bool = False) -> Iterator[Delta]:
        """The deltas that texts bring; ``cut``: a text may be part of one."""
        for text in texts:
            if not self._over and text.strip() != DONE:
                try:
                    value = parse_json(text)
                except InvalidContent as error:
                    if cut:
                        return
                    raise FormatError(f"An event of the stream is no JSON: {error.message}", hint=_HINT) from None
                yield from self._take(value)

    def _take(self, event: JSON) -> Iterator[Delta]:
        if not self._over:
            yield from self.event(object_at(event, "The event"))
