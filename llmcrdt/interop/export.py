"""A transcript as JSON for a provider: the one way by which hidden fields go out. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ..document.binding import FieldReport, Target, fields_to_send, report
from ..document.canonical import JSON
from ..document.entry import TOKENS, Entry, HiddenField
from ..document.summaries import with_summaries
from .format import Format, ReadBlob
from .hiding import values_of


@dataclass(frozen=True)
class Export:
    """``messages``: the log, as the list that the API takes. ``body``: a request with it. ``report``: every hidden
    field of the transcript, whether it is in there, and why not."""

    messages: list[JSON]
    body: dict[str, JSON]
    report: tuple[FieldReport, ...]

    @property
    def left_out(self) -> tuple[FieldReport, ...]:
        """The hidden fields that are not in there."""
        return tuple(line for line in self.report if not line.sent)


def export(
    format: Format,
    entries: Sequence[Entry],
    target: Target,
    *,
    now: float,
    read_blob: ReadBlob = lambda blob: None,
) -> Export:
    """``entries``, a whole transcript in order, for ``target`` at ``now`` (seconds since 1970). Hidden fields go out
    only as ``fields_to_send`` says. ``read_blob`` gives the content of an attachment."""
    sent = fields_to_send(entries, target, now)
    outgoing = [replace(e, hidden=sent.get(e.id, {})) if e.hidden else e for e in with_summaries(entries)]
    written = format.write(outgoing, model=target.model, read_blob=read_blob)
    said = set(_texts([written.messages, written.body]))
    unused = {(i, name) for i, fields in sent.items() for name, field in fields.items() if _is_unused(field, said)}
    own = tuple(
        replace(line, reason="unused") if line.sent and (line.entry, line.name) in unused else line
        for line in report(entries, target, now)
        if line.name != TOKENS
    )
    return Export(written.messages, written.body, own)


def _is_unused(field: HiddenField, said: Set[str]) -> bool:
    """Whether the rules of the format left out a value of a field. ``said``: all the texts in the request."""
    values = (max(_texts(value), key=len, default=None) for value in values_of(field))
    return any(text is not None and text not in said for text in values)


def _texts(value: JSON) -> Iterator[str]:
    """The texts in a JSON value."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, Mapping):
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found
