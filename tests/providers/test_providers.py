"""Answers of providers, through their real SDKs, from stand-ins over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import llmcrdt
from llmcrdt import CallArguments, CallBegun, CallEnded, Ended, ReasoningDelta, TextDelta, Usage
from llmcrdt.document.canonical import exact_json, parse_json
from llmcrdt.document.frame import sent_hash
from llmcrdt.exceptions import (
    InvalidContent,
    KeyMissing,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
    ResponseFailed,
)
from llmcrdt.providers import Anthropic, Gemini, OpenAI, Provider, Settings, is_named, named
from llmcrdt.providers.sdk import trusted

from ..waiting import eventually
from .conftest import APIS, SDKS, Ask
from .gemini_stand_in import InteractionsStandIn
from .openai_stand_in import ResponsesStandIn
from .stand_in import Cut, GiveUp, Hang, Refusal, Said, StandIn

OpenRepo = Callable[..., llmcrdt.Repo]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
SAID = Said("It is warm, 23 °C.", "Let me think.")
OPAQUE = {
    "openai-chat": ("openai-chat/reasoning_opaque",),
    "openai-responses": ("openai-responses/reasoning",),
    "anthropic": ("anthropic/thinking",),
    "gemini": ("gemini/thoughts",),
    "gemini-interactions": ("gemini-interactions/signatures",),
}
GOOGLE: dict[str, Any] = {"gemini": "generateContent", "gemini-interactions": "interactions"}
every_api = pytest.mark.parametrize("api", APIS)
both_ways = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture
def conv(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "Be brief.", tools=TOOLS)
    conversation.append("user", "Is it warm in Rome?")
    return conversation


def roles(conv: llmcrdt.Conversation) -> list[str]:
    return [entry.role for entry in conv.transcript()]


@every_api
@both_ways
def test_an_answer_is_in_the_document_with_all_that_came_with_it(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, stream: bool
) -> None:
    stand_in = stand_ins[api]
    stand_in.says = [SAID]
    before = conv.transcript()
    generation = llmcrdt.generate(conv, ask(api, stream=stream), max_tokens=50)
    *deltas, usage, ended = generation.events()
    entry = generation.result()
    assert len(deltas) > 3 or not stream
    assert ended == Ended(entry, entry.usage["finish"])  # type: ignore[arg-type]
    assert usage == Usage(
        prompt_tokens=14 if api == "anthropic" else 10, output_tokens=5, cached_tokens=4, raw=entry.usage
    )
    assert "".join(e.text for e in deltas if isinstance(e, TextDelta)) == entry.text == "".join(generation) == SAID.text
    if api != "openai-chat":  # which shows nobody what it thought
        assert "".join(e.text for e in deltas if isinstance(e, ReasoningDelta)) == entry.reasoning == SAID.thinking
    assert (entry.author, entry.model, entry.status) == ("m-1", {"api": api, "name": "m-1"}, "complete")
    assert tuple(entry.hidden) == OPAQUE[api]
    (sent,) = stand_in.accepted
    assert entry.frame is not None and (entry.frame.hash, entry.frame.sent) == (before.hash, sent_hash(sent))
    stats = generation.stats
    assert (stats["attempts"], stats["left_out"], stats["finish"]) == (1, [], entry.usage["finish"])
    assert conv.verify() == []


@every_api
@both_ways
def test_calls_their_results_and_what_was_thought_go_back(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, stream: bool
) -> None:
    stand_in, provider = stand_ins[api], ask(api, stream=stream)
    stand_in.says = [Said("", "Hm.", [("look", '{"at": 1}'), ("look", "{}")]), SAID, Said("Yes.", "Hm again.")]
    generation = llmcrdt.generate(conv, provider)
    calls = [event for event in generation.events() if isinstance(event, (CallBegun, CallArguments, CallEnded))]
    entry = generation.result()
    for index, call in enumerate(entry.tool_calls):
        mine = [event for event in calls if event.call == index]
        assert mine[0] == CallBegun(index, call.id, call.name) and mine[-1] == CallEnded(index)
        told = "".join(event.text for event in mine if isinstance(event, CallArguments))
        assert json.loads(told) == json.loads(call.arguments)
        conv.append("tool", f"a cat {index}", call=call)
    assert llmcrdt.generate(conv, provider).result(60).text == SAID.text
    conv.append("user", "Sure?")
    plan = llmcrdt.plan(conv, provider)
    assert plan.left_out == () and 0 < plan.reused < plan.total and "sent before" in str(plan)
    assert llmcrdt.generate(conv, provider).result(60).text == "Yes."
    assert stand_in.refused == [] and "a cat 0" in json.dumps(stand_in.accepted[-1])
    opaque = stand_in.sign("x")[:4]
    assert opaque and json.dumps(stand_in.accepted[-1]).count("Let me think") == (api != "openai-chat")


@every_api
def test_settings_stand_in_the_request_in_the_words_of_the_api(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    schema = {"type": "object", "properties": {"warm": {"type": "boolean"}}}
    options: dict[str, Any] = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "json_schema": schema, "tools": "off"}
    llmcrdt.generate(conv, ask(api), **options).result(60)
    (body,) = stand_ins[api].accepted
    if api.startswith("openai") or api == "anthropic":
        assert (body["temperature"], body["top_p"], body["model"]) == (0.5, 0.9, "m-1")
        assert "none" in json.dumps(body["tool_choice"])
        assert body[{"openai-responses": "max_output_tokens"}.get(api, "max_tokens")] == 9
    elif api == "gemini":
        own = {"maxOutputTokens": 9, "temperature": 0.5, "topP": 0.9, "responseMimeType": "application/json"}
        assert body["generationConfig"] == {**own, "responseJsonSchema": schema}
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "NONE"}} and "model" not in body
    else:
        own = {"max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "tool_choice": "none"}
        assert (body["generation_config"], body["model"]) == (own, "m-1")
    assert body["tools"] and json.dumps(schema) in json.dumps(body)
    unasked = json.dumps(ask(api).body({}, Settings(tools=False), stream=False))
    assert "tool_choice" not in unasked and "toolConfig" not in unasked
    theirs = OpenAI("m-1", api="chat").body({}, Settings(max_tokens=9), stream=False)
    assert theirs == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("api", "options"),
    [
        ("anthropic", {"seed": 1}), ("anthropic", {"logit_bias": {1: 2.0}}), ("openai-responses", {"stop": ["x"]}),
        ("openai-chat", {"top_k": 5}), ("openai-chat", {"grammar": "root ::= x"}), ("anthropic", {"min_p": 0.1}),
        ("openai-chat", {"tools": "hermes"}), ("openai-chat", {"json_schema": "[1]"}),
        ("openai-chat", {"json_schema": "{"}), ("gemini", {"logit_bias": {1: 2.0}}),
        ("gemini-interactions", {"top_k": 5}),
    ],
)  # fmt: skip
def test_a_setting_that_the_api_has_not_is_refused_at_once(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, options: dict[str, Any]
) -> None:
    before = conv.version()
    with pytest.raises(InvalidContent):
        llmcrdt.generate(conv, ask(api), **options)
    assert stand_ins[api].accepted == [] and conv.version() == before


@every_api
def test_what_another_provider_said_is_shown_and_not_its_signatures_which_come_back(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    other = "anthropic" if api != "anthropic" else "openai-responses"
    stand_ins[api].says = [SAID, Said("Back.", "Hm.")]
    llmcrdt.generate(conv, ask(api)).result(60)
    conv.append("user", "And in Oslo?")
    generation = llmcrdt.generate(conv, ask(other))
    generation.result(60)
    (left,) = generation.stats["left_out"]
    assert OPAQUE[api][0] in left and "another provider" in left
    assert SAID.text in json.dumps(stand_ins[other].accepted[-1], ensure_ascii=False)
    conv.append("user", "And there?")
    back = llmcrdt.generate(conv, ask(api))
    back.result(60)
    first = conv.transcript()[2].hidden[OPAQUE[api][0]].data.decode()
    opaque = max(json.dumps(json.loads(first)).split('"'), key=len)
    assert opaque in json.dumps(stand_ins[api].accepted[-1]) and len(opaque) > 40
    assert all(other in line or "reasoning" in line or "thinking" in line for line in back.stats["left_out"])
    assert not any(stand_in.refused for stand_in in stand_ins.values())


@every_api
def test_a_refusal_is_told_and_writes_nothing(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    before = conv.version()
    with pytest.raises(ProviderRefused, match=r"\(401\): invalid x-api-key") as caught:
        llmcrdt.generate(conv, ask(api, api_key="key-2")).result(60)
    assert caught.value.status == 401 and caught.value.code == "authentication_error" and caught.value.body
    stand_ins[api].faults = [Refusal(400, "too long", code="context_length_exceeded")]
    with pytest.raises(ProviderRefused, match="too long"):
        llmcrdt.generate(conv, ask(api)).result(60)
    assert conv.version() == before and len(stand_ins[api].refused) == 2


@every_api
@pytest.mark.parametrize("status", [429, 529])
def test_a_passing_failure_is_tried_again_and_said_once(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, status: int
) -> None:
    again = Refusal(status, "later", headers=(("retry-after", "0.01"),))
    stand_ins[api].faults = [again, again]
    generation = llmcrdt.generate(conv, ask(api))
    generation.result(60)
    assert generation.stats["attempts"] == 3 and len(stand_ins[api].accepted) == 1
    assert generation.stats["sent_again"] == ["The provider takes no request just now."] * 2
    assert roles(conv) == ["system", "user", "assistant"]
    stand_ins[api].faults = [again] * 3
    conv.append("user", "And now?")
    with pytest.raises(ProviderRefused, match="later"):
        llmcrdt.generate(conv, ask(api)).result(60)
    stand_ins[api].faults = [Refusal(status, "come tomorrow", headers=(("retry-after", "86400"),))]
    with pytest.raises(ProviderRefused, match="come tomorrow"):
        llmcrdt.generate(conv, ask(api)).result(60)
    assert roles(conv) == ["system", "user", "assistant", "user"]


@every_api
def test_what_may_have_been_computed_is_not_asked_again_unasked(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    stand_ins[api].faults = [Refusal(500, "oh"), Cut(0)]
    for error in (ProviderRefused, ProviderUnreachable):
        generation = llmcrdt.generate(conv, ask(api))
        with pytest.raises(error, match="Generate again") as caught:
            generation.result(60)
        assert generation.stats["attempts"] == 1 and "comput" in caught.value.hint
    assert roles(conv) == ["system", "user"]


@pytest.mark.parametrize("api", ["openai-responses", "anthropic", "gemini", "gemini-interactions"])
def test_a_provider_that_cant_read_its_own_fields_any_more_gets_the_rest(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, open_repo: OpenRepo
) -> None:
    stand_ins[api].says = [SAID, SAID]
    llmcrdt.generate(conv, ask(api)).result(60)
    stand_ins[api]._secret = b"another key"
    conv.append("user", "And in Oslo?")
    generation = llmcrdt.generate(conv, ask(api))
    assert generation.result(60).text == SAID.text
    (why,), (left,) = generation.stats["sent_again"], generation.stats["left_out"]
    assert OPAQUE[api][0] in why and OPAQUE[api][0] in left and "its provider refused it" in left
    assert len(stand_ins[api].refused) == 1 and "And in Oslo?" in json.dumps(stand_ins[api].accepted[-1])
    there = open_repo("phone").join(conv.id)
    there.apply(conv.diff())
    for device in (conv, there):  # nobody sends it there again
        device.append("user", "And in Bern?")
        plan = llmcrdt.plan(device, ask(api))
        assert [(line.name, line.reason) for line in plan.left_out] == [(OPAQUE[api][0], "refused")]
        again = llmcrdt.generate(device, ask(api))
        again.result(60)
        assert "sent_again" not in again.stats and len(stand_ins[api].refused) == 1
    (noted,) = (entry.usage["refused"] for entry in conv.transcript() if "refused" in entry.usage)
    assert noted["fields"] == [[conv.transcript()[2].id, OPAQUE[api][0]]]  # type: ignore[call-overload, index]
    other = llmcrdt.plan(conv, ask(api, account="another"))
    assert all(line.reason != "refused" for line in other.left_out)


@both_ways
@pytest.mark.parametrize("api", ["openai-responses", "anthropic"])
def test_what_is_sealed_is_read_by_no_relay_and_nothing_is_sent_that_could_not_be_sealed(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, stream: bool, open_repo: OpenRepo
) -> None:
    """Nor is the account that it is bound to, which the note of a refusal names as well."""
    stand_in = stand_ins[api]
    stand_in.says = [SAID, SAID, SAID]
    mine = ask(api, account="acct-of-mine", sealed=True, stream=stream)
    (field,) = llmcrdt.generate(conv, mine).result(60).hidden.values()
    assert field.sealed and field.binding["account"] == "acct-of-mine"
    conv.append("user", "And in Oslo?")
    llmcrdt.generate(conv, mine).result(60)
    assert stand_in.refused == [] and exact_json(parse_json(field.data.decode())[0][1]) in exact_json(
        stand_in.accepted[-1]
    )
    stand_in._secret = b"another key"
    conv.append("user", "And in Bern?")
    assert "refused" in llmcrdt.generate(conv, mine).result(60).usage
    said = conv.diff()
    assert b"acct-of-mine" not in said and field.data not in said and b"It is warm" in said
    phone = open_repo("phone").join(conv.id)
    phone.apply(said)
    count = len(stand_in.accepted)
    phone.append("user", "And in Paris?")
    with pytest.raises(KeyMissing, match="is not here"):
        llmcrdt.generate(phone, mine).result(60)
    assert len(stand_in.accepted) == count and roles(phone)[-1] == "user"


@pytest.mark.parametrize(
    ("api", "handle", "other"),
    [
        ("openai-responses", "previous_response_id", "openai-chat"),
        ("gemini-interactions", "previous_interaction_id", "gemini"),
    ],
)
def test_a_provider_that_keeps_is_sent_what_is_new_and_everything_when_it_forgot(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, handle: str, other: str
) -> None:
    stand_in = stand_ins[api]
    assert isinstance(stand_in, ResponsesStandIn | InteractionsStandIn)
    for turn in range(3):
        stand_in.says = [Said(f"Well, {turn}.", "Hm.")]
        llmcrdt.generate(conv, ask(api, keep=True)).result(60)
        conv.append("user", f"And now? {turn}")
    first = 2 if api == "openai-responses" else 1  # instructions are an item there
    assert [len(body["input"]) for body in stand_in.accepted] == [first, 1, 1]
    assert [handle in body for body in stand_in.accepted] == [False, True, True]
    stand_in.forget()
    generation = llmcrdt.generate(conv, ask(api, keep=True))
    generation.result(60)
    assert "the whole log is said again" in generation.stats["sent_again"][0] and len(stand_in.refused) == 1
    whole = json.dumps(stand_in.accepted[-1])
    assert handle not in whole and all(f"And now? {turn}" in whole for turn in range(3))
    with pytest.raises(InvalidContent):
        ask(other, keep=True)


@every_api
def test_a_server_that_is_not_there_is_told(conv: llmcrdt.Conversation, api: str) -> None:
    before = conv.version()
    with pytest.raises(ProviderUnreachable, match="did not answer"):
        llmcrdt.generate(conv, gone(api)).result(60)
    assert conv.version() == before


def gone(api: str) -> Provider:
    """A provider at an address where nobody listens."""
    if api == "anthropic":
        return Anthropic("m-1", api_key="x", base_url="http://127.0.0.1:9")
    if api in GOOGLE:
        return Gemini("m-1", api=GOOGLE[api], api_key="x", base_url="http://127.0.0.1:9")
    return OpenAI(
        "m-1", api="chat" if api == "openai-chat" else "responses", api_key="x", base_url="http://127.0.0.1:9"
    )


LONG = Said("It is warm there in May, and there is much to see. " * 4, "Let me think.")


@every_api
def test_others_see_an_answer_grow_and_can_stop_it(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, open_repo: OpenRepo
) -> None:
    stand_ins[api].says, stand_ins[api].faults = [LONG], [Hang(30)]
    phone = open_repo("phone").join(conv.id)
    generation = llmcrdt.generate(conv, ask(api), interval=0)

    def seen() -> str:
        phone.apply(conv.diff(since=phone.version()))
        return "".join(entry.text for entry in phone.unsealed())

    text = eventually(seen)
    assert LONG.text.startswith(text)
    generation.cancel()
    entry = generation.result(60)
    assert entry.status == "stopped" and LONG.text.startswith(entry.text) and generation.stats["finish"] == "cancelled"
    assert stand_ins[api].left.wait(60)


@every_api
def test_a_stop_from_another_device_ends_it(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, open_repo: OpenRepo
) -> None:
    stand_ins[api].says = [Said("So many words. " * 40_000)]
    phone = open_repo("phone").join(conv.id)
    generation = llmcrdt.generate(conv, ask(api), interval=0)
    eventually(lambda: conv.transcript() if "time_to_first_token" in generation.stats else None)
    phone.apply(conv.diff())
    for entry in eventually(lambda: phone.apply(conv.diff()) or [e for e in phone.unsealed() if e.text]):
        phone.stop(entry)
    conv.apply(phone.diff())
    entry = generation.result(60)
    assert entry.status == "stopped" and 0 < len(entry.text) < 600_000


@every_api
@pytest.mark.parametrize("fault", [Cut, GiveUp])
def test_an_answer_that_breaks_off_is_told_and_what_came_stays(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str, fault: type[Cut] | type[GiveUp]
) -> None:
    """At every event: what came is an entry, and the error is told."""
    for after in range(0, 60, 7):
        stand_ins[api].says = [LONG]
        stand_ins[api].faults = [Cut(after) if fault is Cut else GiveUp(after, "It broke.")]
        stand_ins[api].accepted.clear()
        before = conv.transcript().ids
        try:
            entry = llmcrdt.generate(conv, ask(api)).result(60)
        except (ProviderUnreachable, ResponseFailed):
            for entry in conv.transcript()[len(before) :]:
                assert entry.status == "stopped" and LONG.text.startswith(entry.text)
        else:
            assert (entry.status, entry.text) == ("complete", LONG.text)
        assert len(stand_ins[api].accepted) == 1
        assert conv.unsealed() == () and conv.verify() == []
        conv.append("user", f"And now? {after}")
    stand_ins[api].says = []
    assert llmcrdt.generate(conv, ask(api)).result(60).status == "complete"
    assert stand_ins[api].refused == []


@every_api
def test_a_cancelled_request_is_left_at_once_and_keeps_its_place(
    conv: llmcrdt.Conversation, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    stand_ins[api].faults = [Hang(0)]

    async def run() -> None:
        generation = llmcrdt.generate(conv, ask(api))
        task = asyncio.ensure_future(read(generation))
        await asyncio.to_thread(eventually, lambda: stand_ins[api].accepted)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await generation).status == "stopped"

    asyncio.run(run())
    assert stand_ins[api].left.wait(60), "the connection is closed"
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "llmcrdt-generation"])
    assert roles(conv) == ["system", "user", "assistant"] and conv.unsealed() == ()
    conv.append("user", "And now?")
    assert llmcrdt.generate(conv, ask(api)).result(60).status == "complete"
    assert stand_ins[api].refused == []


async def read(generation: llmcrdt.Generation) -> None:
    async for _ in generation:
        pass


@every_api
def test_without_a_key_it_says_which_one_is_missing(
    conv: llmcrdt.Conversation, monkeypatch: pytest.MonkeyPatch, stand_ins: dict[str, StandIn], ask: Ask, api: str
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = {"anthropic": Anthropic, "gemini": Gemini, "gemini-interactions": Gemini}.get(api, OpenAI)
    with pytest.raises(ProviderError, match=r"\$(OPENAI|ANTHROPIC|GEMINI)_API_KEY") as caught:
        llmcrdt.generate(conv, made("m-1")).result(60)
    (key,) = re.findall(r"\$(\w+)", str(caught.value))
    monkeypatch.setenv(key, "key-1")
    assert llmcrdt.generate(conv, ask(api, api_key=None)).result(60).status == "complete"


@every_api
def test_without_the_sdk_it_says_what_to_install(
    conv: llmcrdt.Conversation, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    name = SDKS.get(api, "openai")
    monkeypatch.setitem(sys.modules, name, None)
    extra = "gemini" if api in GOOGLE else name
    with pytest.raises(ProviderMissing, match=rf"llmcrdt\[{extra}\]"):
        llmcrdt.generate(conv, gone(api)).result(60)


def test_a_plan_says_what_goes_out_and_what_stays_here(conv: llmcrdt.Conversation, ask: Ask) -> None:
    claude, gpt = ask("anthropic"), ask("openai-responses")
    plan = llmcrdt.plan(conv, claude)
    assert (plan.reused, plan.total, plan.left_out) == (0, 1, ())
    llmcrdt.generate(conv, ask("anthropic", thinking={"type": "enabled", "budget_tokens": 1024})).result(60)
    conv.append("user", "And in Oslo?")
    plan = llmcrdt.plan(conv, claude)
    assert (plan.reused, plan.total, plan.left_out) == (1, 3, ())
    other = llmcrdt.plan(conv, gpt)
    assert other.reused == 0 and [line.reason for line in other.left_out] == ["provider"]
    assert "is not sent: it is for another provider" in str(other)
    conv.append("system", "", tools=[])
    assert llmcrdt.plan(conv, claude).reused == 0, "its cache begins with the tools"


def test_names_of_models() -> None:
    assert isinstance(named("anthropic/claude-1"), Anthropic) and named("openai-chat/a/b").model == "a/b"
    assert (named("openai/gpt-1").api, named("openai-chat/gpt-1").api) == ("openai-responses", "openai-chat")
    assert (named("gemini/g").api, named("gemini-interactions/g").api) == ("gemini", "gemini-interactions")
    assert not any(map(is_named, ("model.gguf", "openai/", "mistral/x", "./openai/x.gguf", "")))
    for odd in ("openai/", "model.gguf"):
        with pytest.raises(InvalidContent, match="openai/NAME"):
            named(odd)
    for make in (
        lambda: OpenAI(""),
        lambda: OpenAI("m", api="assistants"),
        lambda: Anthropic(5),
        lambda: Gemini("m", api="chat"),
        lambda: Gemini(""),
    ):  # type: ignore[arg-type]
        with pytest.raises(InvalidContent):
            make()


def test_trusted_certificates_are_read_once_and_again_where_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    certifi = pytest.importorskip("certifi")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    usual = trusted()
    assert trusted() is usual
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert trusted() is not usual
    monkeypatch.delenv("SSL_CERT_FILE")
    assert trusted() is usual


def test_an_http_client_of_the_users_is_the_one_that_asks(
    stand_ins: dict[str, StandIn], conv: llmcrdt.Conversation
) -> None:
    httpx2 = pytest.importorskip("httpx2")
    pytest.importorskip("openai")
    seen: list[str] = []

    async def note(request: Any) -> None:
        seen.append(request.url.path)

    client = httpx2.AsyncClient(event_hooks={"request": [note]})
    stand_in = stand_ins["openai-chat"]
    stand_in.says = [SAID]
    asked = OpenAI("m-1", api="chat", base_url=f"{stand_in.url}/v1", api_key="key-1", http_client=client)
    assert llmcrdt.generate(conv, asked).result(60).text == SAID.text
    assert seen == ["/v1/chat/completions"]
