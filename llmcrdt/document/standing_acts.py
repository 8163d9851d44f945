"""StandingActs: the acts of a document that count, one under each key."""

from __future__ import annotations

from collections.abc import Iterable

from ..crdt.backend import Replica
from ..ids import EntryId, SessionId
from . import schema
from .acts import Act, Claim, Keep, Question, Reply, Stop, read_act, read_selection
from .nodes import Selection
from .order import Order


class StandingActs:
    """The acts as their keys stand now: of two that were written under one key, the last.

    Selections and keeps are handed on to ``order``. ``stops``: the sessions that asked the writer of an entry to stop.
    ``claims``: the claims to a tool call or an ask by its hash, each by its session. ``questions`` and ``replies``: of
    each ask, by session.
    """

    def __init__(self, order: Order) -> None:
        self.stops: dict[EntryId, set[SessionId]] = {}
        self.claims: dict[str, dict[SessionId, Claim]] = {}
        self.questions: dict[EntryId, dict[SessionId, Question]] = {}
        self.replies: dict[EntryId, dict[SessionId, Reply]] = {}
        self._order = order
        self._known: dict[str, Selection | Act] = {}

    def read(self, replica: Replica, keys: Iterable[str]) -> None:
        """Read what stands under these keys now; an act that can't be read is none."""
        for key in keys:
            text = replica.get(schema.ACTS, key)
            act, known = read_selection(key, text) or read_act(key, text), self._known.pop(key, None)
            if known is not None and known != act:  # a key holds what was written there last
                self._forget(key, known)
            if act is None:
                continue
            self._known[key] = act
            match act:
                case Selection():
                    self._order.select(act)
                case Keep():
                    self._order.keep(key, act.entry)
                case Stop():
                    self.stops.setdefault(act.entry, set()).add(act.session)
                case Claim():
                    self.claims.setdefault(act.call, {})[act.session] = act
                case Question():
                    self.questions.setdefault(act.ask, {})[act.session] = act
                case Reply():
                    self.replies.setdefault(act.ask, {})[act.session] = act
            self._order.note_lamport(act.lamport)

    def _forget(self, key: str, act: Selection | Act) -> None:
        match act:
            case Selection():
                self._order.unselect(act)
            case Keep():
                self._order.keep(key, None)
            case Stop():
                self.stops[act.entry].discard(act.session)
                if not self.stops[act.entry]:
                    del self.stops[act.entry]
            case Claim():
                del self.claims[act.call][act.session]
            case Question():
                del self.questions[act.ask][act.session]
            case Reply():
                del self.replies[act.ask][act.session]
