"""Writes acts: selections, keeps, stop requests and claims of tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..crdt.backend import Edit
from ..exceptions import InvalidContent
from ..ids import EntryId, SessionId
from . import schema
from .acts import Claim, Keep, OwnClaim, Stop, ToolClaim, call_hash, selection_key, write_act, write_selection
from .core import ConversationCore
from .entry import Entry, ToolCall
from .nodes import Selection
from .order import Order
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
        core = self._core
        with core.reading():
            answers = answered_call(core.view, call)
        with core.editing() as edit:
            session = core.document.session
            act = Claim(call_hash(*answers), session, core.view.order.next_lamport())
            mine = core.claims.get(act.key)
            others = [each for each in _claims(core, act.call) if each.session != session] if take_over else []
            if mine and (mine.holds or not others):
                return mine.handle
            if mine:
                mine.withdraw()
            act = replace(act, abandoned=frozenset((each.session, each.lamport) for each in others))
            edit.put(schema.ACTS, act.key, write_act(act))
            core.claims[act.key] = mine = OwnClaim(act, lambda: _claims(core, act.call), core.host.linked)
            return mine.handle


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
