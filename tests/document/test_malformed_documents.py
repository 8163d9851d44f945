"""A plain client can write anything (O1): the transcript stays total, and the sound part is undisturbed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pycrdt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.crdt import registry
from llmcrdt.document.canonical import MAX_DEPTH, canonical_json, parse_json
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import content_hash
from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import new_document_id
from llmcrdt.interop import openai_chat

from ..sim.sim_kinds import KINDS, Client, Letters

OpenRepo = Callable[..., llmcrdt.Repo]
SESSION = "A" * 22
scalars = st.none() | st.booleans() | st.integers(-5, 2**53) | st.text(max_size=5) | st.binary(max_size=5)
ids = st.sampled_from(["A" * 16, "B" * 16, "C" * 16])
HEAD = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "wizard"]) | scalars,
        "author": st.just("x") | scalars,
        "session": st.just(SESSION) | scalars,
        "parents": st.lists(ids, max_size=3) | scalars,
        "lamport": st.integers(-1, 2**60) | scalars,
        "created_at": st.just(1) | scalars,
        "alternative_of": ids | scalars,
        "answers": st.tuples(ids, st.just("c")) | scalars,
        "frame": st.dictionaries(
            st.sampled_from(["base", "appended", "hash"]), scalars | st.lists(scalars), max_size=3
        ),
        "after": st.lists(ids) | scalars,
        "model": scalars,
    },
)


def stranger_to(conversation: llmcrdt.Conversation) -> Client:
    """A client that knows no rules, with the document of a conversation."""
    return KINDS[core_of(conversation).replica.kind].stranger(conversation.diff(), None)


def other_json(value: Any) -> str:
    return json.dumps(value, default=str)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        ids | st.text(max_size=4),
        scalars | st.dictionaries(st.sampled_from(["head", "version:x", "live:0:text", "live:a:b", "hidden:h"]),
                                  scalars | HEAD.map(other_json)),
        max_size=4,
    ),
    st.dictionaries(st.text(max_size=3) | st.just(f"select:g:{SESSION}"), scalars | st.just('{"entry":1}'), max_size=3),
)  # fmt: skip
def test_the_transcript_is_total(open_repo: OpenRepo, entries: dict[str, Any], acts: dict[str, Any]) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "sound")
    answer = conversation.append("assistant", "too", frame=conversation.transcript())
    stranger = stranger_to(conversation)
    for key, value in entries.items():
        stranger.put("entries", key, value)
    for key, value in acts.items():
        stranger.put("acts", key, value)
    if news := stranger.news():
        conversation.apply(news)
    transcript = conversation.transcript()
    assert [e.text for e in transcript][:2] == ["sound", "too"]
    assert answer.id in transcript.ids
    assert set(transcript.malformed) | set(transcript.ids) >= set(entries)
    conversation.append("user", "and on")
    assert conversation.transcript()[-1].text == "and on"


def test_roots_of_another_shape_are_as_good_as_empty(open_repo: OpenRepo) -> None:
    stranger = pycrdt.Doc()
    stranger.get("entries", type=pycrdt.Array).append("x")
    stranger.get("meta", type=pycrdt.Text).insert(0, "y")
    conversation = open_repo("laptop").create()
    conversation.apply(stranger.get_update())
    conversation.append("user", "fine")
    assert [e.text for e in conversation.transcript()] == ["fine"]


def test_what_can_t_be_read_may_be_written_on(open_repo: OpenRepo) -> None:
    """A second field of an entry that is malformed for the same reason as before changes nothing, and stops nobody."""
    conversation = open_repo("laptop").create()
    conversation.append("user", "fine")
    stranger = stranger_to(conversation)
    stranger.put("entries", "B" * 16, {"head": "junk"})
    conversation.apply(stranger.news())
    assert list(conversation.transcript().malformed) == ["B" * 16]
    stranger.put_field("entries", "B" * 16, "more", "junk")
    conversation.apply(stranger.news())
    conversation.append("user", "and on")
    assert [e.text for e in conversation.transcript()] == ["fine", "and on"]


@pytest.mark.parametrize("change", ["text", "role", "frame"])
def test_verify_names_the_entry_that_was_tampered_with(open_repo: OpenRepo, change: str) -> None:
    conversation = open_repo("laptop").create()
    user = conversation.append("user", "what was said")
    answer = conversation.append("assistant", "an answer", frame=conversation.transcript())
    stranger = stranger_to(conversation)
    entry, name, old, new = {
        "text": (user, f"version:{user.hash}", "was", "was never"),
        "role": (user, "head", '"user"', '"system"'),
        "frame": (answer, "head", str(user.hash), "A" * 32),
    }[change]
    said = stranger.plain()["entries"][entry.id][name]
    stranger.put_field("entries", entry.id, name, said.replace(old, new))
    conversation.apply(stranger.news())
    problems = conversation.verify()
    assert problems
    assert problems[0].entry == (answer.id if change == "frame" else user.id)


def test_a_key_that_is_no_entry_is_named_by_the_transcript_and_by_verify(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "fine")
    stranger = stranger_to(conversation)
    for key, value in (("", {}), ("no id", {"head": "{}"}), ("C" * 16, "text")):
        stranger.put("entries", key, value)
    conversation.apply(stranger.news())
    malformed = conversation.transcript().malformed
    assert set(malformed) == {"", "no id", "C" * 16}
    assert all(repr(key) in reason for key, reason in malformed.items())
    assert {p.entry: p.what for p in conversation.verify()} == {
        key: f"takes no part: {reason}" for key, reason in malformed.items()
    }


# ---------------------------------------------------------------- what a stranger writes stops nothing

STRANGER = "S" * 16


def of_stranger(head: str = "", part: str = '{"type":"text","text":"hi"}', role: str = "user", **fields: Any) -> Any:
    """The fields of an entry, as JSON that is written by hand. ``head`` comes after what it replaces."""
    start = f'{{"role":"{role}","author":"","session":"{SESSION}","parents":[],"lamport":1,"created_at":1'
    version = f'{{"nonce":"","parts":[{part}],"lamport":1,"by":"{SESSION}"}}'
    name = f"version:{content_hash(role, version)}"
    return {"head": f"{start}{head}}}", name: version, **fields}


def take_in(open_repo: OpenRepo, fields: Any) -> llmcrdt.Transcript:
    """Merge a stranger's entry into a conversation, and use that in every way. The transcript that all agree on."""
    repo = open_repo("laptop")
    conversation = repo.create("talk")
    conversation.append("user", "sound words")
    stranger = stranger_to(conversation)
    stranger.put("entries", STRANGER, fields)
    conversation.apply(stranger.news())
    conversation.append("user", "more words")
    transcript = conversation.transcript()
    assert {"sound words", "more words"} <= {e.text for e in transcript}
    assert len(repo.search("words")) == 2
    assert all(conversation.entry(entry.id) == entry for entry in conversation.entries())
    json.dumps(openai_chat.export(transcript), ensure_ascii=False, allow_nan=False).encode()
    if STRANGER in transcript.ids:
        conversation.edit(STRANGER, "said anew")
        conversation.select(STRANGER)
    transcript = conversation.transcript()
    conversation.close()
    repo.close()
    again = open_repo("laptop")
    assert again.get(conversation.id).entries() == tuple(transcript)
    other = open_repo("phone").join(conversation.id)
    other.apply(again.get(conversation.id).diff())
    for replica in (again.get(conversation.id), other):
        read = replica.transcript()
        assert (read.hash, dict(read.malformed)) == (transcript.hash, dict(transcript.malformed))
        assert [e.text for e in read] == [e.text for e in transcript]
    return transcript


HALF = r"\ud83d"


@pytest.mark.parametrize(
    ("head", "part", "role"),
    [
        ("", f'{{"type":"text","text":"half {HALF}"}}', "user"),
        ("", f'{{"type":"text","text":"half {HALF}","{HALF}":["{HALF}"]}}', "user"),
        ("", f'{{"type":"{HALF}","text":"half"}}', "user"),
        ("", f'{{"type":"tool_call","id":"{HALF}","name":"{HALF}","arguments":"{HALF}"}}', "assistant"),
        ("", f'{{"type":"config","tools":[{{"name":"{HALF}"}}],"date":"{HALF}"}}', "system"),
        ("", f'{{"type":"blob","hash":"{"a" * 64}","size":1,"name":"{HALF}","media_type":"{HALF}"}}', "user"),
        (f',"author":"{HALF}","model":{{"name":"{HALF}"}}', '{"type":"text","text":"half"}', "user"),
    ],
)
def test_half_an_emoji_is_read_and_stops_nothing(open_repo: OpenRepo, head: str, part: str, role: str) -> None:
    """JavaScript's ``slice`` cuts an emoji, and JSON.stringify writes the half as an escape."""
    transcript = take_in(open_repo, of_stranger(head, part, role))
    assert STRANGER in transcript.ids
    assert "\ufffd" in repr([e for e in transcript if e.id == STRANGER])


def test_of_a_text_with_half_an_emoji_all_else_is_shown(open_repo: OpenRepo) -> None:
    part = r'{"type":"text","text":"a \ud83d\ude00 b \ud83d c \ude00 d \\\\ud83d"}'
    transcript = take_in(open_repo, of_stranger(part=part))
    assert next(e.text for e in transcript if e.id == STRANGER) == "a 😀 b \ufffd c \ufffd d \\\\ud83d"


@pytest.mark.parametrize(
    "name", ["x" * 70_000, "hidden:" + "é" * 70_000, "version:" + "x" * 70_000, "live:" + "x" * 70_000]
)
def test_a_field_name_of_any_length_stops_nothing(open_repo: OpenRepo, name: str) -> None:
    transcript = take_in(open_repo, of_stranger(**{name: b"{}\0data" if name.startswith("hidden:") else "value"}))
    assert "hi" in [e.text for e in transcript]


@pytest.mark.parametrize(
    "time", ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e400", "8640000000000001", "0.5", "true", "null"]
)
def test_a_time_that_no_date_holds_makes_its_entry_malformed(open_repo: OpenRepo, time: str) -> None:
    transcript = take_in(open_repo, of_stranger(f',"created_at":{time}'))
    assert transcript.malformed == {STRANGER: "created_at is not a time in whole milliseconds"}


def test_a_time_long_before_1970_is_shown(open_repo: OpenRepo) -> None:
    transcript = take_in(open_repo, of_stranger(',"created_at":-8640000000000000'))
    assert next(e.created_at for e in transcript if e.id == STRANGER) == -8_640_000_000_000.0


def test_a_number_that_no_double_holds_is_read_as_the_greatest(open_repo: OpenRepo) -> None:
    model = f',"model":{{"a":1e400,"b":-{"9" * 5000},"c":{"9" * 309},"d":{"1" * 309},"e":1e-400}}'
    transcript = take_in(open_repo, of_stranger(model))
    read = next(e.model for e in transcript if e.id == STRANGER)
    most = 1.7976931348623157e308
    assert dict(read) == {"a": most, "b": -most, "c": most, "d": int("1" * 309), "e": 0.0}


@pytest.mark.parametrize("beyond", [0, 1])
def test_nesting_has_one_limit_whatever_the_stack(open_repo: OpenRepo, beyond: int) -> None:
    depth = MAX_DEPTH - 3 + beyond  # a version, its parts and a part are three
    part = f'{{"type":"x","brackets":"{"[" * 500}","deep":{"[" * depth + "]" * depth}}}'
    transcript = take_in(open_repo, of_stranger(part=part))
    reason = f"has no content that can be read: The text is not JSON: it nests deeper than {MAX_DEPTH} levels."
    assert dict(transcript.malformed) == ({STRANGER: reason} if beyond else {})


def test_own_writers_refuse_what_would_read_otherwise(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with conversation.stream() as stream:
        for write in (
            lambda: conversation.append("user", "\ud83d"),
            lambda: conversation.append("user", "x", author="\ud83d"),
            lambda: conversation.append("user", "x", model={"n": 10**309}),
            lambda: conversation.append("user", "x", model={"n": -(10**5000)}),
            lambda: conversation.append("user", "x", model={"n": deep}),
            lambda: conversation.append("user", "x", hidden={"\ud83d": b""}),
            lambda: conversation.append("user", "x", hidden={"x" * 2000: b""}),
            lambda: stream.write("\ud83d"),
            lambda: repo.rename(conversation.id, "\ud83d"),
        ):
            with pytest.raises(InvalidContent):
                write()
                stream.flush()
    assert [e.role for e in conversation.transcript()] == ["assistant"]


@settings(max_examples=300)
@given(
    st.text(
        st.sampled_from(["\\", "u", "d", "D", "8", "3", "e", "0", '"', "\ud83d", "\ude00", "a", "[", "{"]), max_size=30
    )
)
def test_whatever_json_spells_is_read_as_text_that_utf8_holds(text: str) -> None:
    escaped = json.dumps(text)
    read = parse_json(escaped)
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert read == expected
    assert parse_json(canonical_json(read)) == read


@pytest.mark.parametrize(
    "mark",
    [
        *(None, 7, "no JSON", b"", b"\x01 as if sealed"),
        *({"a": 1}, Letters("x"), pycrdt.Array([1]), pycrdt.XmlFragment()),
    ],
    ids=lambda mark: (
        type(mark).__name__ if isinstance(mark, dict | Letters) or "pycrdt" in type(mark).__module__ else repr(mark)
    ),
)
def test_an_erase_is_one_whatever_it_holds(open_repo: OpenRepo, mark: Any) -> None:
    if "pycrdt" in type(mark).__module__ and registry.DEFAULT != "yjs":
        pytest.skip("only Yjs has such")
    fields = of_stranger(part='{"type":"text","text":"a secret"}')
    transcript = take_in(open_repo, {**fields, "erased:x": mark, "version:y": {"a": "a secret"}})
    assert next(e.status for e in transcript if e.id == STRANGER) == "erased"
    repo = open_repo("laptop")
    conversation = repo.get(repo.list()[-1].id)
    assert b"a secret" not in conversation.diff()
    fork = repo.fork(conversation, at=STRANGER)
    assert [e.status for e in fork.transcript() if e.id == STRANGER] == ["erased"]


def test_live_parts_of_one_number_stand_by_their_names(open_repo: OpenRepo) -> None:
    names = ["live:1:text", "live:0:text", "live:00:text", "live:0:reasoning", "live:000:text", "live:0000:text"]
    for order in (names, names[::-1]):
        fields = of_stranger()
        stranger = {"head": fields["head"], **{name: pycrdt.Text(name) for name in order}}
        repo = open_repo("laptop")
        conversation = repo.create()
        doc = pycrdt.Doc()
        doc.get("entries", type=pycrdt.Map)[STRANGER] = pycrdt.Map(stranger)
        conversation.apply(doc.get_update())
        parts = conversation.transcript()[0].parts
        assert [part.text for part in parts] == [*sorted(set(names) - {"live:1:text"}), "live:1:text"]  # type: ignore[union-attr]


def test_live_text_that_is_none_makes_no_stream(open_repo: OpenRepo) -> None:
    head = of_stranger()["head"]
    transcript = take_in(open_repo, {"head": head, "live:0:text": "no shared text", "live:1:text": 7})
    assert dict(transcript.malformed) == {STRANGER: "has no content"}


def test_what_is_malformed_may_come_again(open_repo: OpenRepo) -> None:
    """A stranger writes to it a second time, and it stays as malformed as it was."""
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "sound words")
    stranger = pycrdt.Doc()
    entries = stranger.get("entries", type=pycrdt.Map)
    for n in range(3):
        entries[STRANGER] = pycrdt.Map({"head": "no JSON", "x": n})
        conversation.apply(stranger.get_update())
        conversation.append("user", "more words")
    assert len(conversation.transcript()) == 4
    assert list(conversation.transcript().malformed) == [STRANGER]
    assert len(repo.search("words")) == 4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1700000000000", 1.7e9),
        ("9" * 400, 0.0),
        ("9" * 5000, 0.0),
        ("-5", 0.0),
        ("٣", 0.0),
        ("9" * 16, 0.0),
        (7, 0.0),
        (b"1", 0.0),
    ],
)
def test_a_conversation_of_a_stranger_has_a_time_or_none(open_repo: OpenRepo, value: Any, seconds: float) -> None:
    stranger = pycrdt.Doc()
    meta = stranger.get("meta", type=pycrdt.Map)
    meta["created_at"], meta["forked_from"], meta["kind"] = value, r'{"entry":"\ud83d"}', 7
    conversation = open_repo("laptop").join(new_document_id())
    conversation.apply(stranger.get_update())
    assert conversation.created_at == seconds
    assert conversation.forked_from == {"entry": "\ufffd"}


@pytest.mark.parametrize(
    ("title", "created_at"),
    [
        (r'"a \ud83d b"', "9" * 400),
        (r'"a \ud83d b"', "1e400"),
        (r'"a \ud83d b"', "true"),
        (r'"a \ud83d b"', r'"\ud83d"'),
    ],
)
def test_a_library_of_a_stranger_is_listed(open_repo: OpenRepo, title: str, created_at: str) -> None:
    repo = open_repo("laptop")
    known = repo.create("mine")
    stranger, theirs = pycrdt.Doc(), new_document_id()
    shelf = stranger.get("shelf", type=pycrdt.Map)
    for fact, value in {"title": title, "created_at": created_at, "archived": "1", "deleted": "0"}.items():
        shelf[f"{theirs}:{fact}:{SESSION}"] = f'{{"lamport":3,"value":{value}}}'
    for key, value in {
        "x" * 70_000: "x",
        f"{theirs}:title:": 1,
        f"{known.id}:archived:{SESSION}": pycrdt.Map({}),
    }.items():
        shelf[key] = value
    repo._core.library.document.apply(stranger.get_update())
    assert {(row.id, row.title) for row in repo.list()} == {(known.id, "mine"), (theirs, "a \ufffd b")}
    assert next(row for row in repo.list() if row.id == theirs).created_at == 0.0
    repo.rename(theirs, "mine too")
    assert {row.title for row in repo.list()} == {"mine", "mine too"}


@pytest.mark.parametrize("time", [1e20, -1e20, 8.64e12, 9e12])
def test_a_clock_that_is_far_off_stops_nobody(open_repo: OpenRepo, time: float) -> None:
    conversation = open_repo("laptop", clock=lambda: time).create()
    entry = conversation.append("user", "words")
    assert conversation.transcript()[0] == entry
    assert entry.created_at == max(-8.64e12, min(time, 8.64e12))
