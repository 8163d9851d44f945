"""The token log: its bytes, what makes it invalid, and that the rest of a prompt is what the template prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.document.entry import Entry, Text, ToolCall
from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import ContentHash, EntryId, FrameHash
from llmcrdt.prompt import TOKENS, TokenLog, prompt_ids, sources
from llmcrdt.prompt.adapt import Level
from llmcrdt.prompt.messages import messages
from llmcrdt.prompt.render import Renderer
from llmcrdt.testing.templates import tokenizers
from llmcrdt.testing.tokenizer import ByteTokenizer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "token_log.json").read_text("utf-8"))
STYLES = tokenizers()
IDS = st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 300), max_size=20).map(tuple)
LOGS = st.builds(TokenLog, st.none() | st.from_regex(r"[A-Za-z0-9_-]{16}", fullmatch=True).map(EntryId), IDS, IDS)


@pytest.mark.parametrize("vector", VECTORS["logs"], ids=lambda vector: vector["name"])
def test_the_bytes_are_frozen(vector: dict[str, Any]) -> None:
    log = TokenLog(vector["base"], tuple(vector["prompt"]), tuple(vector["sampled"]))
    assert log.pack().hex() == vector["bytes"]
    assert TokenLog.unpack(bytes.fromhex(vector["bytes"])) == log


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["name"])
def test_malformed_bytes_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(InvalidContent):
        TokenLog.unpack(bytes.fromhex(vector["bytes"]))


@given(LOGS)
def test_a_log_survives_its_bytes(log: TokenLog) -> None:
    assert TokenLog.unpack(log.pack()) == log


def _damage(log: TokenLog, more: bytes, keep: int) -> bytes:
    return log.pack()[:keep] + more


@settings(max_examples=500)
@given(st.binary(max_size=60) | st.builds(_damage, LOGS, st.binary(max_size=3), st.integers(0, 80)))
@example(b"\x01\x00\xff\xff\xff\xff\x07\x00")
def test_bytes_are_a_log_or_refused(data: bytes) -> None:
    try:
        log = TokenLog.unpack(data)
    except InvalidContent:
        return
    assert log.pack() == data


@pytest.mark.parametrize("ids", [(-1,), (2**31,), (True,), (1.0,), ("1",)])
def test_only_token_ids_are_packed(ids: Any) -> None:
    with pytest.raises(InvalidContent):
        TokenLog(None, ids, ()).pack()


def answered(grow: Any, tokenizer: ByteTokenizer, *calls: ToolCall, seed: int = 1) -> Any:
    """A conversation with one answer, whose ids are exactly what the template prints for it, end token included."""
    talk = grow(seed)
    talk.add("system", "Be brief.")
    talk.add("user", "Where is the sea?")
    return follow(talk, tokenizer, *calls)


def follow(talk: Any, tokenizer: ByteTokenizer, *calls: ToolCall) -> Any:
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    parts = [Text("Down the hill."), *calls]
    answer = talk.entry("assistant", parts)
    chat = messages([*talk.entries, answer])
    said = chat.messages[: chat.sources.index(answer.id) + 1]
    renderer = Renderer.of(chat, tokenizer, 0.0)
    level = renderer.first(said, chat.settings, generating=False)[1]
    text = renderer.text(said, chat.settings, level=level, generating=False)
    ids = renderer.with_bos(text)
    begun = prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=False).ids
    assert tuple(ids[: len(begun)]) == begun
    sampled = ids[len(begun) :]
    while sampled and not tokenizer.is_end(sampled[-1]):
        sampled.pop()
    talk.generated(parts, prompt, sampled or ids[len(begun) : -1], tokenizer)
    return talk


# "strips" rewrites by design, as "returns" and "follows" do with the end of a turn; "turns" prints no calls, "headers"
# one at most: made anew they are told in words
UNLIKE = {
    *((style, calls) for style in ("strips", "returns") for calls in range(3)),
    *((style, calls) for style in ("follows", "turns") for calls in (1, 2)),
    ("headers", 2),
}
ALIKE = [(style, calls) for style in STYLES for calls in range(3) if (style, calls) not in UNLIKE]


@pytest.mark.parametrize(("style", "calls"), ALIKE)
def test_the_rest_is_what_the_template_prints(grow: Any, style: str, calls: int) -> None:
    tokenizer = STYLES[style]
    made = [ToolCall(f"call{n}abcd", "look", '{"at": "sea"}') for n in range(calls)]
    talk = answered(grow, tokenizer, *made)
    for call in made:
        talk.add("tool", "blue", answers=(talk.entries[2].id, call.id))
    if not made:
        talk.add("user", "And the castle?")
    logged = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    anew = prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=False)
    assert logged.logged
    assert logged.ids == anew.ids
    assert not logged.template_rewrites
    follow(talk, tokenizer)
    talk.add("user", "Thanks.")
    again = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert again.logged > logged.logged
    assert again.ids == prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=False).ids


def test_a_turn_cut_short_is_closed_by_the_template(grow: Any) -> None:
    tokenizer = STYLES["chatml"]
    talk = grow(2)
    talk.add("user", "Hi")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    talk.generated([Text("Hello th")], prompt, tokenizer.encode("Hello th", special=False), tokenizer)
    talk.add("user", "Go on")
    text = "".join(map(tokenizer.token_text, prompt_ids(talk.entries, tokenizer, created_at=0.0).appended))
    assert text == "<|im_end|>\n<|im_start|>user\nGo on<|im_end|>\n<|im_start|>assistant\n"


def test_a_turn_that_ended_is_not_ended_twice(grow: Any) -> None:
    """The last turn of this template ends by another token than one amid; the model sampled the one for the last."""
    tokenizer = STYLES["returns"]
    talk = grow(2)
    talk.add("user", "Hi")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    talk.generated([Text("Hello")], prompt, tokenizer.encode("<|message|>Hello<|return|>", special=True), tokenizer)
    talk.add("user", "Go on")
    text = "".join(map(tokenizer.token_text, prompt_ids(talk.entries, tokenizer, created_at=0.0).appended))
    assert text == "<|start|>user<|message|>Go on<|end|><|start|>assistant"


AS_PRINTED, ELSE = '<call>{"name": "look", "arguments": {"at": "sea"}}', "<call>look at sea"


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        (AS_PRINTED, "It is blue.</result>"),
        (ELSE, "</turn>\n<turn>user\nResult of look: It is blue.</turn>\n<turn>assistant\n"),
    ],
)
def test_a_result_is_never_lost(grow: Any, said: str, rest: str) -> None:
    """A template that goes on in the turn of the calls, and drops results that follow none. If it prints the calls
    as they were sampled, it is known what follows; else the result is told in words."""
    tokenizer = STYLES["follows"]
    talk = grow(2)
    talk.add("user", "Where is the sea?")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    call = ToolCall("call0abcd", "look", '{"at": "sea"}')
    entry = talk.generated([call], prompt, tokenizer.encode(said + "</call><result>", special=True), tokenizer)
    talk.add("tool", "It is blue.", answers=(entry.id, call.id))
    again = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert again.logged
    assert "".join(map(tokenizer.token_text, again.appended)) == rest


def test_a_result_that_a_template_prints_nowhere_is_told_in_words(grow: Any) -> None:
    tokenizer = ByteTokenizer(
        "{% for m in messages if m.role != 'tool' %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
        ("<e>",),
        end=("<e>",),
    )
    talk = grow(3)
    talk.add("user", "Where is the sea?")
    call = talk.add("assistant", [ToolCall("call0abcd", "look", '{"at": "sea"}')])
    talk.add("tool", "It is blue.", answers=(call.id, "call0abcd"))
    ids = prompt_ids(talk.entries, tokenizer, created_at=0.0).ids
    assert b"user: Result of look: It is blue.\n" in tokenizer.decode(ids)


def test_the_log_wins_over_a_template_that_strips_and_says_so(grow: Any) -> None:
    tokenizer = STYLES["strips"]
    talk = grow(3)
    talk.add("user", "Hi")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    talk.generated([Text("x")], prompt, tokenizer.encode("hm\n</think>\n\nx<|im_end|>", special=True), tokenizer)
    talk.add("user", "Go on")
    logged = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert logged.template_rewrites
    assert b"hm" in tokenizer.decode(logged.ids)
    assert b"hm" not in tokenizer.decode(prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=False).ids)


def _other_version(entry: Entry) -> Entry:
    return replace(entry, hash=ContentHash("B" * 32))


def _other_frame(entry: Entry) -> Entry:
    assert entry.frame
    return replace(entry, frame=replace(entry.frame, hash=FrameHash("C" * 32)))


def _assumed(entry: Entry) -> Entry:
    assert entry.frame
    return replace(entry, frame=replace(entry.frame, assumed=True))


def _broken(entry: Entry) -> Entry:
    return replace(entry, hidden={TOKENS: replace(entry.hidden[TOKENS], data=b"\x02")})


@pytest.mark.parametrize("spoil", [_other_version, _other_frame, _assumed, _broken])
@pytest.mark.parametrize("which", [2, 4])
def test_what_makes_a_log_invalid(grow: Any, spoil: Any, which: int) -> None:
    tokenizer = STYLES["chatml"]
    talk = answered(grow, tokenizer)
    talk.add("user", "And?")
    follow(talk, tokenizer)
    assert prompt_ids(talk.entries, tokenizer, created_at=0.0).base == talk.entries[4].id
    first = talk.entries[2].id
    talk.entries[which] = spoil(talk.entries[which])
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert prompt.base == (None if which == 2 else first)


def test_an_earlier_edit_or_another_model_makes_logs_invalid(grow: Any) -> None:
    talk = answered(grow, STYLES["chatml"])
    assert prompt_ids(talk.entries, STYLES["chatml"], created_at=0.0).base
    assert prompt_ids(talk.entries, STYLES["strips"], created_at=0.0).base is None
    talk.entries[1] = talk.entry("user", [Text("Where was the sea?")])
    assert prompt_ids(talk.entries, STYLES["chatml"], created_at=0.0).base is None


def test_an_erased_entry_makes_later_logs_invalid_unless_they_knew(grow: Any) -> None:
    tokenizer = STYLES["chatml"]
    talk = answered(grow, tokenizer)
    talk.entries[1] = replace(talk.entries[1], status="erased", parts=())
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert (prompt.logged, prompt.erased) == (0, (talk.entries[1].id,))
    assert b"Where" not in tokenizer.decode(prompt.ids)
    follow(talk, tokenizer)
    assert prompt_ids(talk.entries, tokenizer, created_at=0.0).base == talk.entries[-1].id


@pytest.mark.parametrize("style", ["chatml", "inst"])
def test_new_tools_reach_the_model(grow: Any, style: str) -> None:
    tokenizer = STYLES[style]
    talk = answered(grow, tokenizer)
    talk.config(tools=[{"type": "function", "function": {"name": "compass"}}])
    talk.add("user", "Look.")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert b"compass" in tokenizer.decode(prompt.ids)


def test_settings_the_template_does_not_print_keep_the_log(grow: Any) -> None:
    talk = answered(grow, STYLES["chatml"])
    talk.config(date="2026-05-01", template={"unused": 1})
    talk.add("user", "Look.")
    assert prompt_ids(talk.entries, STYLES["chatml"], created_at=0.0).base == talk.entries[2].id


def test_sources_name_the_entries(grow: Any) -> None:
    tokenizer = STYLES["chatml"]
    talk = answered(grow, tokenizer)
    talk.add("user", "And the castle?")
    for use_log in (True, False):
        prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=use_log)
        spans = {name: prompt.ids[a:b] for name, a, b in sources(prompt, talk.entries, tokenizer) if name}
        assert list(spans) == [entry.id for entry in talk.entries]
        assert all(entry.text in tokenizer.decode(spans[entry.id]).decode() for entry in talk.entries)


def test_levels_are_tried_in_order(grow: Any) -> None:
    talk = grow(4)
    talk.add("system", "Be brief.")
    talk.add("user", "One")
    talk.add("user", "Two")
    chat = messages(talk.entries)
    levels = {}
    for style, tokenizer in STYLES.items():
        text, levels[style] = Renderer.of(chat, tokenizer, 0.0).first(chat.messages, chat.settings, generating=True)
        assert all(word in text for word in ("Be brief.", "One", "Two"))
    assert (levels["chatml"], levels["inst"], levels["turns"]) == (Level.PLAIN, Level.ALTERNATE, Level.NO_SYSTEM)


@pytest.mark.parametrize("beyond", [0, 1, 2**31])
def test_a_log_with_an_id_that_the_tokenizer_lacks_does_not_hold(grow: Any, beyond: int) -> None:
    """A stranger's field may say anything: the prompt is rendered anew then, as without it."""
    tokenizer = STYLES["chatml"]
    talk = grow(1)
    talk.add("user", "Where is the sea?")
    prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    last = min(tokenizer.n_vocab - 1 + beyond, 2**31 - 1)
    talk.generated([Text("There.")], prompt, [last], tokenizer)
    talk.add("user", "Thanks.")
    after = prompt_ids(talk.entries, tokenizer, created_at=0.0)
    assert bool(after.logged) == (beyond == 0)
    assert all(0 <= token < tokenizer.n_vocab for token in after.ids)
    sources(after, talk.entries, tokenizer)
