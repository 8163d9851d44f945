"""Stops and claims: what one device asks of another through the document."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.acts import Claim
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import SessionId

from ..replicas import exchange

OpenRepo = Callable[..., llmcrdt.Repo]


def asked(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.ToolCall]:
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("user", "Pay the bill.")
    call = llmcrdt.ToolCall("call with spaces: 1", "pay", "{}")
    answer = here.append("assistant", [call], frame=here.transcript())
    there = open_repo("phone", laptop.library).join(here.id)
    exchange(here, there)
    return here, there, answer.tool_calls[0]


def test_a_stop_asked_for_elsewhere_reaches_the_writer(open_repo: OpenRepo) -> None:
    here, there, _ = asked(open_repo)
    stream = here.stream("assistant", interval=0)
    stream.write("on and on")
    exchange(here, there)
    assert not stream.stop_asked
    there.stop(there.unsealed()[0])
    exchange(here, there)
    assert stream.stop_asked
    assert stream.seal("stopped").status == "stopped"


def test_a_claim_is_granted_when_the_relay_has_it(open_repo: OpenRepo, relay_url: str) -> None:
    laptop = open_repo("laptop")
    here = laptop.create()
    answer = here.append("assistant", [llmcrdt.ToolCall("1", "pay", "{}")], frame=here.transcript())
    assert not here.claim(answer.tool_calls[0]).granted(0)
    with laptop.connect(relay_url) as link:
        link.wait_synced(10)
        assert here.claim(answer.tool_calls[0]).granted(10), "claiming again is the same claim"


def test_of_two_devices_at_most_one_runs_a_call(open_repo: OpenRepo, relay_url: str) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    here = laptop.create()
    here.append("user", "Pay the bills.")
    calls = [llmcrdt.ToolCall(f"c{n}", "pay", "{}") for n in range(12)]
    answer = here.append("assistant", calls, frame=here.transcript())
    granted: dict[str, list[str]] = {call.id: [] for call in calls}
    with laptop.connect(relay_url) as one, phone.connect(relay_url) as two:
        one.wait_synced(10)
        two.wait_synced(10)
        there = phone.get(here.id)

        def run(name: str, conversation: llmcrdt.Conversation) -> None:
            for call in conversation.entry(answer).tool_calls:
                if conversation.claim(call).granted(10):
                    granted[call.id].append(name)

        threads = [threading.Thread(target=run, args=pair) for pair in (("laptop", here), ("phone", there))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(len(names) == 1 for names in granted.values()), granted


def test_without_a_relay_the_policy_decides_and_both_results_are_shown(open_repo: OpenRepo) -> None:
    here, there, call = asked(open_repo)
    assert not here.claim(call).granted(0.05)
    assert there.claim(call).granted(0.05, offline=True)
    here.append("tool", "paid by the laptop", call=call)
    there.append("tool", "paid by the phone", call=call)
    exchange(here, there)
    assert {e.text for e in here.results(call)} == {"paid by the laptop", "paid by the phone"}
    assert [e.text for e in here.results(call)] == [e.text for e in there.results(call)]
    assert len(here.claim(call).others) == 1
    assert not here.claim(call).granted(0.05, offline=True), "the other's claim has arrived by now"


SESSIONS = [SessionId(letter * 22) for letter in "ABCD"]


class Log:
    """A relay's log of claims to one call, and sessions that write it: each knows a beginning of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.claims: list[Claim] = []
        self.read = dict.fromkeys(SESSIONS, 0)
        self.outbox: dict[SessionId, list[Claim]] = {session: [] for session in SESSIONS}
        self.own: dict[SessionId, Claim] = {}
        self.granted: set[Claim] = set()

    def others(self, session: SessionId, end: int) -> list[Claim]:
        """The claims under the keys of other sessions, as whoever has read so far finds them."""
        return list({c.session: c for c in self.claims[:end] if c.session != session}.values())

    def claim(self, session: SessionId, *, take_over: bool) -> None:
        known = self.others(session, self.read[session])
        mine = self.own.get(session)
        if mine and (
            (mine in self.granted and not any(c.takes_over(mine) for c in known)) or not (take_over and known)
        ):
            return  # it holds the call, or says nothing new
        lamport = 1 + max([c.lamport for c in (*known, *([mine] if mine else ()))], default=0)
        abandoned = frozenset((c.session, c.lamport) for c in known) if take_over else frozenset()
        self.own[session] = Claim("call", session, lamport, abandoned)
        self.outbox[session].append(self.own[session])

    def append(self, session: SessionId) -> None:
        """The relay appends a claim. Its session reads all that stands before it, and then decides."""
        claim = self.outbox[session].pop(0)
        before = self.others(session, len(self.claims))
        self.granted = {held for held in self.granted if not claim.takes_over(held)}
        self.claims.append(claim)
        self.read[session] = len(self.claims)
        if self.own[session] == claim and claim.is_granted(before):
            self.granted = {held for held in self.granted if held.session != session} | {claim}
        assert len(self.granted) <= 1, "one session holds the call, and whoever held it before sees that it lost"

    def drain(self, most: int) -> None:
        while most and (ready := [session for session in SESSIONS if self.outbox[session]]):
            self.append(self.rng.choice(ready))
            most -= 1


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_in_a_log_one_session_at_most_holds_a_call(first: int) -> None:
    """With any knowledge at the time of a claim, and any order of the claims. A session that takes over while
    nobody else claims holds it."""
    for seed in range(first, first + 500):
        rng = random.Random(seed)
        log = Log(rng)
        for _ in range(rng.randint(2, 16)):
            session = rng.choice(SESSIONS)
            if rng.random() < 0.5:
                log.claim(session, take_over=rng.random() < 0.7)
            else:
                log.read[session] = rng.randint(log.read[session], len(log.claims))
            if rng.random() < 0.4:
                log.drain(rng.randint(1, 3))
        log.drain(100)
        last = rng.choice(SESSIONS)
        log.read[last] = len(log.claims)
        log.claim(last, take_over=True)
        log.drain(1)
        assert {claim.session for claim in log.granted} == {last}


def test_a_claim_of_a_dead_session_is_taken_over_by_one(open_repo: OpenRepo, relay_url: str) -> None:
    laptop = open_repo("laptop")
    others = [open_repo(name, laptop.library) for name in ("phone", "tablet")]
    here = laptop.create()
    calls = [llmcrdt.ToolCall(f"c{n}", "pay", "{}") for n in range(6)]
    answer = here.append("assistant", calls, frame=here.transcript())
    with laptop.connect(relay_url) as link, others[0].connect(relay_url) as one, others[1].connect(relay_url) as two:
        held = [here.claim(call) for call in answer.tool_calls]
        assert all(claim.granted(10) for claim in held)
        for each in (link, one, two):
            each.wait_synced(10)
        granted: dict[str, list[str]] = {call.id: [] for call in calls}
        ready = threading.Barrier(2)

        def run(repo: llmcrdt.Repo) -> None:
            conversation = repo.get(here.id)
            ready.wait(30)
            for call in conversation.entry(answer).tool_calls:
                if conversation.claim(call, take_over=True).granted(10):
                    granted[call.id].append(repo.library)

        threads = [threading.Thread(target=run, args=(repo,)) for repo in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in (one, two, link):
            each.wait_synced(10)
        assert all(names for names in granted.values()), "a call is not blocked for ever"
        assert all(claim.taken_over and not claim.granted(0) for claim in held), "the laptop sees that it lost"
        call = answer.tool_calls[0]
        handles = [repo.get(here.id).claim(call) for repo in others]
        assert [claim.granted(0) for claim in handles].count(True) == 1
        anew = here.claim(call, take_over=True)
        assert anew is not held[0] and anew.granted(10), "it may claim anew"
        assert here.claim(call, take_over=True) is anew, "whoever holds it takes nothing over"
        for each in (link, one, two):
            each.wait_synced(10)
        assert all(claim.taken_over and not claim.granted(0) for claim in handles)


def test_without_a_relay_a_claim_waits_for_nothing(open_repo: OpenRepo) -> None:
    here, there, call = asked(open_repo)
    start = time.monotonic()
    first = here.claim(call)
    assert first.granted(600, offline=True)
    assert time.monotonic() - start < 300
    exchange(here, there)
    assert not there.claim(call).granted(600, offline=True)
    second = there.claim(call, take_over=True)
    assert second.granted(600, offline=True) and second.others == ()
    exchange(here, there)
    assert first.taken_over and not first.granted(600, offline=True)


def test_a_claim_that_was_written_over_is_none(open_repo: OpenRepo) -> None:
    here, there, call = asked(open_repo)
    mine = here.claim(call)
    there.claim(call)
    there.stop(there.transcript()[-1])
    exchange(here, there)
    assert len(mine.others) == 1 and here.stop_asked(here.transcript()[-1])
    doc: Any = pycrdt.Doc()
    doc.apply_update(here.diff())
    start, acts = doc.get_state(), doc.get("acts", type=pycrdt.Map)
    for key in [key for key in acts if core_of(there).document.session in key]:
        acts[key] = "garbage"
    here.apply(doc.get_update(start))
    assert mine.others == () and not here.stop_asked(here.transcript()[-1])


def test_only_calls_of_this_conversation_can_be_claimed(open_repo: OpenRepo) -> None:
    here, _, _ = asked(open_repo)
    with pytest.raises(InvalidContent):
        here.claim(llmcrdt.ToolCall("x", "pay", "{}"))
