"""A transcript as messages: every call has one result beside it, and what was sent stays as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.document.entry import Config, Reasoning, Text, ToolCall
from llmcrdt.document.repairs import NO_RESULT, is_shown
from llmcrdt.prompt import prompt_ids
from llmcrdt.prompt.adapt import GO_ON, NO_ANSWER, Level, adapt
from llmcrdt.prompt.messages import MAX_ARGUMENT_DEPTH, messages
from llmcrdt.testing.templates import tokenizers
from llmcrdt.testing.tokenizer import ByteTokenizer

TOKENIZER = tokenizers()["chatml"]


def grown(grow: Any, seed: int) -> Any:
    talk = grow(seed)
    for _ in range(talk.random.randrange(12)):
        talk.speak()
        if talk.random.random() < 0.4:
            talk.add("assistant", talk.answer(TOKENIZER, TOKENIZER.encode("ok", special=False)))
    return talk


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_every_call_has_exactly_one_result_right_after_it(grow: Any, seed: int) -> None:
    chat = messages(grown(grow, seed).entries)
    waiting: list[str] = []
    for message in chat.messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.remove(message["tool_call_id"])
        else:
            assert not waiting
            waiting = [call["id"] for call in message.get("tool_calls", [])]
    assert not waiting


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_every_shown_entry_stands_in_the_messages_once(grow: Any, seed: int) -> None:
    talk = grown(grow, seed)
    chat = messages(talk.entries)
    named = [source for source in chat.sources if source is not None]
    assert sorted(named) == sorted(entry.id for entry in talk.entries if is_shown(entry))
    by_id = {entry.id: entry for entry in talk.entries}
    assert all(
        by_id[source].text in message["content"] if source else message["content"] == NO_RESULT
        for message, source in zip(chat.messages, chat.sources, strict=True)
    )


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32), answer=st.booleans())
def test_what_was_sent_stays(grow: Any, seed: int, answer: bool) -> None:
    talk = grown(grow, seed)
    sent = messages(talk.entries).messages
    talk.add("assistant" if answer else "user", "something")
    for _ in range(5):
        talk.speak()
    assert messages(talk.entries).messages[: len(sent)] == sent


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32), level=st.sampled_from(list(Level)[1:]))
def test_adapted_messages_alternate_and_keep_the_words(grow: Any, seed: int, level: Level) -> None:
    before = messages(grown(grow, seed).entries).messages
    after = adapt(before, level, generating=True)
    roles = [message["role"] for message in after]
    rest = roles[1:] if level == Level.ALTERNATE and roles[0] == "system" else roles
    assert "system" not in rest
    assert rest[0] == "user"
    assert rest[-1] != "assistant"
    turns = [m["role"] for m in after if m["role"] in ("user", "assistant") and "tool_calls" not in m]
    assert level < Level.NO_TOOLS or all(one != other for one, other in pairwise(turns))
    assert level < Level.NO_TOOLS or set(roles) <= {"user", "assistant"}
    everything = "\0".join(message["content"] for message in after)
    assert all(message["content"] in everything for message in before)


def test_late_and_second_results_become_items_of_their_own(grow: Any) -> None:
    talk = grow(1)
    talk.add("user", "go")
    asked = talk.add("assistant", [ToolCall("c1", "look", "{}"), ToolCall("c2", "listen", "{}")])
    talk.add("tool", "seen", answers=(asked.id, "c1"))
    talk.add("tool", "seen twice", answers=(asked.id, "c1"))
    talk.add("assistant", "I see")
    talk.add("tool", "heard", answers=(asked.id, "c2"))
    talk.add("tool", "what?", answers=None)
    contents = [(m["role"], m["content"]) for m in messages(talk.entries).messages[2:]]
    assert contents == [
        ("tool", "seen"),
        ("tool", NO_RESULT),
        ("user", "Late result of look: seen twice"),
        ("assistant", "I see"),
        ("user", "Late result of listen: heard"),
        ("user", "Result of a tool: what?"),
    ]


def test_what_is_left_out(grow: Any) -> None:
    talk = grow(1)
    talk.config(tools=[{"name": "f"}])
    talk.add("assistant", "", status="failed")
    talk.add("assistant", "", status="stopped")
    talk.add("assistant", "streaming", status="streaming", hash=None)
    talk.entries.append(replace(talk.entry("user", [Text("gone")]), status="erased"))
    assert messages(talk.entries).messages == ()
    talk.add("assistant", "half", status="stopped")
    talk.add("assistant", "", status="complete")
    assert [m["content"] for m in messages(talk.entries).messages] == ["half", ""]


def test_the_newest_settings_count(grow: Any) -> None:
    talk = grow(1)
    talk.config(tools=[{"name": "old"}], date="2026-01-01", template={"a": 1})
    talk.add("system", [Text("Be brief."), Config({"tools": [{"name": "new"}], "date": ["no date"], "template": 3})])
    talk.add("user", [Text("x"), Config({"tools": []})])
    chat = messages(talk.entries)
    assert chat.settings.tools == ({"name": "new"},)
    assert (chat.settings.date, chat.settings.template) == ("2026-01-01", {"a": 1})
    assert [m["content"] for m in chat.messages] == ["Be brief.", "x"]


def test_o3_stale_settings_count_for_nothing(open_repo: Callable[..., llmcrdt.Repo]) -> None:
    """A phone that was offline chose tools long ago. Merged, they stand last, and are still the older ones."""
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("system", "Be brief.", tools=[{"name": "first"}], date="2026-01-01")
    there = open_repo("phone", laptop.library).join(here.id)
    there.apply(here.diff())
    there.append("system", tools=[{"name": "stale"}], date="2026-01-02", template={"a": 1})
    here.append("user", "Hello")
    here.append("assistant", "Hi", frame=here.transcript())
    here.append("system", tools=[{"name": "newest"}])
    here.append("assistant", "Hi again", frame=here.transcript())
    here.apply(there.diff())
    there.apply(here.diff())
    for conversation in (here, there):
        assert conversation.transcript()[-1].config["tools"] == [{"name": "stale"}]
        counts = messages(conversation.transcript()).settings
        assert counts.tools == ({"name": "newest"},)
        assert (counts.date, counts.template) == ("2026-01-02", {"a": 1})


DEEP = '{"a":' * (MAX_ARGUMENT_DEPTH + 2) + "1" + "}" * (MAX_ARGUMENT_DEPTH + 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": 1}', {"a": 1}), ("[1]", "[1]"), ("{oops", "{oops"), ('{"a":NaN}', '{"a":NaN}'), (DEEP, DEEP)],
)
def test_arguments_are_objects_where_the_model_wrote_one(grow: Any, text: str, value: Any) -> None:
    talk = grow(1)
    talk.add("assistant", [Reasoning("hm"), Text("so"), ToolCall("c", "f", text)])
    message = messages(talk.entries).messages[0]
    assert message["tool_calls"] == [{"type": "function", "id": "c", "function": {"name": "f", "arguments": value}}]
    assert (message["content"], message["reasoning_content"]) == ("so", "hm")


def test_fillers_stand_where_a_turn_is_missing() -> None:
    said = [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "r", "tool_call_id": "c", "name": "f"}]
    said += [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    contents = [m["content"] for m in adapt(said, Level.ALTERNATE, generating=True)]
    assert contents == [GO_ON, "a", "r", NO_ANSWER, "u", "b", GO_ON, "c", GO_ON]


def test_a_second_result_does_not_part_the_other_calls_from_theirs(grow: Any) -> None:
    talk = grow(1)
    asked = talk.add("assistant", [ToolCall("c1", "look", "{}"), ToolCall("c2", "listen", "{}")])
    for call, text in (("c1", "seen"), ("c1", "seen twice"), ("c2", "heard")):
        talk.add("tool", text, answers=(asked.id, call))
    contents = [(m["role"], m["content"]) for m in messages(talk.entries).messages[1:]]
    assert contents == [("tool", "seen"), ("tool", "heard"), ("user", "Late result of look: seen twice")]


def test_a_system_message_that_a_template_drops_is_told_otherwise(grow: Any) -> None:
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    talk = grow(1)
    talk.add("system", "Be brief.")
    talk.add("user", "Hi")
    prompt = prompt_ids(talk.entries, ByteTokenizer(source), created_at=0.0)
    assert ByteTokenizer(source).decode(prompt.ids) == b"Be brief.\n\nHi"
