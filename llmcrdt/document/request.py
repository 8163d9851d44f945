"""Request: a transcript as a provider's API takes it; and the contract of whoever knows those APIs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..exceptions import InvalidContent
from ..ids import EntryId, FrameHash
from .binding import FieldReport, Target
from .canonical import JSON
from .deltas import AnswerFailed, Delta
from .entry import Entry, HiddenField, Part
from .transcript import Transcript


@dataclass(frozen=True)
class Rendered:
    """A transcript as an API takes it: what whoever knows the API makes of a ``Request``."""

    messages: list[JSON]
    body: dict[str, JSON]
    report: tuple[FieldReport, ...]
    target: Target
    renderer: str
    tool_names: Mapping[str, str]
    since: EntryId | None
    whole_because: str
    held_count: int
    held: str


@dataclass(frozen=True)
class Request(Rendered):
    """Made by ``conversation.messages``: what to send to a provider for the next answer.

    ``messages``: the log, as the list that the API takes. ``body``: a whole request with it, valid as it is; some APIs
    want it to end with a turn of the user's, which is made up there. ``report``: every hidden field of the transcript
    but handles, whether it is in there, and why not. ``target``: where it goes. ``renderer``: the name and version of
    what made it.
    ``since``: the answer that it goes on from; the provider holds all before, and both lists say what is new. None: all
    is in there; ``whole_because`` says why, if that was not asked for: "none", the answer has no handle; "nothing new";
    "differs", what the provider holds would be sent otherwise now; else the reason of ``FieldReport`` for which the
    handle doesn't hold. ``held_count``, ``held``: how many items the provider holds before, and their hash.
    ``tool_names``: the true names of the tools whose names the API doesn't take, by the names that stand in there.
    ``frame``: the transcript that it was made of, which the answer stands on; None where the answer is to stand in the
    place of another one, ``instead_of``, on the frame of that one. ``frame_hash``: the hash of that list.
    """

    frame: Transcript | None
    instead_of: EntryId | None
    frame_hash: FrameHash

    @property
    def left_out(self) -> tuple[FieldReport, ...]:
        """The hidden fields that are not in there, each with the reason."""
        return tuple(line for line in self.report if not line.sent)


def check_request(request: Request) -> Request:
    """The request. Raises InvalidContent for what is none."""
    if not isinstance(request, Request):
        raise InvalidContent(
            f"{type(request).__name__} is no request of conv.messages.", hint="Pass the whole request that it gave."
        )
    return request


@dataclass(frozen=True)
class Response:
    """The answer of a provider, as an entry holds it. ``model``, ``usage``: as it said; ``usage`` also says why it
    ended, under ``finish``."""

    parts: tuple[Part, ...]
    hidden: Mapping[str, HiddenField]
    model: Mapping[str, JSON]
    usage: Mapping[str, JSON]
    author: str


Beside = Callable[[Mapping[str, JSON]], Mapping[str, JSON]]
"""Made of a provider's usage: what is kept beside it."""


class ResponseReader(Protocol):
    """Reads a streamed answer to a request. ``ended``: whether it is whole. ``error``: that the provider gave up."""

    @property
    def ended(self) -> bool: ...

    @property
    def error(self) -> AnswerFailed | None: ...

    def feed(self, piece: bytes | Mapping[str, JSON]) -> list[Delta]:
        """The deltas that a piece of the response's body brings, or one event as JSON. Raises FormatError."""
        ...

    def close(self) -> list[Delta]:
        """The deltas that the end of the body brings. Raises FormatError."""
        ...

    def named(self) -> tuple[Mapping[str, JSON], str]:
        """The ``model`` and the ``author`` of the answer, as far as that was said."""
        ...

    def response(self) -> Response | None:
        """The answer so far: of one that is not whole, what was complete, and the words that people can read. None
        where there is none of it yet. Raises FormatError where what came is no answer."""
        ...


class Formats(Protocol):
    """Knows the JSON of providers. Pure; the time is an argument."""

    def complete(self, target: Target, entries: Sequence[Entry]) -> Target:
        """A target with all that a request of these entries would say to it beside its place, such as tools; as it is
        where no format is known for it."""
        ...

    def request(
        self,
        entries: Sequence[Entry],
        api: str,
        *,
        model: str | None,
        provider: str | None,
        account: str | None,
        now: float,
        since: EntryId | None = None,
        without: Collection[tuple[EntryId, str]] = (),
    ) -> Rendered:
        """``entries``, a whole transcript, for an API at ``now``, seconds since 1970; what is new ``since`` an answer,
        where its provider holds the rest; ``without`` these hidden fields, by entry and name. Raises FormatError where
        no API has this name."""
        ...

    def response(
        self, request: Request, answer: JSON | bytes, *, sent: JSON | bytes = None, now: float | None = None
    ) -> Response:
        """The answer to a request, as JSON or its text. ``sent``: what was really sent, where that was not its body;
        ``now``: seconds since 1970, None where nobody knows: then no handle is kept. Raises FormatError."""
        ...

    def stream(self, request: Request, *, sent: JSON | bytes = None, now: float | None = None) -> ResponseReader:
        """A reader of the streamed answer to a request; ``sent`` and ``now`` as of ``response``."""
        ...
