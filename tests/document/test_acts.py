"""Stops and claims: what one device asks of another through the document."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import InvalidContent

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(tmp_path / "relay")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(10)
    process.stdout.close()


def exchange(*conversations: llmcrdt.Conversation) -> None:
    for a in conversations:
        for b in conversations:
            if a is not b:
                a.apply(b.diff(since=a.version()))


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


def test_a_claim_is_granted_when_the_relay_has_it(open_repo: OpenRepo, relay: str) -> None:
    laptop = open_repo("laptop")
    here = laptop.create()
    answer = here.append("assistant", [llmcrdt.ToolCall("1", "pay", "{}")], frame=here.transcript())
    assert not here.claim(answer.tool_calls[0]).granted(0)
    with laptop.connect(relay) as link:
        link.wait_synced(10)
        assert here.claim(answer.tool_calls[0]).granted(10), "claiming again is the same claim"


def test_of_two_devices_at_most_one_runs_a_call(open_repo: OpenRepo, relay: str) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    here = laptop.create()
    here.append("user", "Pay the bills.")
    calls = [llmcrdt.ToolCall(f"c{n}", "pay", "{}") for n in range(12)]
    answer = here.append("assistant", calls, frame=here.transcript())
    granted: dict[str, list[str]] = {call.id: [] for call in calls}
    with laptop.connect(relay) as one, phone.connect(relay) as two:
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


def test_only_calls_of_this_conversation_can_be_claimed(open_repo: OpenRepo) -> None:
    here, _, _ = asked(open_repo)
    with pytest.raises(InvalidContent):
        here.claim(llmcrdt.ToolCall("x", "pay", "{}"))
