"""Acts: what sessions do to a conversation beside writing entries. One key per (what, session), in root map ``acts``.

select   shows an entry (order.py decides)
keep     shows an alternative after all that an erase withholds (order.py decides)
stop     asks whoever writes an entry to stop
claim    says that this session will run a tool call, or answer an ask, so that no other device does too
ask      asks for an answer of a model, wherever one is (asks.py)
reply    says which entry answers an ask, or why nothing will
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from ..exceptions import InvalidContent
from ..ids import EntryId, SessionId, is_entry_id, is_session_id, tagged_hash
from .canonical import JSON, canonical_json, parse_json
from .checks import lamport_of, whole_number
from .nodes import Selection
from .schema import TIMES_END


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
    """A session means to run one tool call. ``call`` is the hash of entry and call id: call ids are strangers' text.
    ``abandoned``: the claims that it takes over, each by its session and lamport."""

    call: str
    session: SessionId
    lamport: int
    abandoned: frozenset[tuple[SessionId, int]] = frozenset()

    @property
    def key(self) -> str:
        return f"claim:{self.call}:{self.session}"

    def takes_over(self, other: Claim) -> bool:
        """Whether it names another claim as abandoned."""
        return (other.session, other.lamport) in self.abandoned

    def is_granted(self, before: Iterable[Claim]) -> bool:
        """Whether it is granted where these claims of other sessions stand before it in the relay's log."""
        return all(map(self.takes_over, before))


ValidWhile = Literal["frame", "always"]


@dataclass(frozen=True)
class Question:
    """Somebody wants a model to answer after ``after``, the tips that it was asked on.

    ``model``: the name of one, or a pattern of names; "" is any. ``frame``: the hash of the transcript that was shown.
    ``valid_while``: "frame" while that list begins the transcript, "always" whatever stands there. ``settings``: of the
    generation. ``instead_of``: answer again in place of that generation. ``asked_at``: milliseconds since 1970,
    for people.
    """

    ask: EntryId
    session: SessionId
    lamport: int
    after: tuple[EntryId, ...]
    frame: str
    model: str = ""
    valid_while: ValidWhile = "frame"
    settings: Mapping[str, JSON] = field(default_factory=dict)
    instead_of: EntryId | None = None
    author: str = ""
    asked_at: int = 0

    @property
    def key(self) -> str:
        return f"ask:{self.ask}:{self.session}"


@dataclass(frozen=True)
class Reply:
    """A session answers an ask with ``entry``, or says why it can't, or could not go on: ``code``, for programs, and
    ``text``."""

    ask: EntryId
    session: SessionId
    lamport: int
    entry: EntryId | None = None
    code: str = ""
    text: str = ""

    @property
    def key(self) -> str:
        return f"reply:{self.ask}:{self.session}"


Act = Stop | Keep | Claim | Question | Reply


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
    lamport = lamport_of(value.get("lamport"))
    if lamport is None:
        return None
    after = value.get("after", [])
    seen = tuple(EntryId(i) for i in after if is_entry_id(i)) if isinstance(after, list) else ()
    return Selection(group, session, lamport, value["entry"], seen)


def call_hash(entry: EntryId, call_id: str) -> str:
    return tagged_hash("llmcrdt/call/1", entry.encode(), call_id.encode("utf-8"))


def ask_hash(ask: EntryId) -> str:
    """The name under which an ask is claimed."""
    return tagged_hash("llmcrdt/ask/1", ask.encode())


def write_act(act: Act) -> str:
    value: dict[str, JSON] = {"lamport": act.lamport}
    match act:
        case Claim() if act.abandoned:
            value["abandoned"] = [list(each) for each in sorted(act.abandoned)]
        case Question():
            value |= {"after": list(act.after), "frame": act.frame, "model": act.model, "valid_while": act.valid_while}
            value |= {"settings": dict(act.settings), "author": act.author, "asked_at": act.asked_at}
            if act.instead_of:
                value["instead_of"] = act.instead_of
        case Reply():
            value |= {"entry": act.entry} if act.entry else {}
            value |= {"code": act.code, "text": act.text} if act.code else {}
    return canonical_json(value)


def read_act(key: str, text: object) -> Act | None:
    """The act that is no selection; None for other acts and malformed ones."""
    kind, _, rest = key.partition(":")
    what, _, session = rest.partition(":")
    if kind not in ("stop", "keep", "claim", "ask", "reply") or not is_session_id(session):
        return None
    try:
        said = parse_json(text)
    except InvalidContent:
        return None
    lamport = lamport_of(said.get("lamport")) if isinstance(said, dict) else None
    if lamport is None:
        return None
    if kind == "claim":
        return Claim(what, SessionId(session), lamport, _read_abandoned(said.get("abandoned")))
    if not is_entry_id(what):
        return None
    if kind == "ask":
        return _read_question(EntryId(what), SessionId(session), lamport, said)
    if kind == "reply":
        return _read_reply(EntryId(what), SessionId(session), lamport, said)
    return (Keep if kind == "keep" else Stop)(EntryId(what), SessionId(session), lamport)


def _read_question(ask: EntryId, session: SessionId, lamport: int, said: dict[str, Any]) -> Question | None:
    """None where one of its values is not of its type: whoever wrote it meant something that is not known here."""
    after, again, asked_at = said.get("after"), said.get("instead_of"), whole_number(said.get("asked_at", 0))
    frame, model, author = (said.get(name, "") for name in ("frame", "model", "author"))
    settings, valid_while = said.get("settings", {}), said.get("valid_while", "frame")
    if not isinstance(after, list) or not all(map(is_entry_id, after)) or not isinstance(settings, dict):
        return None
    if not all(isinstance(each, str) for each in (frame, model, author)) or valid_while not in ("frame", "always"):
        return None
    if again is not None and not is_entry_id(again):
        return None
    at = asked_at if asked_at is not None and abs(asked_at) <= TIMES_END else 0
    return Question(ask, session, lamport, tuple(after), frame, model, valid_while, settings, again, author, at)


def _read_reply(ask: EntryId, session: SessionId, lamport: int, said: dict[str, Any]) -> Reply | None:
    entry, code, text = said.get("entry"), said.get("code", ""), said.get("text", "")
    if (entry is None and not code) or not isinstance(code, str) or not isinstance(text, str):
        return None
    if entry is not None and not is_entry_id(entry):
        return None
    return Reply(ask, session, lamport, entry, code, text)


def _read_abandoned(value: JSON) -> frozenset[tuple[SessionId, int]]:
    pairs = (each for each in value if isinstance(each, list) and len(each) == 2) if isinstance(value, list) else ()
    read = ((session, lamport_of(lamport)) for session, lamport in pairs if is_session_id(session))
    return frozenset((session, lamport) for session, lamport in read if lamport is not None)


class ToolClaim:
    """This session's claim to run a tool call; made by ``Conversation.claim``.

    Run the call only if ``granted()``: the relay has the claim on disk, and it takes over every other claim that stood
    before it in the relay's order. So of several devices that claim at once exactly one is granted, and so it is of
    several that take over the same claims at once. Without a relay nothing can be promised: then ``offline`` decides,
    and if two devices ran the call, both results are in the document, and ``conversation.results(call)`` shows them.
    """

    def __init__(
        self,
        others: Callable[[], tuple[Claim, ...]],
        taken_over: Callable[[], bool],
        linked: Callable[[], bool],
        first: Future[bool],
    ) -> None:
        self._find_others, self._is_taken_over, self._linked = others, taken_over, linked
        self._first = first

    @property
    def others(self) -> tuple[Claim, ...]:
        """Other sessions' claims to the same call that have arrived by now, without those that this one takes over."""
        return self._find_others()

    @property
    def taken_over(self) -> bool:
        """Whether another session has taken this claim over, for it believed this one dead: don't run the call, or
        stop."""
        return self._is_taken_over()

    def granted(self, timeout: float = 5.0, *, offline: bool = False) -> bool:
        """Wait at most ``timeout`` seconds for the relay. ``offline``: the answer where it doesn't come, unless another
        claim has arrived by other ways; where there is no link to a relay, nothing is waited for. False from the moment
        on where somebody took it over."""
        try:
            granted = self._first.result(0 if offline and not self._linked() else timeout)
        except TimeoutError:
            granted = offline and not self._find_others()
        return granted and not self._is_taken_over()


class OwnClaim:
    """A claim of this session, to be decided by the relay's order. ``handle``: what people have of it. ``known``: the
    claims of all sessions to the same call that are here by now; ``linked``: whether there is a link to a relay."""

    def __init__(self, claim: Claim, known: Callable[[], Iterable[Claim]], linked: Callable[[], bool]) -> None:
        self._claim, self._known = claim, known
        self._first: Future[bool] = Future()
        self.handle = ToolClaim(self._others, self._taken_over, linked, self._first)

    @property
    def holds(self) -> bool:
        """Whether it was granted, and nobody took it over."""
        return self._first.done() and self._first.result() and not self._taken_over()

    def decide(self) -> None:
        """The relay has this claim on disk, and all that stood before it in its log is here; nothing of later."""
        if not self._first.done():
            self._first.set_result(self._claim.is_granted(self._rivals()))

    def withdraw(self) -> None:
        """This session claims anew: this claim is granted no more."""
        if not self._first.done():
            self._first.set_result(False)

    def _rivals(self) -> list[Claim]:
        return [claim for claim in self._known() if claim.session != self._claim.session]

    def _others(self) -> tuple[Claim, ...]:
        others = (claim for claim in self._rivals() if not self._claim.takes_over(claim))
        return tuple(sorted(others, key=lambda claim: (claim.lamport, claim.session)))

    def _taken_over(self) -> bool:
        return any(claim.takes_over(self._claim) for claim in self._rivals())
