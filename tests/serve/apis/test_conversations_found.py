"""A stateless request finds its conversation; only what is new is written, and nothing twice."""

from __future__ import annotations

import json
import socket
import threading
import time
from functools import partial
from typing import Any

import pytest

from .conftest import ALICE, BOB, Served, said, user

SYSTEM = {"role": "system", "content": "Be brief."}


def test_a_client_that_resends_everything_has_one_conversation_and_reuses_its_state(served: Served) -> None:
    messages: list[Any] = [SYSTEM, user("Where to in spring? " * 12)]
    first = served.chat(messages)
    conversation = first["conversation"]
    for turn in range(3):
        messages += [said(first), user(f"And then, number {turn}?")]
        before = len(served.repo.get(conversation).transcript())
        first = served.chat(messages)
        assert first["conversation"] == conversation
        assert len(served.repo.get(conversation).transcript()) == before + 2, "a question and an answer"
        usage = first["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0, "up to the last common chunk"
    shown = served.repo.get(conversation).transcript()
    assert [entry.role for entry in shown] == ["system", *["user", "assistant"] * 4]
    assert [entry.text for entry in shown] == [*[m["content"] for m in messages], said(first)["content"]]
    assert served.repo.get(conversation).verify() == []


def test_the_answer_stands_on_exactly_the_list_that_was_sent(served: Served) -> None:
    first = served.chat([user("One list")])
    conversation = served.repo.get(first["conversation"])
    conversation.append("user", "A phone says this meanwhile", author="phone")
    second = served.chat([user("One list"), said(first), user("Go on")])
    assert second["conversation"] == first["conversation"]
    answer = next(iter(conversation.generations()))
    texts = [entry.text for entry in conversation.frame_entries(answer)]
    assert texts == ["One list", said(first)["content"], "Go on"], "a request is a frame"
    assert "A phone says this meanwhile" in served.texts(conversation.id), "the rest stays and is shown"
    third = served.chat([user("One list"), said(first), user("Go on"), said(second), user("More")])
    assert third["conversation"] == conversation.id
    assert conversation.verify() == []


def test_an_edit_is_a_branch_in_the_place_of_what_was_said_there(served: Served) -> None:
    first = served.chat([user("Begin a tree")])
    beginning = [user("Begin a tree"), said(first)]
    second = served.chat([*beginning, user("To the left")])
    edited = served.chat([*beginning, user("To the right")])
    assert first["conversation"] == second["conversation"] == edited["conversation"]
    assert served.texts(first["conversation"]) == [
        "Begin a tree",
        said(first)["content"],
        "To the right",
        said(edited)["content"],
    ]
    conversation = served.repo.get(first["conversation"])
    elsewhere = {each.entry.text for each in conversation.transcript().elsewhere}
    assert {"To the left", said(second)["content"]} <= elsewhere, "nothing said is lost"
    back = served.chat([*beginning, user("To the left"), said(second), user("Further")])
    assert back["conversation"] == conversation.id
    assert served.texts(conversation.id)[2] == "To the left", "the branch that was written on last"
    assert conversation.verify() == []


def test_a_repeated_request_is_not_said_twice_and_a_new_beginning_is_a_new_conversation(served: Served) -> None:
    first = served.chat([user("Say it once")])
    again = served.chat([user("Say it once")], seed=2)
    assert again["conversation"] == first["conversation"]
    conversation = served.repo.get(first["conversation"])
    assert served.texts(conversation.id).count("Say it once") == 1
    answers = list(conversation.generations())
    assert len(answers) == 2 and len(conversation.alternatives(answers[0])) == 2
    gone_on = served.chat([user("Say it once"), said(first), user("Go on")])
    assert gone_on["conversation"] == conversation.id
    assert served.chat([user("Say it once")])["conversation"] != conversation.id, "somebody begins anew"


def test_a_key_makes_a_repeat_the_same_answer(served: Served) -> None:
    headers = {"Idempotency-Key": "k-1"}
    one = served.chat([user("Only once, please")], headers)
    two = served.chat([user("Only once, please")], headers)
    assert one == two
    assert len(list(served.repo.get(one["conversation"]).generations())) == 1
    body = {"model": "tiny", "messages": [user("Something else")], "max_tokens": 2}
    status, error, _ = served.send("POST", "/v1/chat/completions", body, headers)
    assert status == 409 and error["error"]["code"] == "idempotency_error"


def together(jobs: list[Any]) -> list[Any]:
    """The outcomes of functions that are called at once."""
    found: dict[int, Any] = {}
    gate = threading.Barrier(len(jobs))

    def run(number: int) -> None:
        gate.wait()
        found[number] = jobs[number]()

    threads = [threading.Thread(target=run, args=[number]) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[number] for number in range(len(jobs))]


def test_equal_requests_at_once_are_one_question_and_two_alternatives(served: Served) -> None:
    answers = together([partial(served.chat, [user("At once")], seed=seed) for seed in (1, 2, 3)])
    assert len({each["conversation"] for each in answers}) == 1
    conversation = served.repo.get(answers[0]["conversation"])
    assert served.texts(conversation.id)[0] == "At once" and len(served.texts(conversation.id)) == 2
    newest = next(iter(conversation.generations()))
    assert len(conversation.alternatives(newest)) == 3, "all are kept"
    with_key = [lambda: served.chat([user("At once, with a key")], {"Idempotency-Key": "k-2"})] * 3
    assert len({each["id"] for each in together(with_key)}) == 1


def test_two_continuations_at_once_are_two_branches(served: Served) -> None:
    first = served.chat([user("A crossing")])
    beginning = [user("A crossing"), said(first)]
    one, two = together(
        [lambda: served.chat([*beginning, user("North")]), lambda: served.chat([*beginning, user("South")])]
    )
    assert first["conversation"] == one["conversation"] == two["conversation"]
    conversation = served.repo.get(first["conversation"])
    everywhere = {entry.text for entry in conversation.transcript()}
    everywhere |= {each.entry.text for each in conversation.transcript().elsewhere}
    assert {"North", "South", said(one)["content"], said(two)["content"]} <= everywhere
    for answer in conversation.generations():
        frame = [entry.text for entry in conversation.frame_entries(answer)]
        assert not {"North", "South"} <= set(frame), "neither answer saw the other's question"
    assert conversation.verify() == []


def test_results_of_calls_made_at_once_are_found_again(served: Served) -> None:
    calls = [
        {"id": f"call{n}", "type": "function", "function": {"name": "weather", "arguments": f'{{"n": {n}}}'}}
        for n in range(2)
    ]
    messages: list[Any] = [user("Warm?"), {"role": "assistant", "content": None, "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": f"call{n}", "content": f"{20 + n} °C"} for n in range(2)]
    first = served.chat(messages)
    again = served.chat(messages, seed=2)
    assert again["conversation"] == first["conversation"]
    conversation = served.repo.get(first["conversation"])
    assert [entry.role for entry in conversation.transcript()] == ["user", "assistant", "tool", "tool", "assistant"]
    # Another client writes the same arguments otherwise.
    calls[0]["function"]["arguments"] = '{ "n":0 }'  # type: ignore[index]
    longer = served.chat([*messages, said(again), user("Thanks")])
    assert longer["conversation"] == conversation.id
    assert conversation.verify() == []


def test_tools_that_change_are_appended_and_break_no_match(served: Served) -> None:
    def tool(name: str) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}

    first = served.chat([user("With tools")], tools=[tool("clock")], tool_choice="none")
    rest = [user("With tools"), said(first), user("Go on")]
    second = served.chat(rest, tools=[tool("clock")], tool_choice="none")
    third = served.chat([*rest, said(second), user("Others")], tools=[tool("radio")], tool_choice="none")
    assert first["conversation"] == second["conversation"] == third["conversation"]
    conversation = served.repo.get(first["conversation"])
    offered = [entry.config["tools"] for entry in conversation.transcript() if entry.config]
    assert offered == [[tool("clock")], [tool("radio")]], "each once"


def test_a_header_or_metadata_names_a_conversation(served: Served) -> None:
    conversation = served.repo.create("Named")
    by_header = served.chat([user("By its name")], {"LLMCRDT-Conversation": conversation.id})
    assert by_header["conversation"] == conversation.id
    longer = [user("By its name"), said(by_header), user("On")]
    by_metadata = served.chat(longer, metadata={"llmcrdt_conversation": conversation.id})
    assert by_metadata["conversation"] == conversation.id
    assert len(served.texts(conversation.id)) == 4
    body = {"model": "tiny", "messages": [user("x")]}
    for name in ("nonsense", served.repo.library):
        status, error, _ = served.send("POST", "/v1/chat/completions", body, {"LLMCRDT-Conversation": name})
        assert status == 404 and error["error"]["code"] == "conversation_not_found"


def test_nothing_is_kept_of_a_request_that_says_so(served: Served) -> None:
    before = {row.id for row in served.repo.list(1000)}
    answer = served.chat([user("Forget me"), {"role": "assistant", "content": "Yes"}, user("Now")], store=False)
    assert answer["conversation"] is None and said(answer)["content"]
    assert {row.id for row in served.repo.list(1000)} == before
    deadline = time.monotonic() + 20
    scratch = served.server._turns.scratch._repo
    assert scratch is not None
    while scratch.list():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not served.repo.search("Forget")


def test_keys_never_match_each_others_conversations(guarded: Served) -> None:
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in (ALICE, BOB))
    first = guarded.chat([user("The same words")], alice)
    same = [user("The same words"), said(first), user("Go on")]
    mine, theirs = guarded.chat(same, alice), guarded.chat(same, {"x-api-key": BOB})
    assert mine["conversation"] == first["conversation"] != theirs["conversation"]
    assert guarded.repo.get(theirs["conversation"]).transcript()[0].author == "bob"
    body = {"model": "tiny", "messages": same}
    status, error, _ = guarded.send(
        "POST", "/v1/chat/completions", body, {**bob, "LLMCRDT-Conversation": first["conversation"]}
    )
    assert status == 404 and error["error"]["code"] == "conversation_not_found"


@pytest.mark.parametrize("at", range(0, 2200, 200))
def test_a_client_that_vanishes_at_any_byte_leaves_a_sealed_answer(served: Served, at: int) -> None:
    connection = served.connection()
    body = {"model": "endless/tiny", "stream": True, "max_tokens": 1500, "messages": [user(f"Gone at {at}")]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    response.read(at) if at else None
    response.close()
    connection.close()
    conversation = served.repo.get(response.headers["llmcrdt-conversation"])
    deadline = time.monotonic() + 30
    while not (found := list(conversation.generations())):
        assert time.monotonic() < deadline, "it goes on for nobody"
        time.sleep(0.02)
    assert found[0].status == "stopped" and served.texts(conversation.id)[0] == f"Gone at {at}"


def test_a_client_that_vanishes_while_it_asks_or_waits(served: Served) -> None:
    body = json.dumps({"model": "endless/tiny", "max_tokens": 1500, "messages": [user("Gone while it asks")]})
    host, port = served.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    for sent in range(0, len(raw), 23):
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            plain.sendall(raw[:sent])
    assert served.chat([user("Still there?")])["choices"]
    assert not served.repo.search("Gone while it asks"), "half a request says nothing"
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        plain.sendall(raw)
        deadline = time.monotonic() + 30
        while not (hits := served.repo.search('"Gone while it asks"')):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    conversation = served.repo.get(hits[0].conversation)
    while not (found := list(conversation.generations())):
        assert time.monotonic() < deadline, "it goes on for nobody"
        time.sleep(0.02)
    assert found[0].status == "stopped" and found[0].frame is not None


def test_an_answer_that_was_left_in_the_middle_is_asked_for_again(served: Served) -> None:
    """As after a kill: the entry is unfinished, and nobody here writes it."""
    first = served.chat([user("Left in the middle")])
    conversation = served.repo.get(first["conversation"])
    with conversation.stream("assistant", instead_of=conversation.transcript()[-1]) as stream:
        stream.write("half of")
        stream.flush()
        id = stream.id
        stream.abandon()
        again = served.chat([user("Left in the middle")], seed=2)
        assert again["conversation"] == conversation.id and said(again)["content"]
        status, told, _ = served.send("GET", f"/v1/responses/resp_{conversation.id}_{id}")
        assert (status, told["status"]) == (200, "in_progress")
