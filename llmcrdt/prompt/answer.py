"""An answer while it is sampled: token ids to words, up to a stop text, with tool calls told apart. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from ..document.entry import Part
from ..tokenizer import Tokenizer
from .tool_calls import Piece, ToolCallReader, ToolFormat


class Answer:
    """Whole characters only, and nothing that may turn out to be a stop text or a tool call.

    ``name`` makes the id of the call with this number, where the model gave none.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str], form: ToolFormat | None, name: Callable[[int], str]
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(s for s in stop if s)
        self._reader = ToolCallReader(form, name) if form else None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def take(self, token: int) -> list[Piece]:
        """The text that may be shown now."""
        self._held += self._words(token)
        found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._maybe_stop())

    def rest(self) -> list[Piece]:
        """The answer is over: the pieces that were held back and are shown after all."""
        if self.stopped:
            self._held = ""
        else:
            self._held += self._utf8.decode(b"", True)
        return self._release(len(self._held)) + (self._reader.end() if self._reader else [])

    def parts(self) -> tuple[Part, ...] | None:
        """The answer as parts, if it holds a tool call; None where it is plain text."""
        return self._reader.parts() if self._reader and self._reader.called else None

    def _words(self, token: int) -> str:
        """The text of a token; a control token has one only where it marks a call."""
        if self._reader and not self._tokenizer.is_end(token):
            text = self._tokenizer.token_text(token)
            if text in self._reader.markers:
                return self._utf8.decode(b"", True) + text
        return self._utf8.decode(self._tokenizer.decode([token]))

    def _maybe_stop(self) -> int:
        """Length of the longest end of the text that begins a stop text."""
        longest = 0
        for s in self._stop:
            for size in range(min(len(s) - 1, len(self._held)), longest, -1):
                if self._held.endswith(s[:size]):
                    longest = size
                    break
        return longest

    def _release(self, size: int) -> list[Piece]:
        said, self._held = self._held[:size], self._held[size:]
        if self._reader:
            return self._reader.take(said)
        return [("text", said)] if said else []
