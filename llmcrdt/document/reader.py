"""ConversationReader: the questions about an open conversation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..arguments import check_type
from ..exceptions import InvalidContent
from ..ids import EntryId
from . import schema
from .act_writer import answered_call
from .binding import FieldReport, Target, report
from .blob import Blob, named_in
from .canonical import JSON
from .core import ConversationCore
from .entry import Entry, ToolCall
from .fork import left_out_of, origin_of
from .request import Request
from .transcript import Transcript
from .verify import Problem, verify


class ConversationReader:
    """Answers questions about one conversation; it changes nothing, and holds nothing itself. The methods of
    ``Conversation`` of the same names say what they mean."""

    def __init__(self, core: ConversationCore) -> None:
        self._core = core

    def created_at(self) -> float:
        """Seconds since 1970 on its creator's clock; 0 while nothing has arrived."""
        with self._core.reading():
            return schema.read_time(self._core.replica.get(schema.META, "created_at"))

    def origin(self) -> Mapping[str, JSON] | None:
        """The origin of a fork; None for any other conversation."""
        with self._core.reading():
            return origin_of(self._core.replica)

    def transcript(self) -> Transcript:
        """The conversation in order."""
        with self._core.reading():
            return self._core.view.transcript()

    def page(self, last: int, before: Entry | EntryId | None) -> tuple[Entry, ...]:
        """The ``last`` entries of the transcript, or the ones before an entry of it. Loads no replica if the entry
        index has the answer. Raises InvalidContent."""
        check_type(last, int, name="last", hint="Give a number of entries.")
        with self._core.document.lock:
            page = self._core.page(last, before.id if isinstance(before, Entry) else before)
        if page is not None:
            return page
        with self._core.reading():
            view = self._core.view
            ids = view.ids()
            end = ids.from_end(view.find(before, shown=True)) if before is not None else len(ids)
            return tuple(view.shown(i) for i in ids[max(0, end - last) : end])

    def entry(self, entry: Entry | EntryId) -> Entry:
        """An entry as it is now, shown or not. Raises EntryNotFound."""
        with self._core.reading():
            return self._core.view.shown(self._core.view.find(entry))

    def alternatives(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """All entries that stand for the same turn, oldest first, but for withheld ones."""
        with self._core.reading():
            view = self._core.view
            members = view.order.members(view.find(entry))
            return tuple(view.shown(i) for i in members if i not in view.order.now().withheld)

    def frame_entries(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """The versions that a generation was computed on, in order."""
        with self._core.reading():
            view = self._core.view
            node = view.order.sound()[view.find(entry)]
            ids, pins = view.order.frame_list(node.frame)
            return tuple(view.entry(i, pins[i]) for i in ids)

    def generations(self) -> Iterator[Entry]:
        """The sealed generations, shown or not, youngest first."""
        with self._core.reading():
            found = [node for node in self._core.view.order.sound().values() if node.frame is not None]
        for node in sorted(found, key=lambda node: node.age, reverse=True):
            entry = self.entry(node.id)
            if entry.sealed:
                yield entry

    def results(self, call: ToolCall) -> tuple[Entry, ...]:
        """Every result of a tool call, shown or not, oldest first, but for withheld ones. Raises InvalidContent."""
        with self._core.reading():
            view = self._core.view
            answers = answered_call(view, call)
            withheld = view.order.now().withheld
            nodes = [node for node in view.order.sound().values() if node.answers == answers[0]]
            found = [view.shown(node.id) for node in sorted(nodes, key=lambda node: node.age)]
            return tuple(entry for entry in found if entry.answers == answers and entry.id not in withheld)

    def unsealed(self) -> tuple[Entry, ...]:
        """Entries that nobody finished, except those that are being written here."""
        with self._core.reading():
            view = self._core.view
            states = view.states
            unfinished = [i for i in view.possibly_unsealed() if not states[i].versions and not states[i].erased]
            return tuple(view.shown(i) for i in unfinished if i not in self._core.streams)

    def stop_asked(self, entry: Entry | EntryId) -> bool:
        """Whether somebody asked the writer of an entry to stop."""
        with self._core.reading():
            return (entry.id if isinstance(entry, Entry) else entry) in self._core.view.acts.stops

    def blobs(self) -> set[str]:
        """The hashes of all attachments that any version of any entry names."""
        return {*self.attachments()}

    def attachments(self) -> dict[str, Blob | None]:
        """The same with the attachments themselves; None for one that is not sound."""
        with self._core.reading():
            return named_in(self._core.replica, schema.ENTRIES)

    def verify(self) -> list[Problem]:
        """Every hash, frame and encrypted field that doesn't hold, oldest first."""
        with self._core.reading():
            replica = self._core.replica
            return verify(replica, self._core.address, left_out_of(replica))

    def hidden_report(self, target: Target, now: float | None) -> tuple[FieldReport, ...]:
        """Every hidden field, and whether it would be sent to ``target``; ``now`` in seconds since 1970."""
        with self._core.reading():
            transcript = self._core.view.transcript()
            entries, at = tuple(transcript), self._core.document.clock() if now is None else now
            elsewhere = [(found.entry, found.hidden_by) for found in transcript.elsewhere]
            return report(entries, self._core.host.formats.complete(target, entries), at, elsewhere)

    def request(
        self,
        api: str,
        model: str | None,
        provider: str | None,
        account: str | None,
        instead_of: Entry | EntryId | None,
        since: Entry | EntryId | None,
        without: Collection[tuple[EntryId, str]],
        on: Transcript | None,
    ) -> Request:
        """The transcript, or ``on``, in the JSON of an API, or the list that ``instead_of`` was computed on."""
        entries: Sequence[Entry]
        transcript, old = None, None if instead_of is None else self.entry(instead_of)
        if old is None:
            entries = transcript = self.transcript() if on is None else on
            frame = transcript.frame()
        elif old.frame is None:
            raise InvalidContent(f"Entry {old.id} is no generation.", hint="Only an answer can be asked for again.")
        else:
            entries, frame = self.frame_entries(old), old.frame
        host = self._core.host
        made = host.formats.request(
            entries,
            api,
            model=model,
            provider=provider,
            account=account,
            now=host.clock(),
            since=since.id if isinstance(since, Entry) else since,
            without=without,
        )
        return Request(
            **vars(made), frame=transcript, instead_of=old.id if old is not None else None, frame_hash=frame.hash
        )
