"""Tool calls are found however the text is cut into pieces, and what is no whole call stays text, to the letter."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.document.entry import Reasoning, Text, ToolCall
from llmcrdt.prompt.tool_calls import TOOL_FORMATS, ToolCallReader, ToolFormat, tool_format

ARGUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
).map(json.dumps)
NAMES = st.from_regex(r"[a-zA-Z_][\w.-]{0,12}", fullmatch=True)
WORDS = st.text(alphabet='abc .,\n<|[{}]"é', max_size=20)


def write(form: ToolFormat, calls: list[tuple[str, str]], variant: int = 0) -> str:
    """These calls as a model of this family writes them."""
    if form == "hermes":
        between, around = ("\n", "\n") if variant % 2 else ("", "")
        return between.join(
            f'<tool_call>{around}{{"name": "{n}", "arguments": {a}}}{around}</tool_call>' for n, a in calls
        )
    if form == "llama3":
        tag = "<|python_tag|>" if variant % 2 else ""
        return tag + "; ".join(f'{{"name": "{n}", "parameters": {a}}}' for n, a in calls)
    if form == "mistral":
        if variant % 2:
            return "".join(f"[TOOL_CALLS]{n}[ARGS]{a}" for n, a in calls)
        return "[TOOL_CALLS][" + ", ".join(f'{{"name": "{n}", "arguments": {a}}}' for n, a in calls) + "]"
    return "<|start|>assistant".join(
        f"<|channel|>commentary to=functions.{n} <|constrain|>json<|message|>{a}<|call|>" for n, a in calls
    )


def read(form: ToolFormat, text: str, seed: int = 0) -> tuple[list[object], str]:
    """The parts, and the visible text as it came; the pieces are cut at random."""
    rng = random.Random(seed)
    reader = ToolCallReader(form, lambda n: f"call{n}")
    said, at = [], 0
    while at < len(text):
        size = rng.randrange(1, 9)
        said += reader.take(text[at : at + size])
        at += size
    said += reader.end()
    return list(reader.parts()), "".join(words for _, words in said)


@pytest.mark.parametrize("form", TOOL_FORMATS)
@settings(deadline=None, max_examples=60)
@given(
    calls=st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3), variant=st.integers(0, 1), seed=st.integers()
)
def test_calls_are_read_with_their_arguments_to_the_letter(form, calls, variant, seed):
    parts, said = read(form, write(form, calls, variant), seed)
    assert parts == [ToolCall(f"call{n}", name, arguments) for n, (name, arguments) in enumerate(calls)]
    assert said.strip() == ""


@pytest.mark.parametrize("form", ["hermes", "mistral", "llama3"])
@settings(deadline=None, max_examples=60)
@given(text=WORDS, calls=st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=2), seed=st.integers())
def test_words_before_a_call_are_said_and_kept(form, text, calls, seed):
    if form == "llama3" and text.lstrip()[:1] in ("", "{"):
        return
    parts, said = read(form, text + write(form, calls, 1), seed)
    assert said.rstrip() == text.rstrip()
    assert parts[0] == Text(text.rstrip()) if text.strip() else isinstance(parts[0], ToolCall)
    assert [p.name for p in parts if isinstance(p, ToolCall)] == [name for name, _ in calls]


@pytest.mark.parametrize("form", ["hermes", "mistral", "llama3"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_what_is_no_whole_call_stays_text_to_the_letter(form, data):
    """Words, pieces of markers, and damaged calls: whatever gives no call is said whole."""
    calls = data.draw(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=2))
    good = write(form, calls, data.draw(st.integers(0, 1)))
    start = data.draw(st.integers(0, len(good)))
    bad = good[:start] + data.draw(WORDS) + good[data.draw(st.integers(start, len(good))) :]
    reader = ToolCallReader(form, str)
    said = "".join(words for _, words in reader.take(bad) + reader.end())
    if not reader.called:
        assert said == bad
        assert "".join(part.text for part in reader.parts()) == bad
    assert read(form, bad, data.draw(st.integers()))[0] == read(form, bad, 0)[0], "pieces don't matter"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", "<tool_call>{}</tool_call>"),
        ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "a b", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "x", "arguments": [1]}</tool_call>'),
        ("hermes", '<tool_call>{"name": "x", "arguments": {"n": NaN}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "x", "name": "y", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "x", "arguments": {}} and more</tool_call>'),
        ("hermes", '<tool_call>{"name": "x", "arguments": ' + "[" * 100_000 + "</tool_call>"),
        ("llama3", '{"name": "x", "parameters": {}'),
        ("llama3", '{"weather": "fine"}'),
        ("mistral", '[TOOL_CALLS][{"name": "x", "arguments": {}}'),
        ("mistral", "[TOOL_CALLS]x{}"),
    ],
)
def test_malformed_calls_stay_text(form, text):
    parts, said = read(form, text)
    assert parts == [Text(text)]
    assert said == text


def test_a_closing_tag_in_a_string_closes_nothing():
    text = '<tool_call>{"name": "write", "arguments": {"text": "say </tool_call> \\" here"}}</tool_call>'
    assert read("hermes", text)[0] == [ToolCall("call0", "write", '{"text": "say </tool_call> \\" here"}')]


def test_arguments_may_be_json_in_a_string_and_a_call_may_bring_its_id():
    text = '[TOOL_CALLS][{"name": "x", "arguments": "{\\"a\\": 1}", "id": "abc123def"}]'
    assert read("mistral", text)[0] == [ToolCall("abc123def", "x", '{"a": 1}')]
    assert read("mistral", "[TOOL_CALLS]x[CALL_ID]abc123def[ARGS]{}")[0] == [ToolCall("abc123def", "x", "{}")]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers())
def test_channels_tell_thoughts_words_and_calls_apart(seed):
    text = (
        "<|channel|>analysis<|message|>It rains.<|end|><|start|>assistant<|channel|>commentary<|message|>One moment."
        '<|end|><|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"at": 1}'
    )
    parts, said = read("harmony", text, seed)
    assert parts == [Reasoning("It rains."), Text("One moment."), ToolCall("call0", "look", '{"at": 1}')]
    assert said == "It rains.One moment."
    bad = "<|channel|>commentary to=functions.look <|message|>{oops<|call|>"
    assert read("harmony", bad, seed)[0] == [Text(bad)]
    assert read("harmony", "no channels at all", seed)[0] == [Text("no channels at all")]


def test_words_are_not_held_back_without_need():
    reader = ToolCallReader("hermes", str)
    assert reader.take("It is <b") == [("text", "It is <b")]
    assert reader.take(" and <tool") == [("text", " and ")]
    assert reader.take("box>") == [("text", "<toolbox>")]


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("<|channel|> <|message|>", "harmony"),
        ("[TOOL_CALLS]", "mistral"),
        ("<tool_call>", "hermes"),
        ("<|python_tag|>", "llama3"),
        ("<|im_start|>", None),
        ("", None),
    ],
)
def test_the_template_tells_the_format(template, form):
    assert tool_format(template) == form
