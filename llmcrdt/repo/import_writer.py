"""Histories from elsewhere are written into conversations: each whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from itertools import chain as joined
from itertools import count
from typing import NamedTuple, TypeVar

from ..crdt.backend import Backend, Edit, NewNode
from ..crdt.registry import known
from ..document import schema
from ..document.act_writer import select, write_selections
from ..document.conversation import Conversation, core_of
from ..document.core import ConversationCore
from ..document.entry import Part
from ..document.imported import (
    ALONE,
    TOGETHER,
    ImportChain,
    ImportedEntry,
    content_text,
    conversation_of,
    groups_of,
)
from ..document.imported_rows import ImportedRows, row_of_imported
from ..document.nodes import Node, by_age
from ..document.order import Order
from ..document.projection import RULES, IndexRow, read_nodes
from ..exceptions import FormatError, Withheld
from ..ids import DocumentId, EntryId, SessionId, new_session_id
from ..interop.format import Draft
from ..interop.source import Step
from .core import RepoCore

_NOWHERE = (None, None)

PIECE = 3 << 18
"""Bytes of an update that an import writes at a time, about: fewer than a record has, or it would be cut."""


class MadeAs(NamedTuple):
    """A conversation that an import makes. ``crdt``: the kind of its document; None: that of the file. ``local``: it
    stays on this device."""

    crdt: str | None = None
    local: bool = False


class Kept(NamedTuple):
    """A history that was written. ``entries``: how many it has; ``added``: how many of them are new here;
    ``diverged``: whether some of these stand in the place of others."""

    conversation: DocumentId
    title: str
    entries: int
    added: int
    diverged: bool


def keep(
    core: RepoCore,
    beginnings: Sequence[Sequence[str]],
    title: str | None,
    default_title: str,
    history_of: Callable[[DocumentId, bool], tuple[History, Iterable[Draft]]],
    tell: Callable[[], None],
    long: bool,
    made_as: MadeAs,
) -> Kept:
    """Write one history, in one transaction. ``beginnings``: what may name its conversation, the best first. ``title``
    wins over the one that the conversation has, and that over the default. ``history_of``: the history of this
    conversation, with what stands beside it; it is told whether nothing is here yet. ``long``: a thread may help.
    ``made_as``: what it is, where it is new."""
    with core.lock:
        core.listing.refresh()
        id_, kind = _find(core, beginnings, made_as.crdt or core.resources.crdt.kind)
        listed, was_open = core.listing.card(id_), core.documents.core(id_) is not None
        try:
            with core.store.transaction():
                if made_as.local and not core.store.catalog.is_local(id_):
                    if listed is not None or core.store.catalog.kind(id_) is not None:
                        raise FormatError(
                            f"It is in the library already, as {id_}, and shared.",
                            hint="Import it without local, or into another database.",
                        )
                    core.store.catalog.set_local(id_, True)
                core.resources.note_kind(id_, kind)
                conversation = core.documents.conversation(id_)
                empty = not core_of(conversation).document.loaded and not core.store.updates.last_seq(id_)
                history, beside = history_of(id_, empty)
                if empty:
                    _fill(core, core_of(conversation), history, beside, tell, long)
                else:
                    _extend(core, conversation, history, beside)
                if not history.count:
                    raise FormatError("There is no message in it.", hint='Give {"messages": [...]} with at least one.')
                core.store.catalog.add(id_, "conversation")
                name = title if title is not None else listed.title if listed else default_title
                if listed is None:
                    facts = {} if kind == core.resources.crdt.kind else {"crdt": kind}
                    core.listing.put(id_, title=name, created_at=core.resources.clock(), **facts)
                elif name != listed.title:
                    core.listing.put(id_, title=name)
        except BaseException:
            open_core = core.documents.core(id_)
            if open_core is not None and open_core.document.loaded:
                open_core.document.load_again()  # memory must not hold what the file does not
            if not was_open:
                core.documents.forget(id_)
            core.resources.forget_kind(id_)
            core.library.document.load_again()
            raise
        if not was_open:
            core.documents.forget(id_)
    return Kept(id_, name, history.count, history.added, history.diverged)


def _find(core: RepoCore, beginnings: Sequence[Sequence[str]], crdt: str) -> tuple[DocumentId, str]:
    """The conversation that is named so, and the kind of its document: one that is here, of whatever kind, else a new
    one of this kind. One of another kind than the file's has another id: two devices may import the same."""
    own = core.resources.crdt.kind
    found = [
        (_not_deleted(core, beginning if kind == own else [*beginning, f"document of kind {kind}"]), kind)
        for kind in (crdt, *sorted(known() | {own} - {crdt}))
        for beginning in beginnings
    ]
    here = (id_ for id_ in found if core.listing.card(id_[0]) or core.store.catalog.kind(id_[0]) == "conversation")
    return next(here, found[0])


def _not_deleted(core: RepoCore, beginning: Sequence[str]) -> DocumentId:
    for deleted in count():
        id_ = conversation_of(core.library_id, beginning, deleted)
        card = core.listing.card(id_)
        if card is None or not card.deleted:
            return id_
    raise AssertionError


class History:
    """The entries of a history, as they are imported. ``count``: how many there were; ``added``: how many of them are
    new; ``diverged``: whether one had to stand in another's place; ``shown``: the last entry of the shown path;
    ``branches``: whether steps are left that go on elsewhere than after the one before."""

    def __init__(self, id_: DocumentId, steps: Iterator[Step]) -> None:
        self.chain = ImportChain(id_)
        self.count = self.added = 0
        self.diverged = self.branches = False
        self.shown: EntryId | None = None
        self._steps = steps
        self._made: list[EntryId] = []
        self._forks: dict[int | None, ImportChain] = {None: self.chain.copy()}

    def entries(self, choose: Callable[[Make], ImportedEntry], *, to_branch: bool = False) -> Iterator[Placed]:
        """Each entry with its place; ``choose`` makes it. ``to_branch``: only those before the first branch."""
        for step in self._steps:
            if step.after != (self.count - 1 if self.count else None):
                if to_branch:
                    self.branches, self._steps = True, joined([step], self._steps)
                    return
                self.chain = self._forks[step.after].copy()
            draft = step.draft
            answers = (self._made[draft.answers[0]], draft.answers[1]) if draft.answers else None
            make = partial(
                self.chain.make,
                draft.role,
                draft.parts,
                author=draft.author,
                answers=answers,
                hidden=draft.hidden,
                frame_bound=draft.frame_bound,
            )
            entry = choose(make)
            yield self.chain.count, entry
            self.chain.add(entry)
            self._made.append(entry.id)
            if step.forks:
                self._forks[self.count] = self.chain.copy()
            self.shown = entry.id if step.shown else self.shown
            self.count += 1


Placed = tuple[int, ImportedEntry]
Make = Callable[..., ImportedEntry]


class _Batch(NamedTuple):
    """An update that makes some entries, and the rows of the entry index that are known by then."""

    update: bytes
    entries: list[EntryId]
    rows: list[IndexRow]


def _pieces(entries: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Entries with their places, about as many at a time as one record holds."""
    piece: list[Placed] = []
    size = 0
    for place, entry in entries:
        if size > PIECE and (place < ALONE or place % TOGETHER == 0):
            yield piece
            piece, size = [], 0
        piece.append((place, entry))
        size += sum(map(len, entry.fields.values()))
    if piece:
        yield piece


def _fill(
    core: RepoCore,
    target: ConversationCore,
    history: History,
    beside: Iterable[Draft],
    tell: Callable[[], None],
    long: bool,
) -> None:
    """Write a history into a document of which nothing is here: without a replica, for it may be long."""
    journal, session = target.document.journal, new_session_id(core.resources.random)

    def write(edit: Callable[[Edit], object]) -> None:
        replica = target.host.make_replica()
        with replica.edit() as opened:
            edit(opened)
        journal.append(opened.update, session, ())

    write(lambda edit: schema.write_identity(edit, target.id, core.resources.clock()))
    _write(core, target, session, _batches(core.resources.crdt_of(target.id), history, beside), tell, long)
    if not history.branches:
        return
    index, seq = core.store.entries, core.store.updates.last_seq(target.id)
    found = index.nodes(target.id, RULES, seq) or ()
    known = [noted[0] for noted in read_nodes(found) if not isinstance(noted, str)]
    before = [entry for entry, is_shown, _ in found if is_shown]
    order = Order()
    for node in known:
        order.put(node)
    branches = _branches(core.resources.crdt_of(target.id), history, beside, order, _Places(history, known))
    _write(core, target, session, branches, tell, long, shown=len(before))
    shown = history.shown or history.chain.tip
    if shown is not None and (history.diverged or shown not in order.now().visible):
        selections = select(order, session, shown)
        write(lambda edit: write_selections(edit, selections))
        for act in selections:
            order.select(act)
    now, seq = order.now(), core.store.updates.last_seq(target.id)
    ids = [*now.head, *now.tail]
    steady = next((place for place, pair in enumerate(zip(before, ids, strict=False)) if pair[0] != pair[1]), None)
    steady = min(len(before), len(ids)) if steady is None else steady
    index.write(target.id, RULES, seq, steady=steady, shown=ids[steady:])


def _write(
    core: RepoCore,
    target: ConversationCore,
    session: SessionId,
    batches: Generator[_Batch],
    tell: Callable[[], None],
    long: bool,
    shown: int | None = None,
) -> None:
    """Write batches, whose rows stand in the transcript one after the other; or, where ``shown`` are there, not at all
    yet. While one piece is written, a thread makes the next, where it is ``long``: SQLite takes half of the time."""
    store, journal, count = core.store, target.document.journal, 0
    with closing(_ahead(batches) if long else batches) as ready:
        for batch in ready:
            if batch.entries:
                journal.append(batch.update, session, batch.entries)
            seq = store.updates.last_seq(target.id)
            ids = [row.entry for row in batch.rows] if shown is None else []
            steady = count if shown is None else shown
            store.entries.write(target.id, RULES, seq, put=batch.rows, steady=steady, shown=ids, many=True)
            count += len(ids)
            tell()


def _batches(crdt: Backend, history: History, beside: Iterable[Draft]) -> Generator[_Batch]:
    """A history up to its first branch; all of it, where it has none."""
    rows = ImportedRows()
    for piece in _pieces(history.entries(lambda make: make(), to_branch=True)):
        history.added += len(piece)
        settled = [row for _, entry in piece for row in rows.add(entry)]
        yield _Batch(crdt.derive(groups_of(piece)), [entry.id for _, entry in piece], settled)
    apart: list[ImportedEntry] = []
    for piece in _pieces(enumerate(_beside(history.chain, () if history.branches else beside))):
        yield _Batch(crdt.derive([[entry.node] for _, entry in piece]), [entry.id for _, entry in piece], [])
        apart += [entry for _, entry in piece]
    yield _Batch(crdt.empty, [], rows.finish(apart))


def _branches(
    crdt: Backend, history: History, beside: Iterable[Draft], order: Order, places: _Places
) -> Generator[_Batch]:
    """The rest of a history, from its first branch on. ``order`` gets its entries; their rows have no place yet."""

    def noted(entries: Iterable[Placed]) -> Iterator[Placed]:
        for place, entry in entries:
            if not order.knows(entry.id):
                order.put(places.node(entry))  # one object for both: there may be 100,000
                yield place, entry

    def batch(piece: Sequence[Placed], groups: Iterable[Sequence[NewNode]]) -> _Batch:
        return _Batch(crdt.derive(groups), [entry.id for _, entry in piece], [row_of_imported(e) for _, e in piece])

    for piece in _pieces(noted(history.entries(places.choose))):
        history.added += len(piece)
        yield batch(piece, groups_of(piece))
    for piece in _pieces(noted(enumerate(_beside(history.chain, beside)))):
        yield batch(piece, [[entry.node] for _, entry in piece])


def _beside(chain: ImportChain, drafts: Iterable[Draft]) -> Iterator[ImportedEntry]:
    return (chain.make_beside(draft.parts, draft.hidden) for draft in drafts)


_T = TypeVar("_T")


def _ahead(items: Iterator[_T]) -> Generator[_T]:
    """The items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1, "llmcrdt-import") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _extend(core: RepoCore, conversation: Conversation, history: History, beside: Iterable[Draft]) -> None:
    """Write what is new of a history into a conversation that is here, and see to it that the right branch is shown."""
    target = core_of(conversation)
    with target.reading():
        view = target.view
        sound, visible = view.order.sound(), view.order.now().visible
        known, latest = set(sound), by_age(visible, sound)[-1:]
        places = _PlacesHere(target, history)
        new: list[Placed] = []
        for place, entry in history.entries(places.choose):
            if entry.id not in known:
                known.add(entry.id)
                new.append((place, entry))
        history.added += len(new)
        untouched = all(places.is_imported(i) for i in visible)
        more = [(0, entry) for entry in places.not_said(beside)]
    crdt = core.resources.crdt_of(target.id)
    for piece in _pieces(new):
        target.document.apply(crdt.derive(groups_of(piece)))
    for piece in _pieces(more):
        target.document.apply(crdt.derive([[entry.node] for _, entry in piece]))
    # A history that somebody went on with here stays in sight; one that nobody touched shows its last export.
    shown = history.shown or history.chain.tip
    with suppress(Withheld):
        if history.diverged and not untouched:
            conversation.select(latest[0])
        elif new and shown is not None and (history.diverged or not _is_visible(target, shown)):
            conversation.select(shown)


def _is_visible(target: ConversationCore, entry: EntryId) -> bool:
    with target.reading():
        return entry in target.view.order.now().visible


class _Places:
    """Finds where the entries of a history stand among those that are there: ``nodes``."""

    def __init__(self, history: History, nodes: Iterable[Node]) -> None:
        self._history = history
        self._nodes = {node.id: node for node in nodes}
        self._after: dict[tuple[EntryId, ...], list[EntryId]] = {}
        for node in self._nodes.values():
            self._after.setdefault(node.parents, []).append(node.id)

    def choose(self, make: Make) -> ImportedEntry:
        """The next entry: the one that is there, if any; in the place of another one, if that is there."""
        entry = make()
        if entry.id in self._nodes:
            return entry
        after = self._after.setdefault(entry.head.parents, [])
        rivals = [i for i in by_age(after, self._nodes) if self._nodes[i].alternative_of is None and self._is_own(i)]
        for replaced in rivals:
            again = make(replaced=replaced, instead_of=self._nodes[replaced])
            if again.id in self._nodes:
                return again
        if rivals:
            replaced = rivals[0]
            node = self._nodes[replaced]
            if node.frame is None or entry.head.frame is None or self._is_erased(replaced):
                entry = make(replaced=replaced, instead_of=node)  # else they are alternatives by their frame
            self._history.diverged = True
        after.append(entry.id)
        self._nodes[entry.id] = entry.head.node(entry.id)
        return entry

    def node(self, entry: ImportedEntry) -> Node:
        """The node of an entry of the history, or of one beside it."""
        return self._nodes.get(entry.id) or entry.head.node(entry.id)

    def _is_own(self, entry: EntryId) -> bool:
        """Whether an entry is one of the history's."""
        return True

    def _is_erased(self, entry: EntryId) -> bool:
        return False


class _PlacesHere(_Places):
    """The same in a conversation that has some of the entries, or others in their place."""

    def __init__(self, target: ConversationCore, history: History) -> None:
        self._view, here = target.view, target.view.order.sound()
        super().__init__(history, here.values())
        self._here = frozenset(here)

    def is_imported(self, entry: EntryId) -> bool:
        """Whether no person and no model said it here."""
        chain = self._history.chain
        return self._view.states[entry].head.session in (chain.session, chain.session_beside)

    def not_said(self, drafts: Iterable[Draft]) -> Iterator[ImportedEntry]:
        """Those of what stands beside the history that are not here yet."""
        for draft in drafts:
            entry = self._history.chain.make_beside(draft.parts, draft.hidden)
            if entry.id not in self._nodes and (draft.hidden or not self._beside_says(draft.parts)):
                yield entry

    def _beside_says(self, parts: Sequence[Part]) -> bool:
        """Whether the latest entry that stands beside the history says just this."""
        session = self._history.chain.session_beside
        states = self._view.states
        found = [i for i in self._after.get((), ()) if i in self._here and states[i].head.session == session]
        said = [states[i].versions for i in by_age(found, self._nodes)[-1:]]
        return any(content_text(v.parts) == content_text(parts) for vs in said for v in vs)

    def _is_own(self, entry: EntryId) -> bool:
        return entry not in self._here or self._view.states[entry].head.session == self._history.chain.session

    def _is_erased(self, entry: EntryId) -> bool:
        return entry in self._here and self._view.states[entry].erased is not None
