"""Acts: what sessions do to a conversation beside writing entries. One key per (what, session), in root map ``acts``.

select   shows an entry (order.py decides)
keep     shows an alternative after all that an erase withholds (order.py decides)
stop     asks whoever writes an entry to stop
claim    says that this session will run a tool call, so that no other device runs it too
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..exceptions import InvalidContent
from ..ids import EntryId, SessionId, is_entry_id, is_session_id, tagged_hash
from .canonical import canonical_json, parse_json
from .checks import is_lamport
from .nodes import Selection


@dataclass(frozen=True)
class Stop:
    """Somebody wants whoever writes ``entry`` to stop."""

    entry: EntryId
    session: SessionId
    lamport: int

    @property
    def key(self) -> str:
        return f"stop:{self.entry}:{self.session}"


@dataclass(frozen=True)
class Keep:
    """Somebody has read ``entry``, which an erase withholds, and wants it to stay."""

    entry: EntryId
    session: SessionId
    lamport: int

    @property
    def key(self) -> str:
        return f"keep:{self.entry}:{self.session}"


@dataclass(frozen=True)
class Claim:
    """A session means to run one tool call. ``call`` is the hash of entry and call id: call ids are strangers' text."""

    call: str
    session: SessionId
    lamport: int

    @property
    def key(self) -> str:
        return f"claim:{self.call}:{self.session}"


def selection_key(act: Selection) -> str:
    return f"select:{act.group}:{act.session}"


def write_selection(act: Selection) -> str:
    return canonical_json({"lamport": act.lamport, "entry": act.entry, "after": list(act.after)})


def read_selection(key: str, text: object) -> Selection | None:
    """The selection an act stands for; None for other acts and malformed ones."""
    kind, _, rest = key.partition(":")
    group, _, session = rest.partition(":")
    if kind != "select" or not is_session_id(session):
        return None
    try:
        value = parse_json(text)
    except InvalidContent:
        return None
    if not isinstance(value, dict) or not is_entry_id(value.get("entry")):
        return None
    lamport: Any = value.get("lamport")
    if not is_lamport(lamport):
        return None
    after = value.get("after", [])
    seen = tuple(EntryId(i) for i in after if is_entry_id(i)) if isinstance(after, list) else ()
    return Selection(group, session, lamport, value["entry"], seen)


def call_hash(entry: EntryId, call_id: str) -> str:
    return tagged_hash("llmcrdt/call/1", entry.encode(), call_id.encode("utf-8"))


def write_act(act: Stop | Keep | Claim) -> str:
    return canonical_json({"lamport": act.lamport})


def read_act(key: str, text: object) -> Stop | Keep | Claim | None:
    """The stop, keep or claim that an act stands for; None for other acts and malformed ones."""
    kind, _, rest = key.partition(":")
    what, _, session = rest.partition(":")
    if kind not in ("stop", "keep", "claim") or not is_session_id(session):
        return None
    try:
        said = parse_json(text)
    except InvalidContent:
        return None
    lamport = said.get("lamport") if isinstance(said, dict) else None
    if not is_lamport(lamport):
        return None
    if kind == "claim":
        return Claim(what, SessionId(session), lamport)
    if not is_entry_id(what):
        return None
    return (Keep if kind == "keep" else Stop)(EntryId(what), SessionId(session), lamport)


class ToolClaim:
    """This session's claim to run a tool call; made by ``Conversation.claim``.

    Run the call only if ``granted()``: the relay has the claim on disk, and no other claim stood before it in the
    relay's order. So of several devices that claim at once exactly one is granted. Without a relay nothing can be
    promised: then ``offline`` decides, and if two devices ran the call, both results are in the document, and
    ``conversation.results(call)`` shows them.
    """

    def __init__(self, others: Callable[[], tuple[Claim, ...]], first: Future[bool]) -> None:
        self._find_others = others
        self._first = first

    @property
    def others(self) -> tuple[Claim, ...]:
        """Other sessions' claims to the same call that have arrived by now."""
        return self._find_others()

    def granted(self, timeout: float = 5.0, *, offline: bool = False) -> bool:
        """Wait at most ``timeout`` seconds for the relay. ``offline``: the answer where it doesn't come, unless another
        claim has arrived by other ways."""
        try:
            return self._first.result(timeout)
        except TimeoutError:
            return offline and not self._find_others()


class OwnClaim:
    """A claim of this session, to be decided by the relay's order. ``handle``: what people have of it."""

    def __init__(self, others: Callable[[], tuple[Claim, ...]]) -> None:
        self._find_others = others
        self._first: Future[bool] = Future()
        self.handle = ToolClaim(others, self._first)

    def decide(self) -> None:
        """The relay has this claim on disk, and all that stood before it in its log is here; nothing of later."""
        if not self._first.done():
            self._first.set_result(not self._find_others())
