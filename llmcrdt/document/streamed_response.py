"""StreamedResponse: a provider's answer that comes in as a stream is written into the document as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from ..exceptions import FormatError, InvalidContent, LLMCRDTError, ResponseFailed
from .canonical import JSON
from .deltas import Delta, ReasoningDelta, TextDelta
from .entry import Entry, Part, Reasoning, Text, Unknown
from .request import Beside, Response, ResponseReader
from .stream import Stream

Piece = bytes | Mapping[str, JSON]


class StreamedResponse:
    """Made by ``Conversation.stream_response``. ``for delta in answer``, ``async for delta in answer``: what the answer
    says, as it comes; ``answer.result()``, ``await answer``: read it all, and return the sealed entry. Not shared
    between threads; it reads its source once.

    The entry begins with the first visible words. It is sealed as complete when the provider said that the answer is
    whole; as stopped, with what was complete, where the source raises or ends before that, where the provider says that
    it gave up (ResponseFailed), where whoever reads goes away (``close``, or leaving a ``with`` block), and where
    somebody asked for it to stop. ``entry``: the sealed entry; None before, and where nothing came.
    """

    def __init__(
        self,
        begin: Callable[..., Stream],
        reader: ResponseReader,
        source: Iterable[Piece] | AsyncIterable[Piece],
        *,
        sealed: bool,
        author: str | None,
        beside: Beside | None,
    ) -> None:
        """``begin``: begins the entry, with its ``model`` and ``author``."""
        self.entry: Entry | None = None
        self._begin, self._reader, self._source = begin, reader, source
        self._sealed, self._author, self._beside = sealed, author, beside
        self._stream: Stream | None = None
        self._begun = self._closed = False
        self._refused: FormatError | None = None

    @property
    def stream(self) -> Stream | None:
        """The entry that grows; None before the first visible words."""
        return self._stream

    def __iter__(self) -> Iterator[Delta]:
        source = self._take_source(Iterable, "for")
        try:
            for piece in source:
                yield from self._read(self._reader.feed(piece))
                if self._is_over():
                    break
            yield from self._finish()
        except BaseException as error:
            self._give_up(error)
            raise

    async def __aiter__(self) -> AsyncIterator[Delta]:
        source = self._take_source(AsyncIterable, "async for")
        try:
            async for piece in source:
                for delta in self._read(self._reader.feed(piece)):
                    yield delta
                if self._is_over():
                    break
            for delta in self._finish():
                yield delta
        except BaseException as error:
            self._give_up(error)
            raise

    def result(self) -> Entry:
        """Read the source, unless somebody did; the sealed entry. Raises what the source raises, ResponseFailed where
        the provider gave up, FormatError where there is no answer."""
        if not self._begun:
            for _ in self:
                pass
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Entry]:
        async def read() -> Entry:
            if not self._begun:
                async for _ in self:
                    pass
            return self._outcome()

        return read().__await__()

    def close(self) -> None:
        """Read no further: what was complete is sealed as stopped. Harmless when it is over."""
        self._begun = True
        self._give_up(GeneratorExit())

    def __enter__(self) -> StreamedResponse:
        return self

    async def __aenter__(self) -> StreamedResponse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_source(self, kind: Any, words: str) -> Any:
        if self._begun:
            raise InvalidContent("A streamed answer is read once.", hint="Its entry has what came: answer.entry.")
        if not isinstance(self._source, kind):
            name = type(self._source).__name__
            raise InvalidContent(
                f"{name} can't be read by {words!r}.", hint="Pass what yields the pieces as they come."
            )
        source, self._source, self._begun = self._source, (), True
        return source

    def _read(self, deltas: Iterable[Delta]) -> Iterator[Delta]:
        for delta in deltas:
            if isinstance(delta, (TextDelta, ReasoningDelta)) and not self._closed:
                if self._stream is None:
                    self._stream = self._begun_as(*self._reader.named())
                self._stream.write(delta.text, "text" if isinstance(delta, TextDelta) else "reasoning")
            yield delta

    def _begun_as(self, model: Mapping[str, JSON], name: str) -> Stream:
        return self._begin(model=model, author=name if self._author is None else self._author)

    def _is_over(self) -> bool:
        stopped = self._stream is not None and self._stream.stop_asked
        return self._closed or stopped or self._reader.error is not None

    def _finish(self) -> Iterator[Delta]:
        """The source has ended."""
        if self._reader.error is None:
            yield from self._read(self._reader.close())
        self._seal()
        if (error := self._reader.error) is not None:
            raise ResponseFailed(error.message, error.error)
        if self.entry is None and not self._closed:
            none = FormatError("The stream ended before there was an answer.", hint="Send the request again.")
            raise self._refused or none

    def _seal(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            said = self._reader.response()
        except FormatError as error:
            self._refused = error
            if self._stream is not None:  # no answer can be made of what came: the words that were shown stay
                self.entry = self._stream.seal("stopped")
            if self._reader.ended:
                raise
            return
        whole = self._reader.ended and self._reader.error is None
        if said is None or (self._stream is None and not whole and not _says_something(said)):
            return
        stream = self._stream or self._begun_as(said.model, said.author)
        hidden = {name: replace(field, sealed=self._sealed) for name, field in said.hidden.items()}
        usage = {**said.usage, **(self._beside(said.usage) if self._beside else {})}
        try:
            self.entry = stream.seal("complete" if whole else "stopped", parts=said.parts, hidden=hidden, usage=usage)
        except LLMCRDTError:
            stream.abandon()
            raise

    def _give_up(self, error: BaseException) -> None:
        """Something ended it from outside."""
        try:
            self._seal()
        except LLMCRDTError as other:  # the error from outside matters more
            if other is not error:
                error.add_note(f"The answer so far could not be kept: {other}")

    def _outcome(self) -> Entry:
        if self.entry is None:
            raise FormatError("The stream was left before there was an answer.", hint="Send the request again.")
        return self.entry


def _says_something(said: Response) -> bool:
    """Whether an answer that is not whole is worth an entry."""

    def is_content(part: Part) -> bool:
        if isinstance(part, (Text, Reasoning)):
            return bool(part.text)
        return not isinstance(part, Unknown) or not part.type.endswith("/message")

    return bool(said.hidden) or any(map(is_content, said.parts))
