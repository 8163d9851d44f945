"""Asks: what somebody wants a model to answer, wherever one is; and how far each has come.

An ask is an act, so it reaches every device with the words that it is about. A worker, a process with a model, claims
it as tool calls are claimed, writes ``reply`` in the update that begins the answer, and streams the answer into the
document. No clock takes part: of two workers that answer, both answers stay, as alternatives. The rules are in
docs/state-sync.md.

==========  =========================================================================================
state       how it is derived
==========  =========================================================================================
answered    an entry that replies is complete, or was erased
streaming   an entry that replies is being written
taken       somebody claimed it, and has not replied yet
stopped     somebody asked for it, or for the entry that answers it, to stop
failed      a reply says why there is no answer, or its entry was sealed as failed
outdated    ``valid_while`` is "frame", and what it was asked on is no longer what the transcript begins with
waiting     none of these
==========  =========================================================================================

The first that is true counts. So a claim that is younger than a failed reply comes before it: another worker tries. An
answer that was sealed as stopped though nobody asked for that is one whose writer died or gave up: the ask waits again.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..exceptions import NotSealed
from ..ids import EntryId, FrameHash, SessionId
from .acts import Claim, Question, ask_hash
from .entry import Entry
from .frame import EMPTY_FRAME
from .nodes import GroupId, turn_after
from .view import ConversationView

AskState = Literal["waiting", "taken", "streaming", "answered", "failed", "stopped", "outdated"]
ENDED: frozenset[AskState] = frozenset({"answered", "failed", "stopped", "outdated"})
"""States in which nobody is at work on it. A failed, stopped or outdated ask may be taken up again by a claim that
names it; nobody does so of their own accord."""


_MODEL = 200  # characters of a pattern; a longer one fits nothing
HANDED_OVER = "handed_over"
"""The code of a reply by which a worker gives an ask back, for another one to take."""


@dataclass(frozen=True)
class AskStatus:
    """One ask, as the document says now. ``answer``: the entry that answers it, complete before streaming before
    others. ``workers``: the sessions whose claims stand and that have not replied. ``code``, ``text``: why not."""

    question: Question
    state: AskState
    answer: Entry | None = None
    workers: tuple[SessionId, ...] = ()
    code: str = ""
    text: str = ""


def fits(name: str, asked: str) -> bool:
    """Whether a model of this name is one that an ask names: a name, a pattern of names, or "" for any."""
    return not asked or (len(asked) <= _MODEL and fnmatch.fnmatchcase(name, asked))


def question_of(view: ConversationView, ask: EntryId) -> Question | None:
    """The ask of an id: of several that sessions wrote under it, the one of the least (lamport, session)."""
    found = view.acts.questions.get(ask, {}).values()
    return min(found, key=lambda each: (each.lamport, each.session), default=None)


def standing_claims(claims: Iterable[Claim]) -> list[Claim]:
    """The claims that no other one takes over, oldest first."""
    known = tuple(claims)
    standing = (each for each in known if not any(other.takes_over(each) for other in known if other is not each))
    return sorted(standing, key=lambda claim: (claim.lamport, claim.session))


def status_of(view: ConversationView, question: Question) -> AskStatus:
    """How far an ask has come."""
    ask = question.ask
    replies = sorted(view.acts.replies.get(ask, {}).values(), key=lambda each: (each.lamport, each.session))
    claims = standing_claims(view.acts.claims.get(ask_hash(ask), {}).values())
    sound = view.order.sound()
    answers = [view.shown(each.entry) for each in replies if each.entry is not None and each.entry in sound]
    replied = {each.session: each.lamport for each in replies}
    workers = tuple(each.session for each in claims if each.lamport > replied.get(each.session, 0))
    answer = min(answers, key=lambda each: _preferred(view, each), default=None)
    status = answer.status if answer else None
    if status in ("complete", "erased"):
        return AskStatus(question, "answered", answer)
    if status == "streaming":
        return AskStatus(question, "streaming", answer, workers)
    if workers:
        return AskStatus(question, "taken", answer, workers)
    if ask in view.acts.stops or (answer is not None and answer.id in view.acts.stops):
        return AskStatus(question, "stopped", answer)
    failed = next((each for each in reversed(replies) if each.code not in ("", HANDED_OVER)), None)
    if failed or (answer and answer.status == "failed"):
        code, text = (
            (failed.code, failed.text) if failed else ("failed", "The model failed in the middle of its answer.")
        )
        return AskStatus(question, "failed", answer, (), code, text)
    return AskStatus(question, "waiting" if still_counts(view, question) else "outdated", answer)


def still_counts(view: ConversationView, question: Question) -> bool:
    """Whether an ask still counts: always, if its asker said so; else while the transcript begins with the list that it
    was asked on. Of an answer that is asked again, while that is there."""
    sound = view.order.sound()
    if question.instead_of is not None:
        return question.instead_of in sound
    if question.valid_while == "always":
        return True
    return frame_of(view, question.after) == question.frame


def frame_of(view: ConversationView, tips: Sequence[EntryId]) -> str | None:
    """The hash of the transcript up to the last of these entries; None where one of them is not in it, or something in
    it is being written."""
    if not tips:
        return EMPTY_FRAME
    ids, wanted = view.ids(), {*tips}
    places = [index for index in range(len(ids) - 1, -1, -1) if ids[index] in wanted]
    if len(places) < len(wanted):
        return None
    try:
        return view.transcript().until(ids[max(places)]).hash
    except NotSealed:
        return None


def turn_of(view: ConversationView, ask: EntryId, computed_on: Collection[EntryId]) -> GroupId:
    """The turn that an answer stands for: the one after the list that was asked on, whatever list the answer is
    computed on; so two answers are alternatives. One of the ask's own, if nobody says which list that was, or if the
    answer is computed on another one that stands for that turn, and so comes after it."""
    question = question_of(view, ask)
    if question is None or not question.frame:
        return ask_hash(ask)
    turn = turn_after(FrameHash(question.frame), question.after)
    return ask_hash(ask) if any(view.order.group(entry) == turn for entry in computed_on) else turn


def statuses(view: ConversationView) -> list[AskStatus]:
    """Every ask, oldest first."""
    asks: Mapping[EntryId, object] = view.acts.questions
    found = [question for ask in asks if (question := question_of(view, ask)) is not None]
    return [status_of(view, each) for each in sorted(found, key=lambda each: (each.lamport, each.ask))]


_RANK = {"complete": 0, "erased": 1, "streaming": 2, "stopped": 3, "failed": 4}


def _preferred(view: ConversationView, entry: Entry) -> tuple[int, bool, int, str]:
    return (_RANK[entry.status], entry.id not in view.order.now().visible, -entry.lamport, entry.id)
