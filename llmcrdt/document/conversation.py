"""Conversation: the only reader and writer of a conversation's document."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal
from weakref import WeakValueDictionary

from ..crdt.backend import Edit, Replica, Touched
from ..exceptions import InvalidContent, KeyMissing, LLMCRDTError
from ..ids import ContentHash, DocumentId, EntryId, KeyId, Random, new_entry_id
from . import schema
from .acts import Claim, Keep, Stop, ToolClaim, call_hash, write_act
from .blob import Blob, BlobStorage, keep, named_in
from .canonical import JSON, parse_json
from .document import Document, Journal
from .encryption import FieldAddress, Keys
from .entry import ROLES, Config, Entry, Frame, HiddenField, Part, Role, SyncState, Text, ToolCall, ToolResult, parts_of
from .erasure import Erased, Held, clean, erase, holders, is_clean, with_copies, words_of
from .fork import copy_acts, copy_until, provenance, until
from .order import Selection, by_age
from .presence import Presence, Present
from .projection import Tables
from .projector import Projector, entry_of_row
from .stream import Stream
from .transcript import Transcript
from .turn import Turn
from .verify import Problem, verify
from .view import ConversationView

Content = str | Part | Sequence[Part]
Hidden = Mapping[str, bytes | HiddenField]


@dataclass(frozen=True)
class Change:
    """What one write did to the transcript: entries that came, whose content changed, that left."""

    added: tuple[Entry, ...]
    changed: tuple[Entry, ...]
    removed: tuple[EntryId, ...]
    local: bool


class Conversation(Document):
    """One conversation. Any method from any thread; what a method wrote is on disk when it returns."""

    def __init__(
        self,
        id: DocumentId,
        journal: Journal,
        make_replica: Callable[[], Replica],
        *,
        lock: threading.RLock,
        clock: Callable[[], float],
        random: Random,
        author: str = "",
        title: Callable[[], str] = str,
        sync_state: Callable[[EntryId], SyncState] = lambda entry: "local",
        keys: Keys | None = None,
        blobs: BlobStorage | None = None,
        dispatch: Callable[[Callable[[], None]], None] = lambda call: call(),
        observed: Callable[[], None] = lambda: None,
        closed: Callable[[], None] = lambda: None,
        erased: Callable[[], None] = lambda: None,
        computing: Callable[[Any], None] = lambda engine: None,
        tables: Tables | None = None,
        presence: Callable[[], Presence] | None = None,
    ) -> None:
        self.author = author
        self._presence = presence or cache(lambda: Presence(author))
        self._title = title
        self._keyring = keys
        self._blobs = blobs
        self._synced = sync_state
        self._dispatch = dispatch
        self._observed = observed
        self._on_close = closed
        self._on_erase = erased
        self.computing = computing
        """To be called with an engine before it computes on this conversation: an erase must reach what it keeps."""
        self._tables = tables
        self._callbacks: list[Callable[[Change], None]] = []
        self._streams: WeakValueDictionary[EntryId, Stream] = WeakValueDictionary()
        self._claims: dict[str, ToolClaim] = {}
        self._stale_bytes = False  # an update that was kept may hold words of an entry that was erased before it came
        self._told: tuple[set[EntryId], set[EntryId]] | None = None
        """What observers know to be visible, and what changed since; None where they know all."""
        self.turn = Turn()
        """Held by whoever generates: in one process one generation of a conversation runs at a time."""
        super().__init__(id, journal, make_replica, lock=lock, clock=clock, random=random)

    def close(self) -> None:
        """Stop using this object. The conversation stays where it is; ``repo.get`` opens it again."""
        with self._lock:
            if not self._closed and self._loaded:
                with suppress(LLMCRDTError):  # tables can be made again at any time
                    self.settle()
        super().close()
        self._on_close()

    # reading

    @property
    def title(self) -> str:
        """The title that the library gives it."""
        return self._title()

    @property
    def created_at(self) -> float:
        """Seconds since 1970 on its creator's clock; 0 while nothing has arrived."""
        with self._reading():
            return schema.read_time(self._replica.get(schema.META, "created_at"))

    def transcript(self) -> Transcript:
        """The conversation in order (docs/semantics.md)."""
        with self._reading():
            return self._doc.transcript()

    def entries(self, *, last: int = 50, before: Entry | EntryId | None = None) -> tuple[Entry, ...]:
        """A page of the transcript: the ``last`` entries, or the ones before an entry of it. Loads no replica where
        the tables of the file know the answer."""
        with self._lock:
            page = self._page(last, before)
        if page is not None:
            return page
        with self._reading():
            ids = self._doc.ids()
            end = ids.from_end(self._doc.find(before, shown=True)) if before is not None else len(ids)
            return tuple(self._doc.shown(i) for i in ids[max(0, end - last) : end])

    def entry(self, entry: Entry | EntryId) -> Entry:
        """An entry as it is now, shown or not. Raises EntryNotFound."""
        with self._reading():
            return self._doc.shown(self._doc.find(entry))

    def alternatives(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """All entries that stand for the same turn, oldest first; the entry itself among them. What an erase withholds
        is not."""
        with self._reading():
            members = self._doc.order.members(self._doc.find(entry))
            return tuple(self._doc.shown(i) for i in members if i not in self._doc.order.now().withheld)

    def frame_entries(self, entry: Entry | EntryId) -> tuple[Entry, ...]:
        """What a generation was computed on: exactly these versions, in this order."""
        with self._reading():
            node = self._doc.order.sound()[self._doc.find(entry)]
            ids, pins = self._doc.order.frame_list(node.frame)
            return tuple(self._doc.entry(i, pins[i]) for i in ids)

    def generations(self) -> Iterator[Entry]:
        """The sealed generations, shown or not, youngest first."""
        with self._reading():
            found = [node for node in self._doc.order.sound().values() if node.frame is not None]
        for node in sorted(found, key=lambda node: node.age, reverse=True):
            entry = self.entry(node.id)
            if entry.sealed:
                yield entry

    @property
    def forked_from(self) -> Mapping[str, JSON] | None:
        """Where a fork comes from: ``conversation``, ``entry``, and the hash of the ``transcript`` it stood in."""
        with self._reading():
            text = self._replica.get(schema.META, "forked_from")
        try:
            value = parse_json(text)
        except InvalidContent:
            return None
        return value if isinstance(value, dict) else None

    def copy_to(self, other: Conversation, entry: Entry | EntryId) -> None:
        """Write this conversation up to an entry of its transcript into an empty one. ``Repo.fork`` calls it."""
        with self._reading():
            chosen = self._doc.find(entry, shown=True)
            transcript = self._doc.transcript()
            entries = copy_until(self._doc, self._replica, chosen)
            acts = copy_acts(self._doc, self._replica, entries)
            sealed = {each: self._sealed_for(other, each) for each in entries}
        with other._editing() as edit:
            edit.put(schema.META, "forked_from", provenance(self.id, chosen, transcript.hash))
            for each, fields in entries.items():
                edit.put_node(schema.ENTRIES, each, {**fields, **sealed[each]}, copied=True)
            for key, text in acts.items():
                edit.put(schema.ACTS, key, text)
        with other._reading():
            shown = chosen in other._doc.order.now().visible
        if not shown:  # what was written on it, and so kept it beside a rival, is not in the fork
            other.select(chosen)

    def unsealed(self) -> tuple[Entry, ...]:
        """Entries that somebody began to write and nobody finished, other than those this object is writing."""
        with self._reading():
            readable = self._doc.readable
            unfinished = [i for i in self._doc.open_ones() if not readable[i].versions and not readable[i].erased]
            return tuple(self._doc.shown(i) for i in unfinished if i not in self._streams)

    # writing

    def append(
        self,
        role: Role,
        content: Content = (),
        *,
        call: ToolCall | None = None,
        frame: Transcript | None = None,
        assumed: bool = False,
        hidden: Hidden | None = None,
        instead_of: Entry | EntryId | None = None,
        model: Mapping[str, JSON] | None = None,
        author: str | None = None,
        **config: JSON,
    ) -> Entry:
        """Add an entry at the end of what is visible; it is on disk when this returns.

        An attachment (``Blob``) is copied into the repo first; its source may go afterwards.
        ``call``: the tool call that a tool result answers (from ``entry.tool_calls``). ``frame``: the transcript that a
        generation was computed on. ``assumed``: an imported generation, nobody knows what was really sent.
        ``instead_of``: stand for the same turn as that entry. ``config``: settings that count from here on
        (``tools=[...]``, ``date="2026-11-22"``, ``template={...}``); system entries only.
        """
        parts = parts_of(self._kept(content), role)
        if role == "tool" and call is None and instead_of is None:
            raise InvalidContent(
                "A tool result answers a call.", hint="Pass call=, one of entry.tool_calls of the answer that made it."
            )
        if config:
            if role != "system":
                raise InvalidContent("Settings travel in system entries.", hint='Use append("system", ..., tools=...).')
            parts += (Config(dict(config)),)
        with self._editing():
            head = self._head(role, call=call, frame=frame, assumed=assumed, instead_of=instead_of, model=model)
            head = replace(head, author=self.author if author is None else author)
            return self._create(head, parts, hidden or {})

    def stream(
        self,
        role: Role = "assistant",
        *,
        frame: Transcript | None = None,
        instead_of: Entry | EntryId | None = None,
        model: Mapping[str, JSON] | None = None,
        author: str | None = None,
        frame_as: Frame | None = None,
        interval: float = 0.1,
    ) -> Stream:
        """Begin an entry that others see grow; a context manager that seals it at the end (docs/semantics.md, O9).

        ``interval``: seconds between two writes to the document while text keeps coming.
        ``frame_as``: the frame to record, where the caller knows more of it than ``frame`` (renderer, sent).
        """
        with self._editing() as edit:
            head = self._head(role, frame=frame, instead_of=instead_of, model=model, frame_as=frame_as)
            head = replace(head, author=self.author if author is None else author, frame=frame_as or head.frame)
            entry = new_entry_id(self._random)
            with self._showing(entry, head.alternative_of):
                edit.put_node(schema.ENTRIES, entry, {"head": schema.write_head(head)})
                edit.put_text(schema.ENTRIES, entry, schema.live_name(0, "text"))
            stream = Stream(self, entry, role, clock=self._clock, interval=interval)
            self._streams[entry] = stream
        return stream

    def edit(self, entry: Entry | EntryId, content: Content, *, author: str | None = None) -> Entry:
        """Say something else in an entry's place. The old one stays, as an alternative. Parts that are not text stay
        too."""
        content = self._kept(content)
        with self._editing():
            old = self._doc.shown(self._doc.find(entry))
            parts = parts_of(content, old.role)
            if isinstance(content, str):
                parts += tuple(part for part in old.parts if not isinstance(part, (Text, ToolResult)))
            head = replace(
                self._head(old.role, instead_of=old.id),
                author=self.author if author is None else author,
                frame=None,
                answers=old.answers,
            )
            return self._create(head, parts, {})

    def select(self, entry: Entry | EntryId) -> None:
        """Show an entry, and with it everything on the way to it; what stood in its place goes elsewhere. Raises
        Withheld."""
        with self._editing() as edit:
            chosen = self._doc.find(entry)
            self._doc.check_not_withheld(chosen)
            lamport, seen = self._doc.order.next_lamport([chosen]), self._doc.order.newest()
            for group in self._doc.order.forks_on_path(chosen):
                act = Selection(group, self.session, lamport, chosen, seen)
                edit.put(schema.ACTS, schema.selection_key(act), schema.write_selection(act))

    def keep(self, entry: Entry | EntryId) -> None:
        """Have an alternative take part that an erase withholds: one made of the erased entry by somebody who had not
        seen the erase. Read it first: it may say what was erased. Where it is not withheld, nothing happens.

        Which alternative is shown is for ``select`` and the rules, as for any other one.
        """
        with self._editing() as edit:
            kept = self._doc.find(entry)
            if kept in self._doc.order.now().withheld:
                act = Keep(kept, self.session, self._doc.order.next_lamport())
                edit.put(schema.ACTS, act.key, write_act(act))

    def summarize(self, *, until: Entry | EntryId, text: str, role: Role = "user", author: str | None = None) -> Entry:
        """Say in a few words what the transcript says up to and with ``until``: prompts hold the summary instead (O10).

        The entries stay in the transcript; system entries stay in prompts. A later summary may cover earlier ones. So a
        conversation outgrows any context window.
        """
        with self._editing():
            last = self._doc.find(until, shown=True)
            covers = self._doc.transcript().until(last)
            head = replace(self._head(role), author=self.author if author is None else author, covers=covers)
            return self._create(head, (Text(text),), {})

    def erase(self, entry: Entry | EntryId, *, also: Iterable[Entry | EntryId | Held] = ()) -> Erased:
        """Remove an entry's words for good, on every device that ever merges with this one (O7).

        Every version, live text and hidden field goes, with the alternatives of the same content, and the token logs
        of every answer that was computed on it. The entry's place stays, and a model that is asked again is not shown
        it. What other devices, caches and the relay hold goes when the erase reaches them. An edit of the entry that
        nobody here had seen is withheld when it comes: ``transcript().elsewhere`` lists it, until it is kept (``keep``)
        or erased.

        What is returned says which entries were erased, and what still holds the words (``still_held``): edits of them,
        summaries, other entries, copies in other conversations of this repo. ``also``: more entries to erase, such as
        those of that list; a copy in another conversation is erased there.
        """
        with self._editing() as edit:
            named = [self._doc.find(entry), *(self._doc.find(self._held_here(other)) for other in also)]
            chosen = {copy for each in named for copy in with_copies(self._doc, each)}
            words, lamport = words_of(self._doc, chosen), self._doc.order.next_lamport()
            erase(self._doc, self._replica, edit, chosen, session=self.session, lamport=lamport)
            self._stale_bytes = True
            entries = by_age(chosen, self._doc.order.sound())
        return Erased(tuple(entries), lambda: self._still_held(entries, words))

    def seal(self, entry: Entry | EntryId, status: Literal["stopped", "failed"] = "stopped") -> Entry:
        """End an entry that its writer left unfinished. If the writer lives after all, its own seal is another
        version."""
        with self._editing():
            unfinished = self._doc.find(entry)
            readable = self._doc.readable[unfinished]
            if not readable.versions and not readable.erased:
                self._write_version(unfinished, readable.head.role, readable.live, status=status)
        return self.entry(unfinished)

    def blobs(self) -> set[str]:
        """The hashes of all attachments that any version of any entry names, shown or not."""
        with self._reading():
            return named_in(self._replica, schema.ENTRIES)

    def rotate_key(self) -> KeyId:
        """Seal hidden fields under a new key from now on; its id. What older keys sealed stays, and they still open it.
        Other devices need the new key to read what is sealed from now on (``repo.keyring.export``)."""
        if self._keyring is None:
            raise KeyMissing("This conversation has no keyring.", hint="Get it from a repo.")
        return self._keyring.rotate(self.id).id

    def stop(self, entry: Entry | EntryId) -> None:
        """Ask whoever is writing an entry, on whatever device, to stop. A generation obeys, and keeps what was said."""
        with self._editing() as edit:
            act = Stop(self._doc.find(entry), self.session, self._doc.order.next_lamport())
            edit.put(schema.ACTS, act.key, write_act(act))

    def stop_asked(self, entry: Entry | EntryId) -> bool:
        """Whether somebody asked the writer of an entry to stop."""
        with self._reading():
            return (entry.id if isinstance(entry, Entry) else entry) in self._doc.stops

    def claim(self, call: ToolCall) -> ToolClaim:
        """Say that this device means to run a tool call; run it only if the claim is ``granted()``."""
        answers = self._answers(call, None)
        assert answers is not None
        with self._editing() as edit:
            act = Claim(call_hash(*answers), self.session, self._doc.order.next_lamport())
            if act.key not in self._claims:
                edit.put(schema.ACTS, act.key, write_act(act))
                self._claims[act.key] = ToolClaim(lambda: self._other_claims(act))
            return self._claims[act.key]

    def _other_claims(self, mine: Claim) -> tuple[Claim, ...]:
        with self._lock:
            claims = self._doc.claims.get(mine.call, {}).values()
            others = (claim for claim in claims if claim.session != mine.session)
            return tuple(sorted(others, key=lambda claim: (claim.lamport, claim.session)))

    def acknowledged(self) -> None:
        """A relay has more of this document on disk; everything that stood before it in its log has been read."""
        with self._lock:
            for key, claim in self._claims.items():
                if self._sync_state(EntryId(key)) == "durable":
                    claim.decide()

    def results(self, call: ToolCall) -> tuple[Entry, ...]:
        """Every result of a tool call, shown or not, oldest first: more than one where two devices ran it. What an
        erase withholds is not among them."""
        answers = self._answers(call, None)
        with self._reading():
            withheld = self._doc.order.now().withheld
            nodes = [node for node in self._doc.order.sound().values() if node.answers == (answers and answers[0])]
            found = [self._doc.shown(node.id) for node in sorted(nodes, key=lambda node: node.age)]
            return tuple(entry for entry in found if entry.answers == answers and entry.id not in withheld)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything written inside becomes one update: all of it is kept, or none."""
        with self._editing():
            yield

    def verify(self) -> list[Problem]:
        """Re-derive every hash and frame, and open every sealed field whose key is here; what does not hold, oldest
        first."""
        with self._reading():
            return verify(self._replica, self._place)

    def set_created(self, created_at: float) -> None:
        """Write the document's own facts; once, by whoever creates it."""
        with self._editing() as edit:
            edit.put(schema.META, "schema", schema.SCHEMA)
            edit.put(schema.META, "kind", "conversation")
            edit.put(schema.META, schema.IDENTITY + self.id, "1")
            edit.put(schema.META, "created_at", str(schema.write_time(created_at)))

    def observe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after every change, local and remote, in order, from one thread. Returns what stops it."""
        with self._lock:
            self.load()
            self._callbacks.append(callback)
        self._observed()

        def stop() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return stop

    # who is here

    def present(self, state: Mapping[str, JSON] | None) -> None:
        """Say to whoever has this conversation open what goes on here: ``{"typing": True}``, say, or {} for just being
        here. None takes it back. Kept nowhere; without a relay nothing happens. At most 3,584 bytes as JSON.

        Keys with a meaning: ``typing`` (bool), ``author`` (as the repo's, where left out), ``generating`` (a model's
        name; ``generate`` sets it). Closing the conversation takes the state back. Raises InvalidContent."""
        self._presence().present(state)

    def presence(self) -> tuple[Present, ...]:
        """Who else is here, on other devices and in other processes, as far as a relay has told. Who says nothing for
        30 s is held for gone."""
        return self._presence().others()

    def observe_presence(self, callback: Callable[[tuple[Present, ...]], None]) -> Callable[[], None]:
        """Call back with ``presence()`` whenever it changes, from one thread. Returns what stops it."""
        return self._presence().observe(callback)

    def generating(self, model: str) -> AbstractContextManager[None]:
        """While it is open, tell others that a model computes an answer here."""
        return self._presence().generating(model)

    # what Stream uses

    def abandon(self, entry: EntryId) -> None:
        """Nobody here writes this stream any more; it counts as unfinished."""
        with self._lock:
            self._streams.pop(entry, None)

    def grow(self, entry: EntryId, index: int, part_type: str, text: str) -> bool:
        """Append to a live part. False where somebody sealed the entry meanwhile: the text is then nowhere but here."""
        with self._editing() as edit:
            readable = self._doc.find_readable(entry)
            if readable is None or readable.versions or readable.erased:
                return False
            name = schema.live_name(index, part_type)
            if not edit.append_text(schema.ENTRIES, entry, name, text):
                edit.put_text(schema.ENTRIES, entry, name)
                edit.append_text(schema.ENTRIES, entry, name, text)
            return True

    def finish(
        self,
        entry: EntryId,
        role: Role,
        parts: Sequence[Part],
        *,
        status: Literal["complete", "stopped", "failed"],
        hidden: Callable[[ContentHash], Hidden],
        usage: Mapping[str, JSON] | None,
    ) -> Entry:
        """Seal a stream: its version and hidden fields come, its live text goes, in one update."""
        parts = parts_of(self._kept(parts), role)
        with self._editing():
            self._streams.pop(entry, None)
            readable = self._doc.find_readable(entry)  # None: an erase is under way, and its mark has not arrived
            if readable is None or not readable.erased:
                version = self._write_version(entry, role, parts, status=status, usage=usage)
                self._write_hidden(entry, hidden(version))
        return self.entry(entry)

    # inside

    def _head(
        self,
        role: Role,
        *,
        call: ToolCall | None = None,
        frame: Transcript | None = None,
        assumed: bool = False,
        instead_of: Entry | EntryId | None = None,
        model: Mapping[str, JSON] | None = None,
        frame_as: Frame | None = None,
    ) -> schema.Head:
        if role not in ROLES:
            raise InvalidContent(f"{role!r} is not a role.", hint=f"Use one of {', '.join(ROLES)}.")
        tips = self._doc.order.now().tips
        old = self._doc.readable[self._doc.find(instead_of)].head if instead_of is not None else None
        if old:
            if frame is not None:
                raise InvalidContent(
                    "An answer in place of another stands on that one's frame.", hint="Give frame or instead_of."
                )
            parents, pinned = old.parents, old.frame
        else:
            parents = frame.parents() if frame is not None else tips
            pinned = frame_as or (frame.frame(assumed=assumed) if frame is not None else None)
        instead = self._doc.find(instead_of) if instead_of is not None else None
        answers = self._answers(call, old)
        references = [*parents, *((instead,) if instead else ()), *(answers[:1] if answers else ())]
        return schema.Head(
            role=role,
            author=self.author,
            session=self.session,
            parents=parents,
            lamport=self._doc.order.next_lamport(references),
            created_at=schema.write_time(self._clock()),
            after=tips if set(tips) != set(parents) else (),
            alternative_of=instead,
            answers=answers,
            frame=pinned,
            model=model,
            saw_erased=self._doc.order.erased_origins(instead) if instead else (),
        )

    def _held_here(self, found: Entry | EntryId | Held) -> Entry | EntryId:
        if not isinstance(found, Held):
            return found
        if found.conversation != self.id:
            raise InvalidContent(
                f"Entry {found.entry} is in conversation {found.conversation}.",
                hint="Erase it there: repo.get(held.conversation).erase(held.entry).",
            )
        return found.entry

    def _still_held(self, erased: Sequence[EntryId], words: Set[str]) -> list[Held]:
        """What holds erased words: here, and in other conversations that have the same entries (forks, and what this
        one was forked from)."""
        with self._reading():
            found = [Held(self.id, entry, kind) for entry, kind in holders(self._doc, erased, words)]
            origin, copied = self._copied_from()
            for entry in erased:
                erased_there = dict(self._tables.copies(entry)) if self._tables is not None else {}
                if origin is not None and entry in copied:
                    erased_there.setdefault(origin, False)
                found += [Held(DocumentId(i), entry, "copy") for i, gone in erased_there.items() if not gone]
        return found

    def _copied_from(self) -> tuple[str | None, Set[EntryId]]:
        """The conversation that this one is a fork of, and the entries that came from there."""
        came = self.forked_from or {}
        at, origin = came.get("entry"), came.get("conversation")
        if not isinstance(at, str) or not isinstance(origin, str) or at not in self._doc.order.now().visible:
            return None, frozenset()
        return origin, until(self._doc, EntryId(at))

    def _answers(self, call: ToolCall | None, old: schema.Head | None) -> tuple[EntryId, str] | None:
        if call is None:
            return old.answers if old else None
        if call.entry is None or call.entry not in self._doc.order.sound():
            raise InvalidContent(
                f"The tool call {call.id!r} is not from an entry of this conversation.",
                hint="Take it from entry.tool_calls.",
            )
        return (call.entry, call.id)

    def _kept(self, content: Content) -> Content:
        """The content, with its attachments on disk: before an entry names them, and before anybody waits for it."""
        if isinstance(content, Blob):
            return keep(content, self._blobs)
        if isinstance(content, (str, Part)):
            return content
        if not isinstance(content, Iterable):
            raise InvalidContent(
                f"{type(content).__name__} can't be the content of an entry.",
                hint="Pass text or parts such as Text(...).",
            )
        return tuple(keep(part, self._blobs) if isinstance(part, Blob) else part for part in content)

    def _create(self, head: schema.Head, parts: Sequence[Part], hidden: Hidden) -> Entry:
        entry = new_entry_id(self._random)
        name, text = schema.write_version(
            head.role, tuple(parts), status="complete", lamport=head.lamport, by=head.session, nonce=self._random(12)
        )
        fields: dict[str, str | bytes] = {"head": schema.write_head(head), f"version:{name}": text}
        fields |= {schema.hidden_key(key): self._hidden_value(entry, key, value) for key, value in hidden.items()}
        with self._showing(entry, head.alternative_of) as edit:
            edit.put_node(schema.ENTRIES, entry, fields)
        return self._doc.shown(entry)

    @contextmanager
    def _showing(self, entry: EntryId, instead_of: EntryId | None) -> Iterator[Edit]:
        """Write an entry. What is said in the place of something shown is shown, also where a selection decided."""
        replaces_shown = instead_of in self._doc.order.now().visible
        with self._editing() as edit:
            yield edit
        if replaces_shown and entry not in self._doc.order.now().visible:
            self.select(entry)

    def _write_version(
        self,
        entry: EntryId,
        role: Role,
        parts: Sequence[Part],
        *,
        status: Literal["complete", "stopped", "failed"],
        usage: Mapping[str, JSON] | None = None,
    ) -> ContentHash:
        lamport, nonce = self._doc.order.next_lamport(), self._random(12)
        name, text = schema.write_version(
            role, tuple(parts), status=status, lamport=lamport, by=self.session, nonce=nonce, usage=usage
        )
        with self._editing() as edit:
            edit.put_field(schema.ENTRIES, entry, f"version:{name}", text)
            for field in self._replica.node(schema.ENTRIES, entry) or ():
                if field.startswith("live:"):
                    edit.delete_field(schema.ENTRIES, entry, field)
        return name

    def _write_hidden(self, entry: EntryId, hidden: Hidden) -> None:
        with self._editing() as edit:
            for name, value in hidden.items():
                if name not in self._doc.readable[entry].hidden:
                    value = self._hidden_value(entry, name, value)
                    edit.put_field(schema.ENTRIES, entry, schema.hidden_key(name), value)

    def _hidden_value(self, entry: EntryId, name: str, value: bytes | HiddenField) -> bytes:
        return schema.write_hidden(_hidden_field(value), self._place(entry, name), self._random)

    def _sealed_for(self, other: Conversation, entry: EntryId) -> dict[str, bytes]:
        """The sealed fields of an entry that open here, sealed anew for its copy in another conversation."""
        hidden = self._doc.readable[entry].hidden
        return {
            f"hidden:{name}": other._hidden_value(entry, name, field)
            for name, field in hidden.items()
            if field.sealed and not field.locked
        }

    def _place(self, entry: EntryId, name: str) -> FieldAddress:
        return FieldAddress(self.id, entry, name, self._keyring)

    def settle(self) -> None:
        """Bring the tables of the file up to date with the document."""
        with self._lock:
            if self._tables is not None and self._open_edit is None:
                self.load()
                self.refresh()
                self._tables.settle()

    def _page(self, last: int, before: Entry | EntryId | None) -> tuple[Entry, ...] | None:
        if self._loaded or self._closed or self._tables is None:
            return None
        rows = self._tables.page(last, before.id if isinstance(before, Entry) else before)
        if rows is None:
            return None
        return tuple(entry_of_row(*row, self._sync_state, self._place, self._blobs) for row in rows)

    def _reset(self) -> None:
        self._note_visible()
        self._doc = ConversationView(self._sync_state, self._lock, self._place, self._blobs)
        self._check_schema()
        rows = self._tables.nodes() if self._tables is not None and self._newer is None else None
        if rows is not None:
            self._doc.restore(self._replica, rows)
        else:
            self._doc.read_all(self._replica)
        if self._tables is not None:
            source = Projector(self._doc, self._replica) if self._newer is None else None
            self._tables.follow(source)
        self._report(local=False)

    def _absorb(self, touched: Touched, *, local: bool) -> None:
        self._note_visible()
        if touched.of(schema.META):
            self._check_schema()
            if self._newer is not None and self._tables is not None:
                self._tables.follow(None)
        changed = self._doc.read(self._replica, touched)
        if self._told is not None:
            self._told[1].update(changed)
        self._stale_bytes = self._stale_bytes or not self._doc.erased.isdisjoint(touched.of(schema.ENTRIES))
        if not local:
            self._report(local=False)

    def _on_disk(self, *, local: bool) -> None:
        self._report(local=local)
        if local and self._stale_bytes:
            self._purge()

    def _sync_state(self, entry: EntryId) -> SyncState:
        """Which relays have an entry. What is being written just now has not even been queued."""
        return "local" if self._open_edit is not None and entry in self._edited else self._synced(entry)

    def _note_visible(self) -> None:
        if self._callbacks and self._told is None:
            self._told = set(self._doc.order.now().visible), set()

    def _merged(self) -> None:
        """After a merge: remove what it brought back beside an erase."""
        dirty = self._newer is None and not is_clean(self._doc)
        if dirty:
            with self._editing() as edit:
                clean(self._doc, self._replica, edit)
        if dirty or self._stale_bytes or len(self._doc.erased) != self._journal.purged():
            self._purge()

    def _purge(self) -> None:
        """Remove erased words from the file, and from whatever else was derived from them."""
        with self._lock:
            self._on_erase()  # first: should it fail, the purge is still owed, and this with it
            while not self._journal.purge(self._replica.snapshot, len(self._doc.erased)):
                self._take_news()
            self._stale_bytes = False
        released, self._doc.released = self._doc.released, set()
        if released and self._blobs is not None:
            self._blobs.release(released)

    def _report(self, *, local: bool) -> None:
        """Tell observers what came, changed and went since they were told last."""
        told, self._told = self._told, None
        if told is None:
            return
        before, changed = told
        now = self._doc.order.now()
        change = Change(
            added=tuple(self._doc.shown(i) for i in (*now.head, *now.tail) if i not in before),
            changed=tuple(self._doc.shown(i) for i in sorted(changed) if i in before and i in now.visible),
            removed=tuple(i for i in before if i not in now.visible),
            local=local,
        )
        if change.added or change.changed or change.removed:
            for callback in tuple(self._callbacks):
                self._dispatch(lambda callback=callback: callback(change))  # type: ignore[misc]


def _hidden_field(value: Any) -> HiddenField:
    if isinstance(value, HiddenField):
        return value
    if isinstance(value, (bytes, bytearray)):
        return HiddenField(bytes(value))
    raise InvalidContent(f"A hidden field holds bytes, not {type(value).__name__}.")
