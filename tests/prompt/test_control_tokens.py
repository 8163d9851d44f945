"""Words never become control tokens, and words without control tokens are tokenized as if nobody guarded them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.document.entry import Config, Entry, Reasoning, Text, ToolCall, ToolResult, content_hash
from llmcrdt.ids import EntryId, SessionId
from llmcrdt.prompt import prompt_ids
from llmcrdt.prompt.guard import Guard
from llmcrdt.testing.templates import tokenizers
from llmcrdt.testing.tokenizer import ByteTokenizer

STYLES = tokenizers()
CONTROL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "§", "aXaXa", "[INST]")
TOKENIZER = ByteTokenizer("{{ messages[0].content }}", CONTROL, end=("</s>",), words=("the", "ing", "im_"))
PIECES = sorted({text[a:b] for text in CONTROL for a in range(len(text)) for b in range(a + 1, len(text) + 1)})
SMUGGLED = (
    "<|im_end|>",
    "</s>",
    "[INST]",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|call|>",
    "<|end|>",
    "<eos>",
    "|>",
    "<",
    " ",
)
BITS = [*PIECES, *CONTROL, " ", "\n", "the", "ö", "\ufdd0", "\\ufdd0"]
WORDS = st.lists(st.sampled_from(BITS), max_size=12).map("".join)


def entry(n: int, role: str, *parts: object, **fields: object) -> Entry:
    known = {"status": "complete", "hash": content_hash(role, str(n)), **fields}
    name = EntryId(f"entry{n:011d}")
    return Entry(name, role, parts, author="x", session=SessionId("s"), parents=(), lamport=n, created_at=0.0, **known)  # type: ignore[arg-type]


def guarded(text: str, template: str) -> list[int]:
    guard = Guard(TOKENIZER.special, [text, template])
    return guard.encode(guard.restore(template.replace("@", guard.text(text))), TOKENIZER)


@given(WORDS)
@example("§")
@example("<|im_<|im_end|>end|>")
@example("aXaXaXa")
def test_words_keep_their_text_and_hold_no_control_token(text: str) -> None:
    ids = guarded(text, "@")
    assert not set(ids) & set(TOKENIZER.special.values())
    assert TOKENIZER.decode(ids).decode() == text


@given(WORDS, st.sampled_from(CONTROL), st.data())
def test_words_and_a_template_make_no_control_token_together(text: str, special: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(special)))
    second = data.draw(st.integers(first, len(special)))
    cut = special[first:second] or text
    template = special[:first] + "@" + special[second:]
    if not cut or special in special[:first] + "|" + special[second:]:
        return
    ids = guarded(cut, template)
    assert not set(ids) & set(TOKENIZER.special.values())
    assert TOKENIZER.decode(ids).decode() == template.replace("@", cut)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_ordinary_text_is_tokenized_as_usual(text: str) -> None:
    template = "<|im_start|>user\nthe @ing<|im_end|>"
    if any(special in text for special in CONTROL) or "@" in text:
        return
    assert guarded(text, template) == TOKENIZER.encode(template.replace("@", text), special=True)


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None, max_examples=30)
@given(words=st.lists(st.sampled_from(SMUGGLED), max_size=6).map("".join))
def test_no_part_of_a_conversation_smuggles_control_tokens(style: str, words: str) -> None:
    tokenizer = STYLES[style]
    control = set(tokenizer.special.values())

    def prompt(said: str) -> list[int]:
        function = {"name": "f", "description": said, "parameters": {"properties": {said: {}}}}
        tool = {"type": "function", "function": function}
        call = ToolCall("call_1", "f", json.dumps({said: said}))
        entries = [
            entry(1, "system", Text(said), Config({"tools": [tool], "template": {"note": said}})),
            entry(2, "user", Text(said)),
            entry(3, "assistant", Reasoning(said), Text(said), call),
            entry(4, "tool", ToolResult(said), answers=(EntryId("entry00000000003"), "call_1")),
            entry(5, "user", Text(said)),
        ]
        ids = prompt_ids(entries, tokenizer, created_at=0.0).ids
        return [token for token in ids if token in control]

    assert prompt("harmless" + words) == prompt("harmless")


def test_one_bos_whoever_prints_it() -> None:
    for tokenizer in STYLES.values():
        ids = prompt_ids([entry(1, "user", Text("<s>hi"))], tokenizer, created_at=0.0).ids
        bos = tokenizer.special.get(tokenizer.bos)
        assert bos is None or (ids[0], ids.count(bos)) == (bos, 1)


@given(st.sampled_from(CONTROL), st.data(), st.sampled_from(("", " ", "\n")))
def test_the_edges_of_words_complete_no_control_token(special: str, data: st.DataObject, space: str) -> None:
    cut = data.draw(st.integers(0, len(special)))
    before, after = special[:cut], special[cut:]
    for words, template in ((after + " more" + space, before + "@"), (space + "more " + before, "@" + after)):
        ids = guarded(words, template)
        assert not set(ids) & set(TOKENIZER.special.values()) or special in (before, after)
        trimmed = Guard(TOKENIZER.special, [words])
        assert trimmed.plain(trimmed.text(words).strip()) == words.strip()


@given(WORDS, st.sampled_from(("th@", "@e", "i@g", "the @ing", "im@")))
@example("e", "th@")
@example("n", "i@g")
@example("_", "im@")
def test_marks_that_part_no_control_token_change_nothing(text: str, template: str) -> None:
    whole = template.replace("@", text)
    if any(special in whole for special in CONTROL):
        return
    assert guarded(text, template) == TOKENIZER.encode(whole, special=True)


@given(st.lists(st.sampled_from((*CONTROL, "x", " ")), max_size=6).map("".join))
def test_marks_that_a_template_escapes_are_found_again(text: str) -> None:
    guard = Guard(TOKENIZER.special, [text])
    for printed, plain in ((repr, repr(text)), (json.dumps, json.dumps(text))):
        ids = guard.encode(guard.restore(printed(guard.text(text))), TOKENIZER)
        assert not set(ids) & set(TOKENIZER.special.values())
        assert TOKENIZER.decode(ids).decode() == plain
