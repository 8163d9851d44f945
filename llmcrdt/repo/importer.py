"""Conversations from elsewhere become ours: each is kept whole, or not at all.

Of one library a file makes the same conversations, on whatever devices it is imported: all ids are derived from the
library and from what the file says. A longer export of a conversation extends it, a changed one adds alternatives.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TextIO

from ..document.conversation import Conversation
from ..document.imported import content_text
from ..exceptions import FormatError, LLMCRDTError
from ..ids import DocumentId
from ..interop.format import Draft, Format, Outline, survey
from ..interop.json_input import Member, read_members
from ..interop.registry import DEFAULT, STREAMED, detect, detect_source, format_of, source_of, sources
from ..interop.source import File, NotTold, Source, Told, in_a_row
from .core import RepoCore
from .import_writer import PIECE, History, MadeAs, keep
from .repo import Repo, repo_core

_OFTEN = 512
"""Messages between two calls of ``progress``."""


@dataclass(frozen=True)
class ImportFile:
    """A file in a format, to import. ``open`` opens it, as often as it is asked; ``size``: its bytes."""

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
    """A conversation that was imported. ``conversation``: its id. ``entries``: its messages in the file, with those
    that hold its settings; ``added``: how many of them are new here; ``diverged``: whether some of these stand in the
    place of others, as alternatives. ``kept``: how many things of each kind are kept and not shown; ``refused``: what
    of it could not be read, and where."""

    file: str
    conversation: DocumentId
    title: str
    entries: int
    added: int
    diverged: bool
    kept: Mapping[str, int] = MappingProxyType({})
    refused: Sequence[str] = ()


class NotImported(NamedTuple):
    """A file that was left out, with the reason; or one of its conversations: ``where`` says which."""

    file: str
    error: LLMCRDTError
    where: str = ""


Progress = Callable[[ImportProgress], None]


def import_files(
    repo: Repo,
    files: Iterable[str | os.PathLike[str]],
    *,
    title: str | None = None,
    progress: Progress | None = None,
    format: str | None = None,
    provider: str | None = None,
    crdt: str | None = None,
    local: bool = False,
) -> Iterator[Imported | NotImported]:
    """Import files, and those in folders whose names end as such files' do, one after the other: each conversation when
    the iterator is asked for the next. A file that can't be read is told, and the others go on.

    ``format``: the name of the format or the source that they are of (``llmcrdt.interop.registry``); None finds it out
    for each. ``provider``: whom the hidden fields of their answers are for, where it is not the format's own.
    ``crdt``: the kind of the documents of conversations that are new here; None: that of the database. ``local``: these
    stay on this device, as those of ``Repo.create(local=True)``; one that is shared already is left out.

    A conversation is imported whole or not at all, also where ``progress`` raises or the process ends. ``title`` wins
    over that of a file, which wins over its name.
    """
    told = progress or (lambda progress: None)
    repo_core(repo).resources.check_kind(crdt)
    paths = [os.fspath(path) for path in _paths(files)]
    sizes = [2 * _size(path) for path in paths]
    for number, path in enumerate(paths):
        before = sum(sizes[:number])

        def tell(done: int, number: int = number, before: int = before, path: str = path) -> None:
            told(ImportProgress(path, number, len(paths), before + done, sum(sizes)))

        try:
            source = source_of(format) if format in sources() else None if format else _detected(path)
            if source is not None:
                yield from _import_source(repo, source, File(path), title, provider, tell, MadeAs(crdt, local))
            else:
                yield import_file(
                    repo,
                    _file_at(path),
                    title=title,
                    default_title=Path(path).stem,
                    progress=tell,
                    format=format,
                    provider=provider,
                    crdt=crdt,
                    local=local,
                )
        except FormatError as error:
            yield NotImported(path, error)
        told(ImportProgress(path, number + 1, len(paths), before + sizes[number], sum(sizes)))
    repo_core(repo).store.entries.index_words()


def import_openai_chat(
    repo: Repo, text: str, *, title: str | None = None, default_title: str = "", crdt: str | None = None
) -> Conversation:
    """Import OpenAI chat-completions JSON. ``title`` wins over the text's own, that over the default. Raises
    FormatError, and makes nothing."""
    source = ImportFile("", len(text), lambda: io.StringIO(text))
    made = import_file(repo, source, title=title, default_title=default_title, format=DEFAULT, crdt=crdt)
    return repo.get(made.conversation)


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _file_at(path: str) -> ImportFile:
    return ImportFile(path, _size(path), lambda: open(path, encoding="utf-8", newline=""))


def _detected(path: str) -> Source | None:
    try:
        return detect_source(File(path))
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> FormatError:
    return FormatError(f"{path} can't be read: {error.strerror}.", hint="Check its name.")


def _import_source(
    repo: Repo,
    source: Source,
    file: File,
    title: str | None,
    provider: str | None,
    tell: Callable[[int], None],
    made_as: MadeAs,
) -> Iterator[Imported | NotImported]:
    """Import the conversations of a file that is another program's: each whole, or not at all."""
    try:
        for told in source.conversations(file, provider, tell):
            if isinstance(told, NotTold):
                yield NotImported(file.path, told.error, told.where)
                continue
            try:
                yield _import_told(repo_core(repo), source, file, told, title, tell, made_as)
            except FormatError as error:
                yield NotImported(file.path, error, told.id)
    except OSError as error:
        raise _unreadable(file.path, error) from None


def _import_told(
    core: RepoCore,
    source: Source,
    file: File,
    told: Told,
    title: str | None,
    tell: Callable[[int], None],
    made_as: MadeAs,
) -> Imported:
    default, reached = told.title or Path(file.path).stem, told.reached
    made = keep(
        core,
        [["id", source.name, told.id]],
        title,
        default,
        lambda id_, empty: (History(id_, told.steps), told.beside),
        (lambda: tell(file.size + reached())) if reached else (lambda: None),
        told.size > PIECE,
        made_as,
    )
    notes = told.notes
    refused = [*notes.refused, *([f"{notes.more} others"] if notes.more else [])]
    return Imported(file.path, *made, kept=dict(notes.kept), refused=refused)


def import_file(
    repo: Repo,
    source: ImportFile,
    *,
    title: str | None = None,
    default_title: str = "",
    progress: Callable[[int], None] = lambda done: None,
    format: str | None = None,
    provider: str | None = None,
    crdt: str | None = None,
    local: bool = False,
) -> Imported:
    """Import one conversation: all of it, or nothing if it raises. ``progress`` gets the bytes read so far; ``format``,
    ``provider``, ``crdt`` and ``local`` are those of ``import_files``.

    An assistant's turn gets the frame of all before it, marked ``assumed``: nobody knows what was really sent. Raises
    FormatError, also where the file can't be read.
    """
    try:
        with closing(source.open()) as file:
            about = survey(_Reading(file, 0, progress).members(telling=True))
        found = format_of(format) if format is not None else detect(about)
        outline = found.outline(about, provider)
        return _import(repo_core(repo), source, found, outline, title, default_title, progress, MadeAs(crdt, local))
    except UnicodeDecodeError:
        raise FormatError(f"{source.name} is not UTF-8 text.", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise _unreadable(source.name, error) from None


def _paths(files: Iterable[str | os.PathLike[str]]) -> Iterator[str | os.PathLike[str]]:
    """The files, and of each folder the files in it that may be conversations, in the order of their names."""
    ends = {".json", *(end for name in sources() for end in source_of(name).ends)}
    for file in files:
        if os.path.isdir(file):
            yield from sorted(path for path in Path(file).iterdir() if path.suffix in ends and path.is_file())
        else:
            yield file


def _import(
    core: RepoCore,
    source: ImportFile,
    form: Format,
    about: Outline,
    title: str | None,
    default_title: str,
    progress: Callable[[int], None],
    made_as: MadeAs,
) -> Imported:
    with closing(source.open()) as file:
        beginnings = _beginnings(form, about, read_members(file, STREAMED))
    with closing(source.open()) as file:
        reading = _Reading(file, source.size, progress)

        def history_of(id_: DocumentId, empty: bool) -> tuple[History, Iterable[Draft]]:
            beside = form.beside(about)
            drafts = form.drafts(about, reading.members(telling=not empty))
            return History(id_, in_a_row(drafts)), [beside] if beside else []

        default = about.title or default_title
        made = keep(core, beginnings, title, default, history_of, reading.tell, source.size > PIECE, made_as)
    return Imported(source.name, *made)


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
        if self._at >= self._told + PIECE:
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
