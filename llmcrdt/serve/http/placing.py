"""Placer: finds the conversation that a request goes on from, and writes what is new of it.

A request is a list of messages; its list is the frame of the answer. The longest beginning of it that a conversation
has is not written again; the rest is appended there.

=======================================================  ==============================================================
the list                                                 becomes
=======================================================  ==============================================================
goes on from an answer                                   new entries after it
begins so, and says something else then                  a branch, in the place of what this client had said there
leaves out what a device said there meanwhile            new entries beside that, which stays in sight
is known whole                                           nothing new: the answer is another one for the same turn
is one question, whose answer was gone on from           a conversation of its own: somebody begins anew
begins as nothing that this caller may see               a conversation of its own
=======================================================  ==============================================================
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ...document.canonical import JSON, canonical_json
from ...document.conversation import Conversation, core_of
from ...document.core import ConversationCore
from ...document.entry import Config, Entry
from ...document.transcript import Transcript
from ...document.writer import EntryWriter
from ...exceptions import ConversationNotFound, LLMCRDTError
from ...ids import DocumentId, EntryId, is_document_id
from ...interop.format import Draft
from ...prompt.messages import settings
from ...repo.repo import Repo, repo_core
from .errors import HttpError, bad_request
from .keys import Caller
from .prefix_index import Place, PrefixIndex
from .said import said, said_by

_TRIED = 32  # places that are looked at for one list


@dataclass(frozen=True)
class Placed:
    """A request in its conversation. ``branch``: its list, which the answer is computed on. ``found``: how many of its
    messages were there already; ``added``: how many entries were written."""

    conversation: Conversation
    branch: Transcript
    found: int
    added: int


@dataclass(frozen=True)
class _Found:
    conversation: Conversation
    ends: tuple[EntryId, ...]
    count: int


class Placer:
    """Any thread; requests are placed one after the other, so two that are the same say it once."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._index = PrefixIndex(repo_core(repo))
        self._lock = threading.Lock()

    def read(self) -> None:
        """Read all conversations once, so that the first request need not wait for it."""
        with self._lock:
            self._index.read()

    def place(
        self,
        caller: Caller,
        drafts: Sequence[Draft],
        tools: Sequence[JSON],
        *,
        conversation: str | None = None,
        after: tuple[DocumentId, EntryId] | None = None,
        at_the_end: bool = False,
    ) -> Placed:
        """Write what is new of a request. ``tools``: those that it offers. ``conversation``: the one that it names;
        ``after``: an answer in a conversation that the list goes on from; ``at_the_end``: it goes on from all that the
        conversation shows. Raises HttpError, and what writing raises."""
        with self._lock:
            named = self.conversation(caller, after[0] if after else conversation) if after or conversation else None
            if named is not None and at_the_end:
                shown = named.transcript()
                return self._write(named, shown, _without_known_instructions(shown, drafts), (), tools, caller, 0)
            base: Sequence[Entry] = ()
            ends: tuple[EntryId, ...] = ()
            if after is not None and named is not None:
                ends = (after[1],)
                base = _list(core_of(named), ends)
                drafts = _without_known_instructions(base, drafts)
            says = [words for entry in base if (words := said_by(entry)) is not None]
            known = len(says)
            says += [_said(draft) for draft in drafts]  # drafts that say nothing were left out
            found = self._find(caller, says, drafts, named, known, [entry.id for entry in base])
            if found is None and named is not None:
                found = _Found(named, ends, known)
            if found is None:
                made: list[Placed] = []
                self._repo.create(
                    fill=lambda new: made.append(self._append(_Found(new, (), 0), drafts, says, tools, caller, 0))
                )
                return made[0]
            return self._append(found, drafts[found.count - known :], says, tools, caller, found.count - known)

    def conversation(self, caller: Caller, id: str | None) -> Conversation:
        """A conversation that the caller may see. Raises HttpError, the same one for those that they may not."""
        missing = HttpError(404, f"There is no conversation {str(id)[:80]!r}.", code="conversation_not_found")
        if id is None or not is_document_id(id):
            raise missing
        try:
            found = self._repo.get(id)
            if caller.only_own and not is_own(caller, found.transcript()):
                raise missing
        except ConversationNotFound:
            raise missing from None
        return found

    def list_to(self, conversation: Conversation, entry: EntryId) -> Sequence[Entry]:
        """The list that ends with an entry."""
        return _list(core_of(conversation), (entry,))

    def _find(
        self,
        caller: Caller,
        says: Sequence[str],
        drafts: Sequence[Draft],
        named: Conversation | None,
        known: int,
        base: Sequence[EntryId],
    ) -> _Found | None:
        """The longest beginning of the list that is there; a longer one than ``known``, which is at hand anyway."""
        owner = caller.author if caller.only_own else None
        candidates = self._index.find(says, named.id if named is not None else None, owner)
        ended: set[DocumentId] = set()
        for count, place in candidates[:_TRIED]:
            if count <= known or (named is None and not any(d.role == "user" for d in drafts[:count])):
                return None
            if place.document in ended:
                continue
            try:
                conversation = named if named is not None else self._repo.get(place.document)
                with core_of(conversation).reading():
                    listed = _list(core_of(conversation), place.ends)
            except LLMCRDTError:  # deleted meanwhile
                continue
            there = [words for entry in listed if (words := said_by(entry)) is not None]
            sealed = all(entry.sealed and entry.status != "erased" for entry in listed)
            if not sealed or there != says[:count] or [entry.id for entry in listed[: len(base)]] != base:
                continue
            begins = named is None and count == len(says) and all(draft.role != "assistant" for draft in drafts)
            if begins and _is_gone_on_from(core_of(conversation), place.ends):
                ended.add(place.document)
                continue
            return _Found(conversation, place.ends, count)
        return None

    def _append(
        self,
        found: _Found,
        drafts: Sequence[Draft],
        says: Sequence[str],
        tools: Sequence[JSON],
        caller: Caller,
        count: int,
    ) -> Placed:
        core = core_of(found.conversation)
        with core.editing():
            branch = core.view.transcript(found.ends)
            return self._write(found.conversation, branch, drafts, says, tools, caller, count)

    def _write(
        self,
        conversation: Conversation,
        branch: Transcript,
        drafts: Sequence[Draft],
        says: Sequence[str],
        tools: Sequence[JSON],
        caller: Caller,
        found: int,
    ) -> Placed:
        core = core_of(conversation)
        writer = EntryWriter(core)
        with core.editing():
            ends, listed = branch.tips, list(branch)
            replaced = _replaced(core, branch.parents(), drafts[0].role if drafts else "", caller)
            calls = {call.id: entry.id for entry in listed for call in entry.tool_calls}
            told: list[tuple[int, tuple[EntryId, ...]]] = []
            for number, draft in enumerate(drafts):
                id = draft.answers_call
                if id is not None and id not in calls:
                    raise bad_request(f"There is no call {id[:80]!r} before its result.", "messages")
                entry = writer.append_after(
                    core.view.transcript(ends) if number else branch,
                    draft.role,
                    draft.parts,
                    answers=(calls[id], id) if id is not None else None,
                    instead_of=replaced if not number else None,
                    author=caller.author,
                )
                calls.update({call.id: entry.id for call in entry.tool_calls})
                follows = core.view.order.sound()[entry.id].follows
                ends = (*(each for each in ends if each not in follows), entry.id)
                listed.append(entry)
                told.append((len(says) - len(drafts) + number + 1, ends))
            offered = list(settings(listed).tools or ())
            if canonical_json(offered) != canonical_json(list(tools)):
                part = Config({"tools": list(tools)})
                entry = writer.append_after(core.view.transcript(ends), "system", [part], author=caller.author)
                ends = (entry.id,)
                listed.append(entry)
        owner = next((entry.author for entry in listed if entry.role == "user"), None)
        for count, there in told if says else ():
            self._index.note(says[:count], Place(conversation.id, there, owner))
        at = core.view.transcript(ends) if len(listed) > len(branch) else branch
        return Placed(conversation, at, found, len(listed) - len(branch))


def is_own(caller: Caller, entries: Sequence[Entry]) -> bool:
    """Whether what a user said first was said by this caller."""
    first = next((entry for entry in entries if entry.role == "user"), None)
    return first is None or first.author == caller.author


def _list(core: ConversationCore, ends: Sequence[EntryId]) -> Sequence[Entry]:
    with core.reading():
        for each in ends:
            core.view.find(each)
        return tuple(core.view.transcript(ends))


def _said(draft: Draft) -> str:
    return said(draft.role, draft.parts, draft.answers_call) or ""


def _without_known_instructions(base: Sequence[Entry], drafts: Sequence[Draft]) -> Sequence[Draft]:
    """The drafts without instructions that stand there already, as the youngest."""
    if not drafts or drafts[0].role != "system":
        return drafts
    last = next((said_by(e) for e in reversed(base) if e.role == "system" and said_by(e) is not None), None)
    return drafts[1:] if last == _said(drafts[0]) else drafts


def _replaced(core: ConversationCore, parents: Sequence[EntryId], role: str, caller: Caller) -> EntryId | None:
    """The entry that this client had said at a place, and that is shown there; not what a device said."""
    view = core.view
    if role in ("", "tool"):
        return None
    sound = view.order.sound()
    nodes = (sound[entry] for entry in view.order.now().visible)
    beside = [node for node in nodes if set(node.parents) == set(parents) and node.frame is None and not node.answers]
    for node in sorted(beside, key=lambda node: node.age, reverse=True):
        shown = view.shown(node.id)
        if shown.author == caller.author and shown.role == role and said_by(shown) is not None:
            return node.id
    return None


def _is_gone_on_from(core: ConversationCore, ends: Sequence[EntryId]) -> bool:
    """Whether somebody went on after an answer to a list that ends so."""
    with core.reading():
        sound = core.view.order.sound()
        answers = {i for i, node in sound.items() if node.frame is not None and set(node.parents) == set(ends)}
        return any(not answers.isdisjoint(node.follows) for node in sound.values())
