"""Conversations from elsewhere become ours: each file is kept whole, or not at all.

Of one library a file makes one conversation, on whatever devices it is imported: all ids are derived from the library
and from what the file says. A longer export of the same conversation extends it, a changed one adds alternatives.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from ..document import schema
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
from ..document.imported_rows import ImportedRows
from ..document.nodes import by_age
from ..document.projection import RULES, IndexRow
from ..exceptions import FormatError, LLMCRDTError, Withheld
from ..ids import DocumentId, EntryId, new_session_id
from ..interop.format import Draft, Format, Outline, survey
from ..interop.json_input import Member, read_members
from ..interop.registry import DEFAULT, STREAMED, detect, format_of
from .core import RepoCore
from .repo import Repo, repo_core

_PIECE = 3 << 18
"""Bytes of an update that an import writes at a time, about: fewer than a record has, or it would be cut."""
_OFTEN = 512
"""Messages between two calls of ``progress``."""


@dataclass(frozen=True)
class Source:
    """A file to import. ``open`` opens it, as often as it is asked; ``size``: its bytes."""

    name: str
    size: int
    open: Callable[[], TextIO]


class ImportProgress(NamedTuple):
    """How far an import is. Each file is read twice; ``done`` and ``total`` count the bytes of both times."""

    file: str
    files_done: int
    files: int
    done: int
    total: int


class Imported(NamedTuple):
    """A file that was imported. ``conversation``: its id. ``entries``: the messages of the file, with those that hold
    its settings; ``added``: how many of them are new here; ``diverged``: whether some of these stand in the place of
    others, as alternatives."""

    file: str
    conversation: DocumentId
    title: str
    entries: int
    added: int
    diverged: bool


class NotImported(NamedTuple):
    """A file that was left out, with the reason."""

    file: str
    error: LLMCRDTError


Progress = Callable[[ImportProgress], None]


def import_files(
    repo: Repo,
    files: Iterable[str | os.PathLike[str]],
    *,
    title: str | None = None,
    progress: Progress | None = None,
    format: str | None = None,
    provider: str | None = None,
) -> Iterator[Imported | NotImported]:
    """Import files, and all ``*.json`` in folders, one after the other: each when the iterator is asked for the next. A
    file that can't be read is told, and the others go on.

    ``format``: the name of the format that they are in (``llmcrdt.interop.registry``); None finds it out for each.
    ``provider``: whom the hidden fields of their answers are for, where it is not the format's own.

    A file is imported whole or not at all, also where ``progress`` raises or the process ends. ``title`` wins over
    that of a file, which wins over its name.
    """
    told = progress or (lambda progress: None)
    sources = [source_of(path) for path in _paths(files)]
    total, before = sum(2 * source.size for source in sources), 0
    for number, source in enumerate(sources):

        def tell(done: int, number: int = number, before: int = before, source: Source = source) -> None:
            told(ImportProgress(source.name, number, len(sources), before + done, total))

        try:
            yield import_source(
                repo,
                source,
                title=title,
                default_title=Path(source.name).stem,
                progress=tell,
                format=format,
                provider=provider,
            )
        except FormatError as error:
            yield NotImported(source.name, error)
        before += 2 * source.size
        told(ImportProgress(source.name, number + 1, len(sources), before, total))
    repo_core(repo).store.entries.index_words()


def import_openai_chat(repo: Repo, text: str, *, title: str | None = None, default_title: str = "") -> Conversation:
    """Import OpenAI chat-completions JSON. ``title`` wins over the text's own, that over the default. Raises
    FormatError, and makes nothing."""
    source = Source("", len(text), lambda: io.StringIO(text))
    made = import_source(repo, source, title=title, default_title=default_title, format=DEFAULT)
    return repo.get(made.conversation)


def source_of(path: str | os.PathLike[str]) -> Source:
    """A file in a folder."""
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    return Source(os.fspath(path), size, lambda: open(path, encoding="utf-8", newline=""))


def import_source(
    repo: Repo,
    source: Source,
    *,
    title: str | None = None,
    default_title: str = "",
    progress: Callable[[int], None] = lambda done: None,
    format: str | None = None,
    provider: str | None = None,
) -> Imported:
    """Import one conversation: all of it, or nothing if it raises. ``progress`` gets the bytes read so far; ``format``
    and ``provider`` are those of ``import_files``.

    An assistant's turn gets the frame of all before it, marked ``assumed``: nobody knows what was really sent. Raises
    FormatError, also where the file can't be read.
    """
    try:
        with closing(source.open()) as file:
            about = survey(_Reading(file, 0, progress).members(telling=True))
        found = format_of(format) if format is not None else detect(about)
        return _import(repo_core(repo), source, found, found.outline(about, provider), title, default_title, progress)
    except UnicodeDecodeError:
        raise FormatError(f"{source.name} is not UTF-8 text.", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise FormatError(f"{source.name} can't be read: {error.strerror}.", hint="Check its name.") from None


def _paths(files: Iterable[str | os.PathLike[str]]) -> Iterator[str | os.PathLike[str]]:
    """The files, and of each folder the *.json in it, in the order of their names."""
    for file in files:
        if os.path.isdir(file):
            yield from sorted(Path(file).glob("*.json"))
        else:
            yield file


def _import(
    core: RepoCore,
    source: Source,
    form: Format,
    about: Outline,
    title: str | None,
    default_title: str,
    progress: Callable[[int], None],
) -> Imported:
    with closing(source.open()) as file:
        beginnings = _beginnings(form, about, read_members(file, STREAMED))
    with core.lock:
        core.listing.refresh()
        id_ = _find(core, beginnings)
        listed, was_open = core.library.card(id_), core.documents.core(id_) is not None
        conversation = core.documents.conversation(id_)
        try:
            with core.store.transaction(), closing(source.open()) as file:
                empty = not core_of(conversation).document.loaded and not core.store.updates.last_seq(id_)
                reading = _Reading(file, source.size, progress)
                history = _History(id_, form.drafts(about, reading.members(telling=not empty)))
                if empty:
                    _fill(core, core_of(conversation), history, form.beside(about), reading.tell, source.size > _PIECE)
                else:
                    _extend(core, conversation, history, form.beside(about))
                if not history.chain.count:
                    raise FormatError("There is no message in it.", hint='Give {"messages": [...]} with at least one.')
                core.store.catalog.add(id_, "conversation")
                name = title if title is not None else listed.title if listed else about.title or default_title
                if listed is None:
                    core.library.put(id_, title=name, created_at=core.resources.clock())
                elif name != listed.title:
                    core.library.put(id_, title=name)
        except BaseException:
            if core_of(conversation).document.loaded:
                core_of(conversation).document.load_again()  # memory must not hold what the file does not
            if not was_open:
                core.documents.forget(id_)
            core.library.document.load_again()
            raise
        if not was_open:
            core.documents.forget(id_)
    return Imported(source.name, id_, name, history.chain.count, history.added, history.diverged)


class _Reading:
    """A file that is being read. ``tell`` tells ``progress`` how far, when it has got on."""

    def __init__(self, file: TextIO, before: int, progress: Callable[[int], None]) -> None:
        self._file, self._before, self._progress = file, before, progress
        self._at = self._told = 0

    def members(self, *, telling: bool) -> Iterator[Member]:
        """The contents of the file. ``telling``: tell by the way."""
        for n, member in enumerate(read_members(self._file, STREAMED)):
            if n % _OFTEN == 0:
                self._at = getattr(self._file, "buffer", self._file).tell()
                if telling:
                    self.tell()
            yield member

    def tell(self) -> None:
        if self._at >= self._told + _PIECE:
            self._told = self._at
            self._progress(self._before + self._at)


def _beginnings(form: Format, about: Outline, members: Iterable[Member]) -> list[list[str]]:
    """The things that may name the conversation of a file, the best first: its own id, else its first entries up to the
    first user's, with the answer if it has one. The rest of the file may change between two exports."""
    if about.source_id is not None:
        return [["id", about.source_id]]
    first = ["first entries"] if form.key == format_of(DEFAULT).key else ["first entries", form.key]
    asked = False
    for draft in form.drafts(about.without_settings(), members):
        if asked and draft.role == "assistant":
            return [[*first, f"{draft.role}:{content_text(draft.parts)}"], first]
        if asked:
            break
        first.append(f"{draft.role}:{content_text(draft.parts)}")
        asked = draft.role == "user"
    return [first]


def _find(core: RepoCore, beginnings: Sequence[Sequence[str]]) -> DocumentId:
    """The conversation that is named so: one that is here, else a new one."""
    ids = [_not_deleted(core, beginning) for beginning in beginnings]
    known = (id_ for id_ in ids if core.library.card(id_) or core.store.catalog.kind(id_) == "conversation")
    return next(known, ids[0])


def _not_deleted(core: RepoCore, beginning: Sequence[str]) -> DocumentId:
    for deleted in count():
        id_ = conversation_of(core.library_id, beginning, deleted)
        card = core.library.card(id_)
        if card is None or not card.deleted:
            return id_
    raise AssertionError


class _History:
    """The entries of a file, as they are imported. ``added``: how many of them are new; ``diverged``: whether one had
    to stand in another's place."""

    def __init__(self, id_: DocumentId, drafts: Iterator[Draft]) -> None:
        self.chain = ImportChain(id_)
        self.added = 0
        self.diverged = False
        self._drafts = drafts

    def entries(self, choose: Callable[[Make], ImportedEntry]) -> Iterator[tuple[int, ImportedEntry]]:
        """Each entry with its place; ``choose`` makes it."""
        chain = self.chain
        made: list[EntryId] = []
        for place, draft in enumerate(self._drafts):
            answers = (made[draft.answers[0]], draft.answers[1]) if draft.answers else None
            make = partial(
                chain.make,
                draft.role,
                draft.parts,
                author=draft.author,
                answers=answers,
                hidden=draft.hidden,
                frame_bound=draft.frame_bound,
            )
            entry = choose(make)
            yield place, entry
            chain.add(entry)
            made.append(entry.id)


Make = Callable[..., ImportedEntry]


class _Batch(NamedTuple):
    """An update that makes some entries, and the rows of the entry index that are known by then."""

    update: bytes
    entries: list[EntryId]
    rows: list[IndexRow]


def _pieces(entries: Iterable[tuple[int, ImportedEntry]]) -> Iterator[list[tuple[int, ImportedEntry]]]:
    """Entries with their places, about as many at a time as one record holds."""
    piece: list[tuple[int, ImportedEntry]] = []
    size = 0
    for place, entry in entries:
        if size > _PIECE and (place < ALONE or place % TOGETHER == 0):
            yield piece
            piece, size = [], 0
        piece.append((place, entry))
        size += sum(map(len, entry.fields.values()))
    if piece:
        yield piece


def _fill(
    core: RepoCore,
    target: ConversationCore,
    history: _History,
    beside: Draft | None,
    tell: Callable[[], None],
    long: bool,
) -> None:
    """Write a history into a document of which nothing is here: without a replica, for it may be long. While one piece
    is written, a thread makes the next, where it is ``long``: SQLite takes half of the time."""
    store, journal = core.store, target.document.journal
    session = new_session_id(core.resources.random)
    replica = target.host.make_replica()
    with replica.edit() as edit:
        schema.write_identity(edit, target.id, core.resources.clock())
    journal.append(edit.update, session, ())
    batches = _batches(core, history, beside)
    with closing(_ahead(batches) if long else batches) as ready:
        for batch in ready:
            if batch.entries:
                journal.append(batch.update, session, batch.entries)
            seq = store.updates.last_seq(target.id)
            store.entries.write(target.id, RULES, seq, gone=(), put=batch.rows, moved=(), many=True)
            tell()


def _batches(core: RepoCore, history: _History, beside: Draft | None) -> Generator[_Batch]:
    rows = ImportedRows()
    for piece in _pieces(history.entries(lambda make: make())):
        history.added += len(piece)
        settled = [row for _, entry in piece for row in rows.add(entry)]
        yield _Batch(core.crdt.derive(groups_of(piece)), [entry.id for _, entry in piece], settled)
    more = history.chain.make_beside(beside.parts) if beside else None
    update = core.crdt.derive([[more.node]]) if more else core.crdt.empty
    yield _Batch(update, [more.id] if more else [], rows.finish(more))


_T = TypeVar("_T")


def _ahead(items: Iterator[_T]) -> Generator[_T]:
    """The items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1, "llmcrdt-import") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _extend(core: RepoCore, conversation: Conversation, history: _History, beside: Draft | None) -> None:
    """Write what is new of a history into a conversation that is here, and see to it that the right branch is shown."""
    target, chain = core_of(conversation), history.chain
    with target.reading():
        view = target.view
        sound, visible = view.order.sound(), view.order.now().visible
        known, latest = set(sound), by_age(visible, sound)[-1:]
        places = _Places(target, history)
        new = [(place, entry) for place, entry in history.entries(places.choose) if entry.id not in known]
        history.added = len(new)
        only_imported = history.diverged and all(places.is_imported(i) for i in visible)
        more = chain.make_beside(beside.parts) if beside and not places.beside_says(beside.parts) else None
    for piece in _pieces(new):
        target.document.apply(core.crdt.derive(groups_of(piece)))
    if more:
        target.document.apply(core.crdt.derive([[more.node]]))
    if history.diverged and chain.tip is not None:
        # A history that somebody went on with here stays in sight; one that nobody touched shows its last export.
        with suppress(Withheld):
            conversation.select(chain.tip if only_imported else latest[0])


class _Places:
    """Finds where the entries of a history stand in a conversation that has some of them, or others in their place."""

    def __init__(self, target: ConversationCore, history: _History) -> None:
        self._view, self._history = target.view, history
        self._sound = target.view.order.sound()
        self._after: dict[tuple[EntryId, ...], list[EntryId]] = {}
        for node in self._sound.values():
            self._after.setdefault(node.parents, []).append(node.id)

    def is_imported(self, entry: EntryId) -> bool:
        """Whether no person and no model said it here."""
        chain = self._history.chain
        return self._view.states[entry].head.session in (chain.session, chain.session_beside)

    def beside_says(self, parts: Sequence[Part]) -> bool:
        """Whether the latest entry that stands beside the history says just this."""
        session = self._history.chain.session_beside
        found = [i for i in self._after.get((), ()) if self._view.states[i].head.session == session]
        said = [self._view.states[i].versions for i in by_age(found, self._sound)[-1:]]
        return any(content_text(v.parts) == content_text(parts) for vs in said for v in vs)

    def choose(self, make: Make) -> ImportedEntry:
        """The next entry: the one that is here, if any; in the place of another one, if that is here."""
        entry = make()
        if entry.id in self._sound:
            return entry
        session = self._history.chain.session
        after = self._after.get(entry.head.parents, ())
        heads = [(i, self._view.states[i].head) for i in by_age(after, self._sound)]
        rivals = [(i, head) for i, head in heads if head.session == session and head.alternative_of is None]
        if not rivals:
            return entry
        replaced, head = rivals[0]
        erased = self._view.states[replaced].erased is not None
        if head.frame is None or entry.head.frame is None or erased:  # else they are alternatives by their frame
            entry = make(replaced=replaced, instead_of=head)
        self._history.diverged = self._history.diverged or entry.id not in self._sound
        return entry
