"""A transcript as JSON for a provider: the one way by which hidden fields go out. Pure; the time is an argument."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ..document.binding import FieldReport, Target, fields_of, report
from ..document.blob import Blob
from ..document.canonical import JSON
from ..document.entry import TOKENS, Entry, HiddenField, Part, Text, Unknown
from ..document.summaries import with_summaries
from ..ids import EntryId
from .format import Format, ReadBlob
from .handles import NOTHING, Handle, Held, handle_name, handle_of
from .hiding import values_of
from .native import is_native_type
from .pictures import note_of, picture_of


@dataclass(frozen=True)
class Export:
    """``messages``: the log, as the list that the API takes. ``body``: a request with it. ``report``: every hidden
    field of the transcript but handles, whether it is in there, and why not. ``tool_names``: the names of tools that
    had to be changed for it, by the name that stands there. ``target``: where it goes, with what it says.

    ``since``: the answer after which the provider holds all that is not in there; then both lists hold what is new.
    ``whole_because``: why everything is in there, although it was asked to go on from an answer. ``held``: the list
    that the provider holds before it."""

    messages: list[JSON]
    body: dict[str, JSON]
    report: tuple[FieldReport, ...]
    tool_names: Mapping[str, str]
    target: Target
    since: EntryId | None = None
    whole_because: str = ""
    held: Held = NOTHING

    @property
    def why_whole(self) -> str:
        """``whole_because`` in words; "" where a delta was not asked for, or is what this is."""
        if not self.whole_because:
            return ""
        return _WHY_WHOLE.get(self.whole_because) or FieldReport(EntryId(""), "", self.whole_because).why

    @property
    def left_out(self) -> tuple[FieldReport, ...]:
        """The hidden fields that are not in there."""
        return tuple(line for line in self.report if not line.sent)


_WHY_WHOLE = {
    "none": "that answer has no handle",
    "elsewhere": "no answer that is shown has it",
    "differs": "what the provider holds would be sent otherwise now",
    "nothing new": "nothing is new since",
}


def export(
    format: Format,
    entries: Sequence[Entry],
    target: Target,
    *,
    now: float,
    read_blob: ReadBlob = lambda blob: None,
    since: EntryId | None = None,
    without: Collection[tuple[EntryId, str]] = (),
) -> Export:
    """``entries``, a whole transcript in order, for ``target`` at ``now`` (seconds since 1970). Hidden fields go out
    only as their bindings say. ``read_blob`` gives the content of an attachment. ``since``: an answer with a
    handle; where that holds, the result says only what is new. ``without``: hidden fields, by entry and name, that the
    provider refused; they stay here."""
    target = replace(target, more={**target.more, **format.facts(entries)})
    lines = report(entries, target, now, refused=set(without))
    found = fields_of(lines, entries)
    outgoing = [replace(e, hidden=found.get(e.id, {})) if e.hidden else e for e in with_summaries(entries)]
    outgoing = [_with_notes(entry, format) if entry.role == "assistant" else entry for entry in outgoing]
    written = format.write(outgoing, model=target.model, read_blob=read_blob)
    said = set(_texts([written.messages, written.body]))
    unused = {(i, name) for i, fields in found.items() for name, field in fields.items() if _is_unused(field, said)}
    own = tuple(
        replace(line, reason="unused") if line.sent and (line.entry, line.name) in unused else line
        for line in lines
        if line.name != TOKENS and not line.name.endswith("/handle")
    )
    made = Export(written.messages, written.body, own, written.tool_names, target)
    if since is None:
        return made
    name = handle_name(format.name)
    why = next((line.reason for line in lines if (line.entry, line.name) == (since, name)), "none")
    why = why if any(entry.id == since for entry in entries) else "elsewhere"
    handle = None if why else handle_of(found[since][name])
    if handle is None:
        return _whole(format, made, why or "unreadable")
    return _continued(format, made, since, handle)


def _with_notes(answer: Entry, format: Format) -> Entry:
    """An answer with words in the place of attachments, and of pictures that another format has: no API takes them
    from an assistant. One part stays one part, so that hidden values find their places."""
    told = tuple(Text(note_of(part)) if _is_foreign(part, format) else part for part in answer.parts)
    return answer if told == answer.parts else replace(answer, parts=told)


def _is_foreign(part: Part, format: Format) -> bool:
    if isinstance(part, Blob):
        return True
    native = isinstance(part, Unknown) and is_native_type(part.type) and not part.type.startswith(f"{format.key}/")
    return native and picture_of(part, lambda blob: None) is not None


def _continued(format: Format, made: Export, since: EntryId, handle: Handle) -> Export:
    """The export with what is new alone, where it begins with exactly what the provider holds."""
    sent, count = made.body[format.member], handle.held.count
    if not isinstance(sent, list) or NOTHING.and_then(format.bare(sent[:count])) != handle.held:
        return _whole(format, made, "differs")
    if not sent[count:]:
        return _whole(format, made, "nothing new")
    body = format.continued(made.body, handle.id, sent[count:])
    return replace(made, messages=made.messages[count:], body=body, since=since, held=handle.held)


def _whole(format: Format, made: Export, why: str) -> Export:
    return replace(made, body=format.anew(made.body), whole_because=why)


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
