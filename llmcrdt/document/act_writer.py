"""Writes acts: selections, keeps, stop requests, claims, asks and what replies to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ..crdt.backend import Edit
from ..exceptions import InvalidContent, NotSealed
from ..ids import EntryId, SessionId, new_entry_id
from . import schema
from .acts import (
    Claim,
    Keep,
    OwnClaim,
    Question,
    Reply,
    Stop,
    ToolClaim,
    ValidWhile,
    ask_hash,
    call_hash,
    selection_key,
    write_act,
    write_selection,
)
from .asks import frame_of, standing_claims
from .canonical import JSON, canonical_json
from .core import ConversationCore
from .entry import Entry, ToolCall
from .nodes import Selection
from .order import Order
from .schema import write_time
from .view import ConversationView


class ActWriter:
    """Writes the acts of one conversation. It holds nothing itself. The methods of ``Conversation`` of the same names
    say what they do."""

    def __init__(self, core: ConversationCore) -> None:
        self._core = core

    def select(self, entry: Entry | EntryId) -> None:
        """Show an entry, and with it everything on the way to it."""
        with self._core.editing() as edit:
            view, session = self._core.view, self._core.document.session
            chosen = view.find(entry)
            view.check_not_withheld(chosen)
            write_selections(edit, select(view.order, session, chosen))

    def keep(self, entry: Entry | EntryId) -> None:
        """Have an alternative take part that an erase withholds."""
        with self._core.editing() as edit:
            view = self._core.view
            kept = view.find(entry)
            if kept in view.order.now().withheld:
                act = Keep(kept, self._core.document.session, view.order.next_lamport())
                edit.put(schema.ACTS, act.key, write_act(act))

    def stop(self, entry: Entry | EntryId) -> None:
        """Ask whoever is writing an entry to stop."""
        with self._core.editing() as edit:
            view = self._core.view
            act = Stop(view.find(entry), self._core.document.session, view.order.next_lamport())
            edit.put(schema.ACTS, act.key, write_act(act))

    def claim(self, call: ToolCall, *, take_over: bool) -> ToolClaim:
        """Say that this session means to run a tool call."""
        with self._core.reading():
            answers = answered_call(self._core.view, call)
        return self._claim(call_hash(*answers), lambda claim: take_over)

    def claim_ask(self, ask: EntryId, idle: Callable[[Claim], bool]) -> ToolClaim:
        """Say that this session means to answer an ask. The claims that are ``idle`` are taken over: those whose
        sessions have replied, and those of the dead. So are those that another one has taken over: they have lost, and
        who died after that does not name them any more."""
        with self._core.reading():
            replied = self._core.document.session in self._core.view.acts.replies.get(ask, {})
        name = ask_hash(ask)
        return self._claim(
            name, lambda claim: idle(claim) or claim not in standing_claims(_claims(self._core, name)), anew=replied
        )

    def _claim(self, name: str, abandoned: Callable[[Claim], bool], *, anew: bool = False) -> ToolClaim:
        """``anew``: what this session claimed before is over."""
        core = self._core
        with core.editing() as edit:
            session = core.document.session
            act = Claim(name, session, core.view.order.next_lamport())
            mine = core.claims.get(act.key)
            others = [each for each in _claims(core, act.call) if each.session != session and abandoned(each)]
            if mine and not anew and (mine.holds or not others):
                return mine.handle
            if mine:
                mine.withdraw()
            act = replace(act, abandoned=frozenset((each.session, each.lamport) for each in others))
            edit.put(schema.ACTS, act.key, write_act(act))
            core.claims[act.key] = mine = OwnClaim(act, lambda: _claims(core, act.call), core.host.linked)
            return mine.handle

    def ask(
        self,
        *,
        model: str,
        valid_while: ValidWhile,
        settings: Mapping[str, JSON],
        instead_of: Entry | EntryId | None,
        author: str | None,
    ) -> Question:
        """Ask for an answer to the transcript as it is now, or again for one that there is."""
        if not isinstance(model, str):
            raise InvalidContent(
                f"{model!r} is no model's name.", hint='Give a name, a pattern such as "smol*", or "".'
            )
        if valid_while not in ("frame", "always"):
            raise InvalidContent(f"{valid_while!r} is not how long an ask counts.", hint='Use "frame" or "always".')
        canonical_json(dict(settings))
        core = self._core
        with core.editing() as edit:
            view, document = core.view, core.document
            asked_again = view.find(instead_of) if instead_of is not None else None
            if asked_again is not None and view.order.sound()[asked_again].frame is None:
                raise InvalidContent(
                    f"Entry {asked_again} is no generation.", hint="Only an answer can be asked for again."
                )
            tips = view.order.now().tips
            frame = frame_of(view, tips)
            if frame is None and valid_while == "frame":
                raise NotSealed(
                    "An answer is being written.",
                    hint='Wait for it, or ask with valid_while="always": after that one, then.',
                )
            act = Question(
                new_entry_id(document.random),
                document.session,
                view.order.next_lamport(),
                tuple(tips),
                frame or "",
                model,
                valid_while,
                dict(settings),
                asked_again,
                core.host.author if author is None else author,
                write_time(document.clock()),
            )
            edit.put(schema.ACTS, act.key, write_act(act))
            return act

    def reply(self, ask: EntryId, entry: EntryId | None, *, code: str = "", text: str = "") -> None:
        """Say which entry answers an ask, or why nothing will; of a session the latest counts."""
        with self._core.editing() as edit:
            lamport = self._core.view.order.next_lamport()
            act = Reply(ask, self._core.document.session, lamport, entry, code, text)
            edit.put(schema.ACTS, act.key, write_act(act))

    def stop_ask(self, ask: EntryId) -> None:
        """Take an ask back, and stop whoever answers it."""
        with self._core.editing() as edit:
            view, session = self._core.view, self._core.document.session
            answers = {each.entry for each in view.acts.replies.get(ask, {}).values() if each.entry is not None}
            for stopped in (ask, *sorted(answers & view.order.sound().keys())):
                act = Stop(stopped, session, view.order.next_lamport())
                edit.put(schema.ACTS, act.key, write_act(act))


def answered_call(view: ConversationView, call: ToolCall) -> tuple[EntryId, str]:
    """The entry that holds a call, and the call's id. Raises InvalidContent."""
    if not isinstance(call, ToolCall):
        raise InvalidContent(
            f"{type(call).__name__} is not a tool call.", hint="Take one from entry.tool_calls of an answer."
        )
    if call.entry is None or call.entry not in view.order.sound():
        raise InvalidContent(
            f"The tool call {call.id!r} is not from an entry of this conversation.",
            hint="Take it from entry.tool_calls.",
        )
    return (call.entry, call.id)


def _claims(core: ConversationCore, call: str) -> tuple[Claim, ...]:
    """The claims of all sessions to a call that are here by now."""
    with core.document.lock:
        return tuple(core.view.acts.claims.get(call, {}).values())


def select(order: Order, session: SessionId, entry: EntryId) -> list[Selection]:
    """The selections that show an entry, and with it everything on the way to it."""
    lamport, seen = order.next_lamport([entry]), order.newest()
    return [Selection(group, session, lamport, entry, seen) for group in order.branch_points_on_path(entry)]


def write_selections(edit: Edit, acts: Iterable[Selection]) -> None:
    for act in acts:
        edit.put(schema.ACTS, selection_key(act), write_selection(act))
