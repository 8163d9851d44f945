"""Answers that are steered: grammars, tool calls out of a model's words, probabilities; prompts still extend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.canonical import canonical_json
from llmcrdt.exceptions import EngineError, TemplateFailed
from llmcrdt.kvcache import NullCache
from llmcrdt.prompt.generation_log import TOKENS, TokenLog
from llmcrdt.prompt.token_log import prompt_ids
from llmcrdt.testing.models import write_model

OpenRepo = Callable[..., llmcrdt.Repo]
TRAINS = {"type": "function", "function": {"name": "trains", "parameters": {"type": "object"}}}
CALL = r"""root ::= words "<tool_call>\n{\"name\": \"trains\", \"arguments\": " args "}\n</tool_call>"
words ::= "Let me look.\n" | ""
args ::= "{\"to\":" " "? "\"Rome\"}" | "{}"
"""
BROKEN = r'root ::= "<tool_call>{\"name\": \"trains\", \"arguments\": {]</tool_call> sorry"'


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llmcrdt.LlamaEngine]:
    folder = tmp_path_factory.mktemp("model")
    with llmcrdt.LlamaEngine(write_model(folder / "tiny.gguf"), cache=folder / "kv") as engine:
        yield engine


@pytest.fixture
def conversation(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "You are a guide.", tools=[TRAINS])
    conversation.append("user", "Where shall we go?")
    return conversation


@pytest.mark.parametrize("seed", range(4))
def test_a_call_becomes_a_part_and_the_next_prompt_still_extends(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, seed: int
) -> None:
    """Call, result, call again, words: each prompt begins with all that the model saw and sampled before."""
    seen: tuple[int, ...] = ()
    for turn in range(4):
        prompt = prompt_ids(list(conversation.transcript()), engine.tokenizer, created_at=conversation.created_at)
        assert prompt.ids[: len(seen)] == seen
        assert llmcrdt.plan(conversation, engine).why.cause == ("extends" if turn else "first")
        grammar = CALL if turn % 2 == 0 else 'root ::= "It goes " [a-z]{3,9} "."'
        generation = llmcrdt.generate(
            conversation, engine, max_tokens=200, seed=seed + turn, temperature=1.5, grammar=grammar
        )
        entry = generation.result(60)
        assert generation.stats["tool_format"] == "hermes"
        log = TokenLog.unpack(entry.hidden[TOKENS].data)
        seen = (*prompt.ids, *log.sampled)
        raw = engine.tokenizer.decode(log.sampled).decode()
        if turn % 2:
            assert (entry.tool_calls, entry.text) == ((), raw)
            conversation.append("user", "And then?")
            continue
        (call,) = entry.tool_calls
        assert call.name == "trains"
        assert f'"arguments": {call.arguments}}}' in raw
        assert len(call.id) == 9
        assert entry.text == ("Let me look." if raw.startswith("Let") else "")
        assert "".join(generation).strip() == entry.text
        conversation.append("tool", "at nine", call=call)
    assert conversation.verify() == []
    ids = [call.id for entry in conversation.transcript() for call in entry.tool_calls]
    assert len(set(ids)) == len(ids) == 2


def test_a_malformed_call_and_a_call_nobody_offered_stay_text(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, open_repo: OpenRepo
) -> None:
    broken = llmcrdt.generate(conversation, engine, max_tokens=200, seed=1, grammar=BROKEN).result(60)
    assert broken.tool_calls == ()
    assert broken.text == '<tool_call>{"name": "trains", "arguments": {]</tool_call> sorry'
    off = llmcrdt.generate(conversation, engine, max_tokens=200, seed=1, grammar=CALL, tools="off", instead_of=broken)
    assert off.result(60).text.endswith("</tool_call>")
    plain = open_repo("plain").create()
    plain.append("user", "Where shall we go?")
    generation = llmcrdt.generate(plain, engine, max_tokens=200, seed=1, grammar=CALL)
    assert generation.result(60).text.endswith("</tool_call>")
    assert generation.stats["tool_format"] is None
    forced = llmcrdt.generate(plain, engine, max_tokens=200, seed=1, grammar=CALL, tools="hermes")
    assert len(forced.result(60).tool_calls) == 1


def test_a_call_cut_short_stays_text_and_the_next_prompt_holds_it(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine
) -> None:
    entry = llmcrdt.generate(conversation, engine, max_tokens=24, seed=1, temperature=0, grammar=CALL).result(60)
    assert entry.tool_calls == ()
    assert "<tool_call>" in entry.text
    conversation.append("user", "go on")
    assert llmcrdt.plan(conversation, engine).why.cause == "extends"


FORMS = {
    "hermes": r"<tool_call>\n{\"name\": \"trains\", \"arguments\": {\"to\": \"Rome\"}}\n</tool_call>",
    "llama3": r"{\"name\": \"trains\", \"parameters\": {\"to\": \"Rome\"}}",
    "mistral": r"[TOOL_CALLS][{\"name\": \"trains\", \"arguments\": {\"to\": \"Rome\"}}]",
    "harmony": r"<|channel|>commentary to=functions.trains <|constrain|>json<|message|>{\"to\": \"Rome\"}<|call|>",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_family_s_calls_are_read_and_its_stats_say_how(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, form: Any
) -> None:
    """Sampled token by token by a real model; cut short, they stay text, in the same words."""
    options: dict[str, Any] = {"seed": 1, "temperature": 0, "grammar": f'root ::= "{FORMS[form]}"', "tools": form}
    generation = llmcrdt.generate(conversation, engine, max_tokens=300, **options)
    entry = generation.result(60)
    assert generation.stats["tool_format"] == form
    assert [(call.name, json.loads(call.arguments)) for call in entry.tool_calls] == [("trains", {"to": "Rome"})]
    assert entry.text == ""
    short = llmcrdt.generate(conversation, engine, max_tokens=20, instead_of=entry, **options).result(60)
    assert short.tool_calls == ()
    sampled = TokenLog.unpack(short.hidden[TOKENS].data).sampled
    assert short.text == engine.tokenizer.decode(sampled).decode()


def test_an_answer_follows_a_schema_and_the_record_says_so(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine
) -> None:
    schema = {"type": "object", "properties": {"go": {"enum": ["north", "south"]}}, "required": ["go"]}
    bias = {engine.tokenizer.encode("s", special=False)[0]: -500.0}
    generation = llmcrdt.generate(
        conversation, engine, max_tokens=300, seed=1, temperature=0, json_schema=schema, logit_bias=bias, top_logprobs=3
    )
    entry = generation.result(60)
    assert json.loads(entry.text)["go"] in ("north", "south")
    recorded = entry.model["sampling"]
    assert recorded["json_schema"] == canonical_json(schema)
    assert recorded["logit_bias"] == {str(token): value for token, value in bias.items()}
    assert recorded["seed"] == 1
    assert not {"grammar", "presence_penalty", "top_logprobs"} & set(recorded), "only what is not as usual"
    rows = generation.stats["logprobs"]
    assert tuple(token for token, _, _ in rows) == TokenLog.unpack(entry.hidden[TOKENS].data).sampled
    assert all(len(top) == 3 and logprob <= 0 for _, logprob, top in rows)


def test_a_grammar_that_is_none_writes_nothing(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine) -> None:
    before = conversation.version()
    with pytest.raises(EngineError, match="grammar"):
        llmcrdt.generate(conversation, engine, grammar="root ::= (").result(60)
    assert conversation.version() == before


def test_a_long_prefill_shows_how_far_it_is(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, tmp_path: Path
) -> None:
    conversation.append("user", "a long letter " * 150)
    path = write_model(tmp_path / "m.gguf", context=4096)
    with llmcrdt.LlamaEngine(path, cache=NullCache()) as cold:
        generation = llmcrdt.generate(conversation, cold, max_tokens=3, seed=1)
        generation.result(60)
    done, total = generation.stats["progress"]
    assert 0 < done < total == generation.stats["evaluated"]


PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}assistant: "
# A template's "tools" are not always the tools that it is given.
OTHERS = "{% set tools = 1 %}{{ tools }}{# tools #}" + PLAIN


@pytest.mark.parametrize("template", [PLAIN, OTHERS, ""], ids=["plain", "its own tools", "none"])
def test_tools_that_a_template_never_prints_are_refused_and_not_ignored(
    template: str, open_repo: OpenRepo, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "plain.gguf", chat_template=template)
    with llmcrdt.LlamaEngine(model, cache=NullCache()) as engine:
        conversation = open_repo("a").create()
        conversation.append("system", "You are a guide.", tools=[TRAINS])
        conversation.append("user", "Hello")
        before = conversation.transcript().ids
        with pytest.raises(TemplateFailed, match=r'offers tools.*tools="off"'):
            llmcrdt.generate(conversation, engine, max_tokens=4).result(60)
        assert conversation.transcript().ids == before and not conversation.unsealed()
        assert llmcrdt.generate(conversation, engine, max_tokens=4, tools="off").result(60).sealed
        asked = llmcrdt.generate(conversation, engine, max_tokens=4, tools="hermes")
        assert asked.result(60).sealed and asked.stats["tool_format"] == "hermes"
        conversation.append("system", "", tools=[])  # the newest settings count
        conversation.append("user", "And now?")
        assert llmcrdt.generate(conversation, engine, max_tokens=4).result(60).sealed
