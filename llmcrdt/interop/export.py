"""A transcript as JSON for a provider: the one way by which hidden fields go out. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..document.binding import FieldReport, Target, fields_to_send, report
from ..document.canonical import JSON
from ..document.entry import TOKENS, Entry
from ..document.summaries import with_summaries
from .format import Format, ReadBlob


@dataclass(frozen=True)
class Export:
    """``messages``: the log, as the list that the API takes. ``body``: a request with it. ``report``: every hidden
    field of the transcript, whether it is in there, and why not. ``tool_names``: the names of tools that had to be
    changed for it, by the name that stands there. ``target``: where it goes, with what it says."""

    messages: list[JSON]
    body: dict[str, JSON]
    report: tuple[FieldReport, ...]
    tool_names: Mapping[str, str]
    target: Target

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
    target = replace(target, more={**target.more, **format.facts(entries)})
    sent = fields_to_send(entries, target, now)
    outgoing = [replace(e, hidden=sent.get(e.id, {})) if e.hidden else e for e in with_summaries(entries)]
    written = format.write(outgoing, model=target.model, read_blob=read_blob)
    own = tuple(line for line in report(entries, target, now) if line.name != TOKENS)
    return Export(written.messages, written.body, own, written.tool_names, target)
