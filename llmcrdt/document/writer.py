"""Writes entries: their heads, versions, hidden fields and live text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any, Literal

from ..arguments import check_type
from ..exceptions import InvalidContent
from ..ids import EntryId, new_entry_id
from . import schema
from .act_writer import ActWriter, answered_call
from .blob import Blob, keep
from .canonical import JSON
from .core import ConversationCore
from .entry import ROLES, Config, Entry, HiddenField, Part, Role, Text, ToolCall, ToolResult, parts_of
from .entry_fields import field_digest, hidden_key, live_name, write_hidden, write_version
from .frame import Frame, sent_hash
from .head import Head, write_head
from .nodes import GroupId, turn_after
from .request import Beside, Request, check_request
from .transcript import Transcript

Content = str | Part | Sequence[Part]
Hidden = Mapping[str, bytes | HiddenField]


class EntryWriter:
    """Writes the entries of one conversation. It holds nothing itself. ``append``, ``append_response``, ``edit`` and
    ``summarize`` are ``Conversation``'s of these names; the others are the steps of a ``Stream`` and a ``Turn``.
    ``author``: None is the host's."""

    def __init__(self, core: ConversationCore) -> None:
        self._core = core

    def append(
        self,
        role: Role,
        content: Content,
        *,
        call: ToolCall | None,
        frame: Transcript | None,
        assumed: bool,
        sent: JSON | bytes,
        renderer: str,
        hidden: Hidden | None,
        instead_of: Entry | EntryId | None,
        model: Mapping[str, JSON] | None,
        author: str | None,
        config: Mapping[str, JSON],
        usage: Mapping[str, JSON] | None = None,
    ) -> Entry:
        """Add an entry at the end of what is visible."""
        check_type(hidden, Mapping, NoneType, name="hidden", hint='Give fields by name: {"example/token": b"..."}.')
        parts = parts_of(self.keep_blobs(content), role)
        if call is not None and role != "tool":
            raise InvalidContent(f"An entry of role {role} answers no call.", hint='Use append("tool", ..., call=...).')
        if config:
            if role != "system":
                raise InvalidContent("Settings travel in system entries.", hint='Use append("system", ..., tools=...).')
            parts += (Config(dict(config)),)
        with self._core.editing():
            head = self._head(role, call=call, frame=frame, assumed=assumed, instead_of=instead_of, model=model)
            _check_answers(head)
            head = _computed(self._signed(head, author), sent, renderer)
            return self._create(head, parts, hidden or {}, usage)

    def append_after(
        self,
        branch: Transcript,
        role: Role,
        parts: Sequence[Part],
        *,
        answers: tuple[EntryId, str] | None = None,
        instead_of: EntryId | None = None,
        author: str | None = None,
    ) -> Entry:
        """Add an entry at the end of a branch (``ConversationView.transcript``), whatever is shown. ``answers``: for a
        tool result, the entry and the id of the call. ``instead_of``: stand for the same turn as that entry."""
        with self._core.editing():
            head = self._head(role, after=branch, answers=answers, instead_of=instead_of)
            _check_answers(head)
            return self._create(self._signed(head, author), parts, {})

    def append_response(
        self,
        request: Request,
        response: JSON | bytes,
        *,
        sent: JSON | bytes,
        sealed: bool,
        author: str | None,
        beside: Beside | None,
    ) -> Entry:
        """Add a provider's answer to a request."""
        check_request(request)
        host = self._core.host
        said = host.formats.response(request, response, sent=sent, now=host.clock())
        return self.append(
            "assistant",
            said.parts,
            call=None,
            frame=request.frame,
            assumed=False,
            sent=request.body if sent is None else sent,
            renderer=request.renderer,
            hidden={name: replace(field, sealed=sealed) for name, field in said.hidden.items()},
            instead_of=request.instead_of,
            model=said.model,
            author=said.author if author is None else author,
            config={},
            usage={**said.usage, **(beside(said.usage) if beside else {})},
        )

    def edit(self, entry: Entry | EntryId, content: Content, author: str | None) -> Entry:
        """Say something else in an entry's place."""
        content = self.keep_blobs(content)
        with self._core.editing():
            view = self._core.view
            old = view.shown(view.find(entry))
            parts = parts_of(content, old.role)
            if isinstance(content, str):
                parts += tuple(part for part in old.parts if not isinstance(part, (Text, ToolResult, Config)))
                parts += self._settings_that_count(old)
            head = self._signed(self._head(old.role, instead_of=old.id), author)
            return self._create(replace(head, frame=None, turn=None, answers=old.answers), parts, {})

    def summarize(self, until: Entry | EntryId, text: str, role: Role, author: str | None) -> Entry:
        """Add a summary of the transcript up to and with an entry."""
        with self._core.editing():
            view = self._core.view
            covers = view.transcript().until(view.find(until, shown=True))
            head = replace(self._signed(self._head(role), author), covers=covers)
            return self._create(head, (Text(text),), {})

    def end(self, entry: Entry | EntryId, status: Literal["stopped", "failed"]) -> EntryId:
        """Seal an entry that its writer left unfinished; its id."""
        with self._core.editing():
            unfinished = self._core.view.find(entry)
            state = self._core.view.states[unfinished]
            if not state.versions and not state.erased:
                self._write_version(unfinished, state.head.role, state.live, status=status)
        return unfinished

    # streams

    def begin(
        self,
        role: Role,
        *,
        frame: Transcript | None,
        instead_of: Entry | EntryId | None,
        model: Mapping[str, JSON] | None,
        author: str | None,
        frame_as: Frame | None,
        sent: JSON | bytes,
        renderer: str,
        turn: GroupId | None = None,
    ) -> EntryId:
        """Add an entry that grows. ``turn``: the one that a generation stands for, if not the one after its list; one
        in the place of another stands for the same."""
        with self._core.editing():
            head = self._head(role, frame=frame, instead_of=instead_of, model=model, frame_as=frame_as)
            _check_answers(head)
            head = self._signed(head, author)
            head = replace(head, frame=frame_as) if frame_as else _computed(head, sent, renderer)
            if head.frame and not head.alternative_of and turn != turn_after(head.frame.hash, head.parents):
                head = replace(head, turn=turn)
            entry = new_entry_id(self._core.document.random)
            self._put(entry, {"head": write_head(head)}, head.alternative_of, live=live_name(0, "text"))
        return entry

    def grow(self, entry: EntryId, index: int, part_type: str, text: str) -> bool:
        """Append to a live part. False where somebody sealed the entry meanwhile: the text is then nowhere but here."""
        with self._core.editing() as edit:
            state = self._core.view.find_state(entry)
            if state is None or state.versions or state.erased:
                return False
            name = live_name(index, part_type)
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
        hidden: Hidden,
        usage: Mapping[str, JSON] | None,
    ) -> Entry:
        """Seal what grew: its version and hidden fields come, its live text goes, in one update."""
        parts = parts_of(self.keep_blobs(parts), role)
        with self._core.editing():
            self._core.streams.pop(entry, None)
            state = self._core.view.find_state(entry)  # None: an erase is under way, its mark has not arrived
            if state is None or not state.erased:
                written = self._written(entry, hidden)
                self._write_version(entry, role, parts, status=status, usage=usage, hidden=written)
                self._write_hidden(entry, written)
        with self._core.reading():
            return self._core.view.shown(self._core.view.find(entry))

    def abandon(self, entry: EntryId) -> None:
        """Nobody here writes this entry any more; it counts as unfinished."""
        with self._core.document.lock:
            self._core.streams.pop(entry, None)

    # pieces

    def _settings_that_count(self, entry: Entry) -> tuple[Config, ...]:
        """The config parts of an entry, without what a younger system entry has set otherwise since."""
        view = self._core.view
        sound = view.order.sound()
        later = [i for i in view.order.now().visible if sound[i].system and sound[i].age > (entry.lamport, entry.id)]
        gone = {key for i in later for key in view.shown(i).config} if entry.role == "system" else set()
        kept = ({k: v for k, v in p.values.items() if k not in gone} for p in entry.parts if isinstance(p, Config))
        return tuple(Config(values) for values in kept if values)

    def keep_blobs(self, content: Content) -> Content:
        """The content, with its attachments on disk: before an entry names them, and before anybody waits for it."""
        blobs = self._core.host.blobs
        if isinstance(content, Blob):
            return keep(content, blobs)
        if isinstance(content, (str, Part)):
            return content
        if not isinstance(content, Iterable) or isinstance(content, (bytes, bytearray, Mapping)):
            raise InvalidContent(
                f"{type(content).__name__} can't be the content of an entry.",
                hint="Pass text or parts such as Text(...).",
            )
        return tuple(keep(part, blobs) if isinstance(part, Blob) else part for part in content)

    def hidden_value(self, entry: EntryId, name: str, value: bytes | HiddenField) -> bytes:
        """The bytes of a hidden field of this conversation; encrypted for its address if it is to be."""
        field = _hidden_field(value)
        if field.sealed:
            self._core.check_key()
        return write_hidden(field, self._core.address(entry, name), self._core.document.random)

    def _signed(self, head: Head, author: str | None) -> Head:
        signed = head if author is None else replace(head, author=author)
        if not isinstance(signed.author, str):  # readers would take the entry for a malformed one
            raise InvalidContent(f"The author is {signed.author!r}.", hint="Give text; '' signs nothing.")
        return signed

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
        after: Transcript | None = None,
        answers: tuple[EntryId, str] | None = None,
    ) -> Head:
        if role not in ROLES:
            raise InvalidContent(f"{role!r} is not a role.", hint=f"Use one of {', '.join(ROLES)}.")
        check_type(
            frame, Transcript, NoneType, name="frame", hint="Pass conv.transcript(), as it was when it was sent."
        )
        check_type(model, Mapping, NoneType, name="model", hint='Give facts by name: {"name": "..."}.')
        document, view = self._core.document, self._core.view
        tips = view.order.now().tips if after is None else after.parents()
        old = view.states[view.find(instead_of)].head if instead_of is not None else None
        answered = old.answers if old and role == "tool" else answers
        answers = answered_call(view, call) if call is not None else answered
        if old:
            if frame is not None:
                raise InvalidContent(
                    "An answer in place of another stands on that one's frame.", hint="Give frame or instead_of."
                )
            parents, pinned = old.parents, old.frame
        else:
            parents = frame.parents() if frame is not None else answers[:1] if answers else tips
            if not view.order.sound().keys() >= {*parents}:
                raise InvalidContent(
                    "The frame is a transcript of another conversation.", hint="Pass conv.transcript() of this one."
                )
            pinned = frame_as or (frame.frame(assumed=assumed) if frame is not None else None)
        instead = view.find(instead_of) if instead_of is not None else None
        references = [*parents, *((instead,) if instead else ()), *(answers[:1] if answers else ())]
        return Head(
            role=role,
            author=self._core.host.author,
            session=document.session,
            parents=parents,
            lamport=view.order.next_lamport(references),
            created_at=schema.write_time(document.clock()),
            after=tips if set(tips) != set(parents) else (),
            alternative_of=instead,
            answers=answers,
            frame=pinned,
            covers=old.covers if old else None,
            model=model,
            saw_erased=self._seen_erased(instead, old, frame, pinned),
            turn=old.turn if old else None,
        )

    def _seen_erased(
        self, instead: EntryId | None, old: Head | None, frame: Transcript | None, pinned: Frame | None
    ) -> tuple[EntryId, ...]:
        """The erased entries that an author knows of: of those that the entry is made of, and of the transcript that it
        was computed on, without those that its base names. Of an answer in place of another, those that that one
        names: nobody says when it was computed."""
        view = self._core.view
        todo = {*frame.erased} if frame is not None else set()
        base = pinned.base if pinned else None
        while todo and base:
            head = view.states[base[0]].head
            todo.difference_update(head.saw_erased)
            base = head.frame.base if head.frame else None
        if instead and old:
            todo.update(view.order.erased_origins(instead), old.saw_erased if pinned else ())
        return tuple(sorted(todo))

    def _create(
        self, head: Head, parts: Sequence[Part], hidden: Hidden, usage: Mapping[str, JSON] | None = None
    ) -> Entry:
        random = self._core.document.random
        entry = new_entry_id(random)
        written = self._written(entry, hidden)
        name, text = write_version(
            head.role,
            tuple(parts),
            status="complete",
            lamport=head.lamport,
            by=head.session,
            nonce=random(12),
            usage=usage,
            hidden=self._digests(entry, written) if head.frame or hidden else None,
        )
        fields: dict[str, str | bytes] = {"head": write_head(head), f"version:{name}": text}
        fields |= {hidden_key(key): value for key, value in written.items()}
        self._put(entry, fields, head.alternative_of)
        return self._core.view.shown(entry)

    def _put(
        self, entry: EntryId, fields: Mapping[str, str | bytes], instead_of: EntryId | None, *, live: str = ""
    ) -> None:
        """Write an entry, with a live part of the name ``live`` where there is one. If it replaces one that is shown,
        it is shown: where no lamport was left that is younger than a selection, another one says so."""
        core = self._core
        replaces_shown = instead_of in core.view.order.now().visible
        with core.editing() as edit:
            edit.put_node(schema.ENTRIES, entry, fields)
            if live:
                edit.put_text(schema.ENTRIES, entry, live)
        if replaces_shown and entry not in core.view.order.now().visible:
            ActWriter(core).select(entry)

    def _write_version(
        self,
        entry: EntryId,
        role: Role,
        parts: Sequence[Part],
        *,
        status: Literal["complete", "stopped", "failed"],
        usage: Mapping[str, JSON] | None = None,
        hidden: Mapping[str, bytes] | None = None,
    ) -> None:
        core = self._core
        state = core.view.find_state(entry)
        says = bool(hidden or (state and state.head.frame))
        lamport, nonce = core.view.order.next_lamport(), core.document.random(12)
        name, text = write_version(
            role,
            tuple(parts),
            status=status,
            lamport=lamport,
            by=core.document.session,
            nonce=nonce,
            usage=usage,
            hidden=self._digests(entry, hidden or {}) if says else None,
        )
        with core.editing() as edit:
            edit.put_field(schema.ENTRIES, entry, f"version:{name}", text)
            for field in core.replica.node(schema.ENTRIES, entry) or ():
                if field.startswith("live:"):
                    edit.delete_field(schema.ENTRIES, entry, field)

    def _written(self, entry: EntryId, hidden: Hidden) -> dict[str, bytes]:
        """The hidden fields of an entry as they will stand in the document. Raises InvalidContent."""
        for name in hidden:
            hidden_key(name)
        return {name: self.hidden_value(entry, name, value) for name, value in hidden.items()}

    def _digests(self, entry: EntryId, written: Mapping[str, bytes]) -> dict[str, str]:
        return {name: field_digest(value, self._core.address(entry, name)) for name, value in written.items()}

    def _write_hidden(self, entry: EntryId, written: Mapping[str, bytes]) -> None:
        """Each name is written once; where another seal was faster, its field stays."""
        there = self._core.replica.node(schema.ENTRIES, entry) or {}
        with self._core.editing() as edit:
            for name, value in written.items():
                if hidden_key(name) not in there:
                    edit.put_field(schema.ENTRIES, entry, hidden_key(name), value)


def _computed(head: Head, sent: JSON | bytes, renderer: str) -> Head:
    """The head of a generation with what was really sent. One in place of another was sent something of its own."""
    said = sent is not None or bool(renderer)
    if head.frame is None:
        if said:
            raise InvalidContent(
                "Only a generation was sent to a model.",
                hint="Pass frame=, the transcript that it was computed on, or instead_of= a generated entry.",
            )
        return head
    assumed = head.frame.assumed and sent is None
    hash_ = None if sent is None else sent_hash(sent)
    return replace(head, frame=replace(head.frame, sent=hash_, renderer=renderer, assumed=assumed))


def _check_answers(head: Head) -> None:
    if head.role == "tool" and head.answers is None:
        raise InvalidContent(
            "A tool result answers a call.",
            hint='Use append("tool", result, call=c), where c is one of entry.tool_calls of the answer that made it.',
        )


def _hidden_field(value: Any) -> HiddenField:
    if isinstance(value, HiddenField):
        return value
    if isinstance(value, (bytes, bytearray)):
        return HiddenField(bytes(value))
    raise InvalidContent(f"A hidden field holds bytes, not {type(value).__name__}.")
