"""Requests that go on from state that the provider keeps say what a whole one says, or are whole."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from merged_logs import NOW, OPERATIONS, Device, World
from providers import RESPONSES, VALIDATORS

import llmcrdt
from llmcrdt.document.request import Request
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.failures import Failure, next_step
from llmcrdt.interop.registry import format_of

FORGOT = {
    "openai-responses": (400, {"error": {"type": "invalid_request_error", "code": "previous_response_not_found",
                                         "message": "Previous response with id 'resp_1' not found."}}),
    "gemini-interactions": (404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "Interaction not found."}}),
    "anthropic": (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "The thread is gone.",
                                                   "details": {"error_code": "thread_not_found"}}}),
}  # fmt: skip
STATEFUL = tuple(FORGOT)


class Refused(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.failure = Failure(status, body)


def without_points(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_points(one) for key, one in value.items() if key != "cache_control"}
    return [without_points(one) for one in value] if isinstance(value, list) else value


def has_points(blocks: Any) -> bool:
    """Whether there is a cache point among blocks, or in one of theirs; data of the app's may have such a key."""
    listed = [block for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    return any("cache_control" in block or has_points(block.get("content")) for block in listed)


def without_nulls(item: Any) -> Any:
    def cut(block: Any) -> Any:
        return {key: one for key, one in block.items() if one is not None} if isinstance(block, dict) else block

    return {
        key: [cut(one) for one in value] if isinstance(value, list) else value
        for key, value in item.items()
        if value is not None
    }


class Keeper:
    """A provider that keeps what it was sent and what it answered; written from the references, not from the formats.
    ``states``: the list after each response."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.states: dict[str, list[Any]] = {}
        self.used: set[str] = set()

    def read(self, body: Any) -> list[Any]:
        """All that the model is shown for a request. Raises Refused."""
        if self.api == "anthropic":
            thread = body.get("thread", {"type": "create"})
            before = thread.get("previous_message_id")
            if before in self.used:
                code = {"error_code": "thread_already_continued"}
                raise Refused(400, {"type": "error", "error": {"type": "invalid_request_error", "details": code}})
            if before in self.states:
                self.used.add(before)
            new = body["messages"]
            lists = [body.get("system"), body.get("tools"), *(message["content"] for message in new)]
            assert "thread" not in body or not any(map(has_points, lists)), "threads take no cache points"
        else:
            before = body.get("previous_response_id", body.get("previous_interaction_id"))
            new = body["input"]
        if before is not None and before not in self.states:
            raise Refused(*FORGOT[self.api])
        return without_points([*self.states.get(before, []), *new]) if isinstance(new, list) else [new]

    def answer(self, seen: list[Any], response: Any) -> None:
        """Keep what it answered."""
        if self.api == "anthropic":
            said = [{"role": "assistant", "content": response["content"]}]
        elif self.api == "openai-responses":
            said = response["output"]
        else:
            said = response["steps"][1:]
        self.states[response["id"]] = [*seen, *map(without_nulls, said)]


class KeepingWorld(World):
    """Devices that go on from what their providers keep, wherever a merge has put it meanwhile."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.keepers = {api: Keeper(api) for api in STATEFUL}
        self.seen: dict[int, list[Any]] = {}
        self.done: Counter[str] = Counter()

    def do_ask(self, device: Device) -> None:
        api = self.rng.choice(STATEFUL)
        keeper, model = self.keepers[api], self.rng.choice(("m-1", "m-1", "m-1", "m-2"))
        answers = [entry for entry in device.shown() if f"{api}/handle" in entry.hidden]
        since = (answers[-1] if self.rng.random() < 0.6 else self.rng.choice(answers)) if answers else None
        if keeper.states and self.rng.random() < 0.1:
            del keeper.states[self.rng.choice(sorted(keeper.states))]
        try:
            whole = device.conv.messages(api, model=model)
        except FormatError:
            return  # it says nothing
        member = format_of(api).member
        listed = without_points(whole.body[member])
        request = device.conv.messages(api, model=model, since=since)
        assert VALIDATORS[api](whole.body) == []
        if since is None:
            assert (request.body, request.since) == (whole.body, None)
        if request.since is None:
            self.done[f"whole: {request.whole_because}"] += 1
            assert without_points(request.body[member]) == listed
        else:
            assert request.whole_because == "" and len(request.body[member]) < len(listed)
            assert listed[len(listed) - len(request.body[member]) :] == request.body[member]
            kept = ("previous_response_id", "previous_interaction_id", "thread", member)
            for key in whole.body.keys() | request.body.keys():
                if key not in kept:
                    assert request.body[key] == without_points(whole.body[key]), key
        try:
            seen = keeper.read(request.body)
            self.done["delta" if request.since else "replay"] += 1
        except Refused as refused:
            step = next_step(refused.failure, request)
            assert (step.action, step.since) == ("send", None)
            request = device.conv.messages(api, model=model, since=step.since, without=step.without)
            seen = keeper.read(request.body)
            self.done["forgot"] += 1
        assert seen == (listed if isinstance(listed, list) else [listed]), "what the model is shown, message by message"
        device.request = request
        self.seen[id(request)] = seen

    def do_answer(self, device: Device) -> None:
        if device.request is None or self.rng.random() < 0.4:
            self.do_ask(device)
        request, device.request = device.request, None
        if request is None:
            return
        api = request.target.api or ""
        response = json.loads(self.response(api, request))
        response["id"] = f"state_{self.count}"
        sent = (
            {**request.body, "thread": request.body.get("thread", {"type": "create"})} if api == "anthropic" else None
        )
        entry = device.conv.append_response(request, response, sent=sent)
        self.keepers[api].answer(self.seen[id(request)], response)
        kept = isinstance(request.body[format_of(api).member], list) and request.body.get("store") is not False
        assert (f"{api}/handle" in entry.hidden) == kept


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_a_delta_says_what_the_whole_log_says_over_merged_histories(first: int) -> None:
    done: Counter[str] = Counter()
    for seed in range(first, first + 15):
        rng = random.Random(seed)
        world = KeepingWorld(rng)
        weights = [{"do_answer": 12, "do_say": 8, "do_result": 8}.get(name, 1) for name in OPERATIONS]
        world.begin()
        for _ in range(rng.randint(3, 7)):
            for device in world.devices:
                for name in rng.choices(OPERATIONS, weights, k=rng.randint(0, 5)):
                    getattr(world, name)(device)
            world.merge(*rng.sample(world.devices, 2))
        done += world.done
    assert done["delta"] > 10, done


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
def conv(tmp_path: Path, clock: list[float]) -> Iterator[llmcrdt.Conversation]:
    with llmcrdt.open(tmp_path / "a.db", clock=lambda: clock[0]) as repo:
        made = repo.create()
        made.append("system", "Be brief.", tools=[{"type": "function", "function": {"name": "look"}}])
        made.append("user", "What is there?")
        yield made


def ask(conv: llmcrdt.Conversation, api: str, since: Any = None, n: int = 1, **target: Any) -> tuple[Request, Any]:
    """A request, and the entry of its answer, whose state is called ``state_n``."""
    request = conv.messages(api, model="m-1", since=since, **target)
    response = {**json.loads(json.dumps(RESPONSES[api]).replace('"c1"', f'"c{n}"')), "id": f"state_{n}"}
    text = (
        json.dumps(response).replace('"msg_1"', f'"msg_{n}"').replace('"fc_1"', f'"fc_{n}"').replace("rs_1", f"rs_{n}")
    )
    body = request.body
    if api == "anthropic" and "thread" not in body:
        body = {**body, "thread": {"type": "create"}}
    return request, conv.append_response(request, text, sent=body)


@pytest.mark.parametrize("api", STATEFUL)
def test_each_turn_sends_what_is_new_alone(conv: llmcrdt.Conversation, api: str) -> None:
    member, sizes, answer = format_of(api).member, [], None
    for n in range(1, 9):
        whole = conv.messages(api, model="m-1")
        request, answer = ask(conv, api, answer, n)
        sizes.append(len(json.dumps(request.body[member])))
        assert request.whole_because == "" and (request.since is None) == (n == 1)
        assert VALIDATORS[api](whole.body) == []
        if n > 1:
            assert (
                request.body[member] == whole.body[member][-len(request.body[member]) :]
                and len(request.body[member]) == 2
            )
            text = json.dumps(request.body)  # the Responses API has these instructions in its list
            assert "What is there?" not in text and ("Be brief." in text) == (api != "openai-responses")
        conv.append("tool", "a cat", call=answer.tool_calls[0])
        conv.append("user", "And now?")
    assert max(sizes[1:]) < 1.1 * min(sizes[1:])


@pytest.mark.parametrize("api", STATEFUL)
def test_a_handle_holds_where_and_as_long_as_its_provider_keeps_what_it_stands_for(
    conv: llmcrdt.Conversation, clock: list[float], api: str
) -> None:
    _, answer = ask(conv, api, account="acct-1")
    more = conv.append("user", "And now?")

    def why(since: Any = answer, account: str | None = "acct-1", **target: Any) -> str:
        request = conv.messages(api, model="m-1", since=since, account=account, **target)
        assert (request.since is None) == bool(request.whole_because)
        whole = conv.messages(api, model="m-1", account=account, **target)
        assert request.since or request.messages == whole.messages
        return request.whole_because

    assert why() == ""
    assert why(account="acct-2") == why(account=None) == "account"
    assert why(provider="another") == "provider"
    assert why(since=more) == "none"
    assert why(since=conv.transcript()[0]) == "none"
    first = conv.transcript()[1]
    edited = conv.edit(first, "What was there?")
    assert why() == "elsewhere"
    conv.select(answer)
    assert why() == ""
    before = clock[0]
    clock[0] += {"anthropic": 299, "gemini-interactions": 86_399, "openai-responses": 30 * 86_400 - 1}[api]
    assert why() == ""
    clock[0] += 2
    assert why() == "expired"
    clock[0] = before
    conv.erase(edited)
    assert why() == ""
    conv.erase(first)
    assert why() == "erased"


@pytest.mark.parametrize("api", STATEFUL)
def test_nothing_goes_on_from_what_would_be_sent_otherwise_now(conv: llmcrdt.Conversation, api: str) -> None:
    """A model that gets no signature of the first one would be shown another list than the provider holds."""
    _, answer = ask(conv, api)
    conv.append("user", "And now?")
    assert conv.messages(api, model="m-2", since=answer).whole_because == "differs"
    assert conv.messages(api, model="m-1", since=answer, without=[(answer.id, next(iter(sorted(answer.hidden))))])
    dropped = [(answer.id, name) for name in answer.hidden if not name.endswith("/handle")]
    request = conv.messages(api, model="m-1", since=answer, without=dropped)
    assert request.whole_because == "differs" and {line.reason for line in request.left_out} == {"refused"}
    assert "OPAQUE" not in json.dumps(request.body)
    if api == "anthropic":
        assert request.body["thread"] == {"type": "create"}


@pytest.mark.parametrize("api", STATEFUL)
def test_a_provider_that_is_asked_to_keep_nothing_leaves_no_handle(conv: llmcrdt.Conversation, api: str) -> None:
    request = conv.messages(api, model="m-1")
    sent = {**request.body, "store": False}
    response = {**RESPONSES[api], "id": "state_1"}
    assert f"{api}/handle" not in conv.append_response(request, response, sent=sent).hidden
    assert f"{api}/handle" not in conv.append_response(request, response, sent=json.dumps(sent).encode()).hidden
    if api == "anthropic":
        refused = {**response, "stop_reason": "refusal"}
        entry = conv.append_response(request, refused, sent={**request.body, "thread": {"type": "create"}})
        assert "anthropic/handle" not in entry.hidden, "a thread can't go on after a refusal"
    if api == "openai-responses":
        entry = conv.append_response(request, response, sent={**request.body, "conversation": "conv_1"})
        assert "openai-responses/handle" not in entry.hidden, "others may append to a conversation of the server's"


@pytest.mark.parametrize("api", STATEFUL)
def test_another_device_goes_on_from_the_same_state(tmp_path: Path, conv: llmcrdt.Conversation, api: str) -> None:
    _, answer = ask(conv, api)
    with llmcrdt.open(tmp_path / "b.db", clock=lambda: NOW) as repo:
        there = repo.join(conv.id)
        there.apply(conv.diff())
        there.append("user", "And now?")
        request = there.messages(api, model="m-1", since=answer.id)
        assert request.since == answer.id and len(request.body[format_of(api).member]) == 2
        assert request.messages == request.body[format_of(api).member]


def test_a_handle_that_a_stranger_wrote_is_not_used(conv: llmcrdt.Conversation) -> None:
    bound = {"provider": "openai", "api": "openai-responses"}
    for value in (
        b"junk",
        b"[]",
        b'{"id":"r","held":"x"}',
        b'{"id":"r","held":"x","count":0}',
        b'{"id":5,"held":"x","count":1}',
    ):
        field = llmcrdt.HiddenField(value, bound)
        entry = conv.append("assistant", "x", frame=conv.transcript(), hidden={"openai-responses/handle": field})
        assert conv.messages("openai-responses", since=entry).whole_because == "unreadable"
    field = llmcrdt.HiddenField(b'{"id":"r","held":"x","count":1}', bound)
    entry = conv.append("assistant", "x", frame=conv.transcript(), hidden={"openai-responses/handle": field})
    assert conv.messages("openai-responses", since=entry).whole_because == "differs"
