"""The contract of a format: a provider's JSON <-> entries. One file a format, and one line in ``registry.py``.

A conversation in a provider's JSON is a list of items (messages, contents, items), alone or as a member of an object.
``Format.drafts`` makes entries of the items, one at a time; ``Format.write`` makes a list, and a request, of any
transcript. Formats are pure: no clock, no file, no network, and no provider's own types in between.

Every format holds to this (``llmcrdt.testing.format_suite`` checks it):

1. *Round trip.* Of a list that the API takes, what is read and written to the same format is canonically equal JSON;
   opaque strings and strings of arguments are equal byte for byte. Unknown fields and types stay where they stood.
2. *Valid.* Whatever stands in a transcript, and in whatever order a merge has put it, what is written obeys the rules
   of the API. ``rules`` names each, with the beginning of the error that it prevents. ``messages`` is the log;
   ``body`` is a request, which some APIs want to end with a turn of the user's.
3. *Opaque values are hidden fields.* Signatures, encrypted reasoning, server handles and the like are cut out of the
   JSON (``hiding.py``) and become hidden fields with a binding. Parts never hold them, so an edit takes none along.
4. *Bindings decide.* ``write`` is given entries whose ``hidden`` holds what may go out, as ``fields_to_send`` says, and
   nothing else. A part that needs a field which isn't there is left out whole, or replaced as the format's rule says.
5. *A to B to A.* What only A understands stands under A's own name (``Native``), and is written to A alone.
6. *Pure repairs.* They are made when a transcript is written, never stored, and keep what was written for a frame as
   the beginning of what is written later (``document/repairs.py`` has those that all share).
7. *Errors* name the path of the bad value and say what to do (FormatError). Nothing is made of half a file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from ..document.binding import Target
from ..document.blob import Blob
from ..document.canonical import JSON
from ..document.entry import Config, Entry, HiddenField, Part, Role
from ..exceptions import FormatError
from .json_input import LIST, Member, bad, check_json, kind_of, list_at, members_of, object_at
from .native import mapping
from .streams.stream import ResponseStream

SAMPLE = 64
"""So many items of a file are looked at to find its format."""

ReadBlob = Callable[[Blob], bytes | None]
"""The content of an attachment; None where it is missing."""


@dataclass(frozen=True)
class Draft:
    """An entry to append. ``answers``: (which draft of the list made the call, call id) for a tool result.
    ``frame_bound``: the names of the hidden fields that hold only on the list before the entry; whoever appends it
    puts that list's hash into their bindings."""

    role: Role
    parts: tuple[Part, ...]
    answers: tuple[int, str] | None = None
    hidden: Mapping[str, HiddenField] = field(default_factory=dict)
    author: str = ""
    frame_bound: Set[str] = frozenset()

    @property
    def answers_call(self) -> str | None:
        """The id of the call that a tool result answers."""
        return self.answers[1] if self.answers else None


@dataclass(frozen=True)
class Survey:
    """A file, seen once over. ``base``: the member that is its list; None where the list is all.
    ``whole``: its other members. ``sample``: the first items. ``roles``: the roles that its items have. ``listed``:
    whether there is a list at all."""

    base: str | None
    whole: Mapping[str, JSON]
    sample: Sequence[JSON]
    roles: Set[str]
    listed: bool


@dataclass(frozen=True)
class Outline:
    """All that a conversation says outside of its items. ``config``: the settings that its first entry brings.
    ``extra``: the other members, which stand in an entry beside the history. ``source_id``: the id that the file's own
    source gives the conversation. ``system``: instructions that are a member of their own, as the format keeps them.
    ``has_system``: whether an item is a system's. ``provider``, ``model``: whom the hidden fields of its answers are
    for, as far as that is known."""

    base: str | None
    provider: str
    title: str | None = None
    source_id: str | None = None
    config: Mapping[str, JSON] = field(default_factory=dict)
    extra: Mapping[str, JSON] = field(default_factory=dict)
    system: JSON = None
    has_system: bool = False
    model: str | None = None

    def without_settings(self) -> Outline:
        """The same with no config, for what an entry says aside from it."""
        return replace(self, config={})


@dataclass(frozen=True)
class Rule:
    """A rule of an API that ``write`` keeps. ``prevents``: the beginning of the error that a request gets which breaks
    it, or "" where the harm is a silent one; ``repair``: what is done about it. ``quoted``: whether these are the API's
    own words; else the rule is documented, and the words are ours."""

    name: str
    prevents: str
    repair: str
    quoted: bool = True


@dataclass(frozen=True)
class Written:
    """A transcript in a format. ``messages``: the log, as the list that the API takes. ``body``: a request with it."""

    messages: list[JSON]
    body: dict[str, JSON]


@dataclass(frozen=True)
class Answer:
    """The answer of an API to a request. ``items``: the items of the answer, each with its path in the response.
    ``model``, ``usage``: as it says; ``finish``: why it ended, in the API's word."""

    items: Sequence[tuple[str, Mapping[str, JSON]]]
    model: JSON = None
    usage: JSON = None
    finish: JSON = None


class Reader:
    """Reads the items of one conversation, one after the other. ``count``: how many drafts there were before."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.count = 0

    def begin(self) -> Iterator[Draft]:
        """The drafts that stand before the items."""
        return iter(())

    def fork(self) -> Self:
        """A reader that goes on from here along another branch."""
        return deepcopy(self, {id(self.outline): self.outline})

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        """The drafts that are known once this item was seen. Raises FormatError."""
        raise NotImplementedError

    def end(self) -> Iterator[Draft]:
        """The drafts that had to wait for the end."""
        return iter(())


class Format(ABC):
    """One provider's JSON. ``name``: its name in the registry. ``provider``: whom its hidden fields are for, where
    nothing else is said. ``member``: the member of a request that is its list. ``rules``: the rules that ``write``
    keeps."""

    name: ClassVar[str]
    provider: ClassVar[str]
    member: ClassVar[str]
    rules: ClassVar[Sequence[Rule]] = ()

    @property
    def hidden_names(self) -> tuple[str, ...]:
        """The names of the hidden fields that it makes and takes."""
        return ()

    @property
    def key(self) -> str:
        """The name under which parts keep what only this format understands."""
        return self.name

    @abstractmethod
    def detect(self, about: Survey) -> int:
        """How sure it is that a file is in this format: 0 (it is not) to 100."""

    @abstractmethod
    def outline(self, about: Survey, provider: str | None = None) -> Outline:
        """All that the file says outside of its items. Raises FormatError."""

    @abstractmethod
    def reader(self, outline: Outline) -> Reader:
        """A reader of the file's items."""

    @abstractmethod
    def write(self, entries: Sequence[Entry], *, model: str | None, read_blob: ReadBlob) -> Written:
        """A transcript in this format; ``entries``: its entries in order, each with the hidden fields that go out, a
        summary in place of what it covers. ``model``: the one that the request is for."""

    @abstractmethod
    def answer(self, response: Mapping[str, JSON]) -> Answer:
        """The answer that a whole response of the API holds. Raises FormatError."""

    @abstractmethod
    def stream(self) -> ResponseStream:
        """A reader of one streamed answer of the API."""

    def target(self, *, provider: str | None = None, model: str | None = None, account: str | None = None) -> Target:
        """The place where a request in this format goes."""
        return Target(provider or self.provider, api=self.name, model=model, account=account)

    def model_of(self, entries: Iterable[Entry]) -> str | None:
        """The model that an import in this format named last."""
        found: str | None = None
        for entry in entries:
            for part in entry.parts if entry.role == "system" else ():
                named = mapping(part.values.get(self.key)).get("model") if isinstance(part, Config) else None
                found = named if isinstance(named, str) else found
        return found

    def drafts(self, outline: Outline, members: Iterable[Member]) -> Iterator[Draft]:
        """The drafts of a conversation, one at a time. Raises FormatError, with the path of the bad value."""
        reader = self.reader(outline)

        def counted(drafts: Iterator[Draft]) -> Iterator[Draft]:
            for draft in drafts:
                reader.count += 1
                yield draft

        yield from counted(reader.begin())
        items = (item for key, item in members if key == outline.base and item is not LIST)
        for i, item in enumerate(items):
            path = f"{outline.base or ''}[{i}]"
            check_json(item, path)
            yield from counted(reader.read(object_at(item, path), path))
        yield from counted(reader.end())

    def beside(self, outline: Outline) -> Draft | None:
        """The members of the whole that no part can hold, as an entry that stands beside the history."""
        return Draft("system", (Config({self.key: dict(outline.extra)}),)) if outline.extra else None

    def read(self, value: JSON, provider: str | None = None) -> list[Draft]:
        """The drafts of a conversation that is in memory, that of ``beside`` first. Raises FormatError."""
        check_json(value)
        outline = self.outline(survey(members_of(value, (self.member,))), provider)
        beside = self.beside(outline)
        drafts = list(self.drafts(outline, members_of(value, (self.member,))))
        if beside is None:
            return drafts
        moved = [replace(d, answers=(d.answers[0] + 1, d.answers[1])) if d.answers else d for d in drafts]
        return [beside, *moved]


def only(found: JSON, path: str) -> dict[str, JSON]:
    """The one object of a list that a response has of its answers. Raises FormatError."""
    listed = list_at(found, path)
    if len(listed) != 1:
        raise bad(path, f"has {len(listed)} answers", "Pass a response with one; each further one as one of its own.")
    return object_at(listed[0], f"{path}[0]")


def survey(members: Iterable[Member]) -> Survey:
    """Look through a file. Raises FormatError for what can be no conversation."""
    whole: dict[str, JSON] = {}
    sample: list[JSON] = []
    roles: set[str] = set()
    listed = False
    base: str | None = None
    for key, item in members:
        if item is LIST and not listed:
            listed, base = True, key
        elif item is LIST:
            whole[key or ""] = []
        elif listed and key == base:
            if len(sample) < SAMPLE:
                sample.append(item)
            role = item.get("role") if isinstance(item, dict) else None
            if isinstance(role, str):
                roles.add(role)
        elif key is None:
            raise FormatError(
                f"Expected an object with messages, or a list of them; this is {kind_of(item)}.",
                hint='Pass {"messages": [...]} or [...].',
            )
        elif key in whole and isinstance(whole[key], list):
            whole[key].append(item)  # a second list that is streamed
        else:
            whole[key] = item
    for key, value in whole.items():
        check_json(value, key)
    return Survey(base, whole, sample, roles, listed)
