"""Request: a transcript as a provider's API takes it; and the contract of whoever knows those APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..ids import EntryId, FrameHash
from .binding import FieldReport, Target
from .canonical import JSON
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


@dataclass(frozen=True)
class Request(Rendered):
    """Made by ``conversation.messages``: what to send to a provider for the next answer.

    ``messages``: the log, as the list that the API takes. ``body``: a whole request with it, valid as it is; some APIs
    want it to end with a turn of the user's, which is made up there. ``report``: every hidden field of the transcript,
    whether it is in there, and why not. ``target``: where it goes. ``renderer``: the name and version of what made it.
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


@dataclass(frozen=True)
class Response:
    """The answer of a provider, as an entry holds it. ``model``, ``usage``: as it said; ``usage`` also says why it
    ended, under ``finish``."""

    parts: tuple[Part, ...]
    hidden: Mapping[str, HiddenField]
    model: Mapping[str, JSON]
    usage: Mapping[str, JSON]
    author: str


class Formats(Protocol):
    """Knows the JSON of providers. Pure; the time is an argument."""

    def request(
        self,
        entries: Sequence[Entry],
        api: str,
        *,
        model: str | None,
        provider: str | None,
        account: str | None,
        now: float,
    ) -> Rendered:
        """``entries``, a whole transcript, for an API at ``now``, seconds since 1970. Raises FormatError where no API
        has this name."""
        ...

    def response(self, request: Request, answer: JSON | bytes) -> Response:
        """The answer to a request, as JSON or its text. Raises FormatError."""
        ...
