"""When a provider refuses a request, or says nothing: what to do next. Pure.

``next_step`` never has the same words computed twice where the first attempt may have gone through, and leaves nothing
out of the context without a word. It decides; whoever sent the request acts:

- *send*: make the request anew, ``conv.messages(..., since=step.since, without=step.without)``, and send that. Nothing
  was computed for the first one. Without ``since`` the whole log is said again.
- *wait*: something is being computed, or the provider takes nothing just now. After ``seconds`` look at the
  conversation again: the answer may have come, from another device too. If not, make the request anew as above.
- *ask*: nobody knows whether it was computed. A person, or the app by its own rules, decides whether to send it again.
- *tell*: sending again does not help; ``why`` and ``loses`` say what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..document.canonical import JSON
from ..document.request import Request
from ..ids import EntryId
from .native import mapping

Field = tuple[EntryId, str]
"""A hidden field: its entry, and its name."""


@dataclass(frozen=True)
class Failure:
    """How a request failed. ``status``: of HTTP; None where no response came, or it ended in the middle. ``body``: of
    the response, as JSON. ``retry_after``: the seconds that the provider asks to wait."""

    status: int | None = None
    body: JSON = None
    retry_after: float | None = None


@dataclass(frozen=True)
class NextStep:
    """``action``: see the module. ``since``, ``without``: for the next request. ``loses``: what the next request will
    not have, or the provider can't bring back; "" where it is all there."""

    action: Literal["send", "wait", "ask", "tell"]
    why: str
    since: EntryId | None = None
    without: tuple[Field, ...] = ()
    seconds: float = 0.0
    loses: str = ""


_STATE_GONE = ("previous_response_not_found", "thread_not_found", "previous_interaction_not_found")
_STATE_ELSEWHERE = ("thread_already_continued", "thread_fingerprint_mismatch", "thread_unsupported_request")
_BUSY = ("thread_continue_in_flight", "conversation_locked", "response_already_in_progress")
_WAIT = 5.0
"""Seconds to wait where the provider names none."""

_REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("invalid_encrypted_content", ("openai-responses/reasoning",)),
    ("encrypted content", ("openai-responses/reasoning",)),
    ("invalid `signature` in `thinking` block", ("anthropic/thinking",)),
    ("invalid signature in thinking block", ("anthropic/thinking",)),
    ("thinking blocks in the latest assistant message cannot be modified", ("anthropic/thinking",)),
    ("thought signature", ("gemini/thoughts", "gemini-interactions/signatures")),
    ("thought_signature", ("gemini/thoughts", "gemini-interactions/signatures")),
    ("item with id 'rs_", ("openai-responses/reasoning",)),
)
"""Words of an error, and the hidden fields that it is about."""

_COMPACTED = ("openai-responses/compaction", "anthropic/compaction")
_CONTAINER = "anthropic/container"


@dataclass(frozen=True)
class _Case:
    """``told``: all texts of the error, in small letters. ``sent``: the hidden fields in the request; ``kept_back``:
    those that were refused before. ``seconds``: to wait, if that is the step."""

    status: int
    told: str
    request: Request
    sent: Sequence[Field]
    kept_back: tuple[Field, ...]
    seconds: float

    def named(self, words: Sequence[str]) -> str:
        """The first of these words that the error has; "" where it has none."""
        return next((word for word in words if word in self.told), "")


def next_step(failure: Failure, request: Request) -> NextStep:
    """The next step after a request of ``conv.messages`` failed. It reads the request's report, and writes nothing."""
    kept_back = tuple((line.entry, line.name) for line in request.report if line.reason == "refused")
    if failure.status is None:
        why = "No response came, or not all of it: nobody knows whether the provider computes an answer."
        return NextStep("ask", why, since=request.since, without=kept_back)
    error = mapping(failure.body).get("error", failure.body)
    case = _Case(
        failure.status,
        "\n".join(_texts(error)).lower(),
        request,
        tuple((line.entry, line.name) for line in request.report if line.sent),
        kept_back,
        _WAIT if failure.retry_after is None else failure.retry_after,
    )
    steps = (rule(case) for rule in (_state, _busy, _fields, _by_status))
    words = "; ".join(_texts(error))[:500] or f"status {failure.status}"
    return next((step for step in steps if step is not None), NextStep("tell", f"The provider refused it: {words}"))


def _texts(value: JSON) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _state(case: _Case) -> NextStep | None:
    """The provider has not got the state that the request goes on from, or won't go on from it."""
    found = case.named((*_STATE_GONE, *_STATE_ELSEWHERE))
    if not found and case.request.since is not None and case.status in (404, 410):
        found = "not found"
    if not found:
        return None
    if case.request.since is None and found in _STATE_GONE:
        return NextStep("tell", f"The request names state that the provider does not have ({found}).")
    why = f"The provider does not go on from there ({found}): the whole log is said again."
    return NextStep("send", why, without=case.kept_back)


def _busy(case: _Case) -> NextStep | None:
    """A request goes on from the same state just now: another device's, or this one, sent by a process that ended."""
    if not case.named(_BUSY):
        return None
    why = "An answer is being computed there already."
    return NextStep("wait", why, since=case.request.since, without=case.kept_back, seconds=case.seconds)


def _fields(case: _Case) -> NextStep | None:
    """A hidden field was refused: the next request leaves it out, and its report says so."""
    if case.status not in (400, 404, 410, 422):
        return None
    names = next((names for words, names in _REFUSED if words in case.told), ())
    lost = ""
    if "container" in case.told and any(name == _CONTAINER for _, name in case.sent):
        names, lost = (_CONTAINER,), "the files in the container"
    elif case.named(("compaction", "'cmp_")):
        names = _COMPACTED
    dropped = tuple(field for field in case.sent if field[1] in names)
    if not names or (not dropped and case.request.since is None):
        return None
    listed = ", ".join(f"{name} of entry {entry}" for entry, name in dropped)
    if names == _COMPACTED and dropped:
        lost = "all that the compaction stands for"
        return NextStep("tell", f"The provider refused {listed}.", without=(*case.kept_back, *dropped), loses=lost)
    why = f"The provider refused {listed}." if dropped else "The provider can't read the state that it keeps."
    return NextStep("send", why, without=(*case.kept_back, *dropped), loses=lost)


def _by_status(case: _Case) -> NextStep | None:
    """All else goes by the status."""
    if case.status in (429, 529) or "overloaded" in case.told:
        why = "The provider takes no request just now."
        return NextStep("wait", why, since=case.request.since, without=case.kept_back, seconds=case.seconds)
    if case.status == 408 or case.status >= 500:
        why = f"The provider failed ({case.status}): it may have computed an answer."
        return NextStep("ask", why, since=case.request.since, without=case.kept_back)
    return None
