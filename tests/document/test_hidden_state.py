"""Hidden fields hold what their author sealed: nobody puts another value in their place unnoticed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.encryption import encrypt_field
from llmcrdt.document.entry import Text, content_hash
from llmcrdt.document.entry_fields import field_digest, write_hidden
from llmcrdt.document.frame import sent_hash
from llmcrdt.document.writer import EntryWriter
from llmcrdt.exceptions import CannotOpen, InvalidContent

OpenRepo = Callable[..., llmcrdt.Repo]
NAME = "p/signature"


def put(conversation: llmcrdt.Conversation, entry: str, fields: Mapping[str, Any]) -> None:
    """A stranger writes fields of an entry; None takes one away."""
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    node = stranger.get("entries", type=pycrdt.Map)[entry]
    for name, value in fields.items():
        if value is None:
            del node[name]
        else:
            node[name] = value
    conversation.apply(stranger.get_update())


def clear(data: bytes, **binding: Any) -> llmcrdt.HiddenField:
    return llmcrdt.HiddenField(data, binding)


def sealed(data: bytes, **binding: Any) -> llmcrdt.HiddenField:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    return llmcrdt.HiddenField(data, binding, sealed=True)


def forged(conversation: llmcrdt.Conversation, entry: str, kind: str) -> bytes:
    """The bytes of another value under the name of a field. A sealed one is made by somebody who has the key."""
    if kind == "sealed":
        return encrypt_field(sealed(b"forged", provider="p"), core_of(conversation).address(entry, NAME))  # type: ignore[arg-type]
    return {"clear": write_hidden(clear(b"forged", provider="p")), "empty": b"{}\0", "no field": b"forged"}[kind]


@pytest.mark.parametrize("by", ["append", "stream"])
@pytest.mark.parametrize("second", ["clear", "sealed", "empty", "no field"])
@pytest.mark.parametrize("first", [clear, sealed])
def test_a_second_value_is_refused_and_named(
    open_repo: OpenRepo, first: Callable[..., llmcrdt.HiddenField], second: str, by: str
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "Hello")
    hidden = {NAME: first(b"genuine", provider="p", account="mine"), "p/other": b"stays"}
    if by == "append":
        entry = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden=hidden)
    else:
        stream = conversation.stream("assistant", frame=conversation.transcript())
        stream.write("Hi")
        entry = stream.seal(hidden=hidden)
    genuine = conversation.entry(entry.id).hidden[NAME]
    assert (genuine.data, genuine.refused, genuine.versions) == (b"genuine", "", (entry.hash,))
    assert conversation.verify() == []

    put(conversation, entry.id, {f"hidden:{NAME}": forged(conversation, entry.id, second)})
    for shown in (conversation.entry(entry.id), conversation.transcript()[-1], conversation.entries(last=1)[0]):
        field = shown.hidden[NAME]
        assert (field.refused, field.locked, field.versions) == ("replaced", True, ())
        with pytest.raises(CannotOpen):
            _ = field.data
        assert shown.hidden["p/other"].data == b"stays" and shown.text == "Hi"
        assert b"forged" not in repr(field).encode()
    (problem, *more) = conversation.verify()
    assert problem.entry == entry.id and NAME in problem.what
    assert all(NAME in other.what for other in more)


@pytest.mark.parametrize("kind", ["clear", "added", "sealed"])
def test_a_forged_field_is_sent_to_nobody(open_repo: OpenRepo, kind: str) -> None:
    conversation = open_repo("laptop").create()
    hidden = {} if kind == "added" else {NAME: (sealed if kind == "sealed" else clear)(b"genuine", provider="p")}
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden=hidden)
    target = llmcrdt.Target("p")
    assert [line.sent for line in conversation.hidden_report(target)] == [True] * len(hidden)
    other = forged(conversation, entry.id, "sealed" if kind == "sealed" else "clear")
    put(conversation, entry.id, {f"hidden:{NAME}": other})
    reason = "added" if kind == "added" else "replaced"
    assert [(line.sent, line.reason) for line in conversation.hidden_report(target)] == [(False, reason)]


def test_a_device_without_the_key_tells_a_clear_value_over_a_sealed_one(open_repo: OpenRepo) -> None:
    here = open_repo("laptop").create()
    entry = here.append("assistant", "Hi", frame=here.transcript(), hidden={NAME: sealed(b"genuine", provider="p")})
    put(here, entry.id, {f"hidden:{NAME}": write_hidden(clear(b"forged", provider="p"))})
    there = open_repo("phone").join(here.id)
    there.apply(here.diff())
    assert there.entry(entry.id).hidden[NAME].refused == "replaced"
    assert [problem.entry for problem in there.verify()] == [entry.id]


def test_a_field_that_is_added_to_a_generation_is_refused(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript())
    put(conversation, entry.id, {"hidden:llmcrdt/tokens": write_hidden(clear(b"ids", version=entry.hash))})
    field = conversation.entry(entry.id).hidden["llmcrdt/tokens"]
    assert (field.refused, field.locked) == ("added", True)
    assert [problem.entry for problem in conversation.verify()] == [entry.id]


def test_a_field_that_is_taken_away_is_named(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden={NAME: b"genuine"})
    assert entry.missing == ()
    put(conversation, entry.id, {f"hidden:{NAME}": None})
    gone = conversation.entry(entry.id)
    assert (dict(gone.hidden), gone.missing) == ({}, (NAME,))
    assert [(problem.entry, NAME in problem.what) for problem in conversation.verify()] == [(entry.id, True)]


@pytest.mark.parametrize("kind", ["clear", "sealed", "empty", "no field", "added", "gone", "genuine"])
def test_a_conversation_that_is_opened_again_says_the_same_of_its_fields(open_repo: OpenRepo, kind: str) -> None:
    """Then entries are read without a check of their versions; fields are held against them all the same."""
    repo = open_repo("laptop")
    conversation = repo.create()
    hidden = {} if kind == "added" else {NAME: clear(b"genuine", provider="p"), "p/other": b"stays"}
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden=hidden)
    if kind != "genuine":
        other = None if kind == "gone" else forged(conversation, entry.id, "clear" if kind == "added" else kind)
        put(conversation, entry.id, {f"hidden:{NAME}": other})
    conversation.append("assistant", "go on", frame=conversation.transcript())
    before = conversation.transcript()[0]
    conversation.close()
    again = repo.get(conversation.id).transcript()[0]
    for found in (before, again):
        field = found.hidden.get(NAME)
        expected = {"gone": None, "added": "added", "genuine": ""}.get(kind, "replaced")
        assert (field.refused if field is not None else None) == expected
    assert (again.missing, again.hidden.keys()) == (before.missing, before.hidden.keys())
    assert all(again.hidden[name].versions == before.hidden[name].versions for name in before.hidden)


@pytest.mark.parametrize("digests", [None, [], 5, {NAME: 5}, {"p/other": "x"}])
def test_versions_of_before_and_of_strangers_stay_sound(open_repo: OpenRepo, digests: Any) -> None:
    """A version that says nothing of hidden fields is read as before; one that says nonsense vouches for nothing."""
    conversation = open_repo("laptop").create()
    conversation.append("user", "Hello")
    made = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden={NAME: b"genuine"})
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    node = stranger.get("entries", type=pycrdt.Map)[made.id]
    version = json.loads(node[f"version:{made.hash}"])
    del version["hidden"]
    if digests is not None:
        version["hidden"] = digests
    text = json.dumps(version)
    fields = {"head": node["head"], f"hidden:{NAME}": bytes(node[f"hidden:{NAME}"])}
    fields |= {"version:" + content_hash("assistant", text): text}
    stranger.get("entries", type=pycrdt.Map)["B" * 16] = pycrdt.Map(fields)
    conversation.apply(stranger.get_update())
    field = conversation.entry("B" * 16).hidden[NAME]  # type: ignore[arg-type]
    assert not conversation.transcript().malformed
    if isinstance(digests, dict):
        assert field.refused == ("replaced" if NAME in digests else "added")
    else:
        assert (field.data, field.refused, field.versions) == (b"genuine", "", ())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [clear, sealed])
def test_two_seals_never_swap_their_fields(
    open_repo: OpenRepo, kind: Callable[..., llmcrdt.HiddenField], seed: int
) -> None:
    """Two processes seal one entry, each with a field of its own: what is there belongs to one version, and says so."""
    rng = random.Random(seed)
    laptop, phone = open_repo("laptop"), open_repo("phone")
    here = laptop.create()
    here.append("user", "Hello", hidden={"p/x": kind(b"", provider="p")})
    stream = here.stream("assistant", frame=here.transcript())
    stream.write("Hi")
    stream.flush()
    there = phone.join(here.id)
    there.apply(here.diff())
    phone.keyring.add(laptop.keyring.export(here.id))

    def seal(conversation: llmcrdt.Conversation, words: str) -> None:
        writer = EntryWriter(core_of(conversation))
        hidden = {NAME: kind(words.encode(), provider="p")}
        writer.finish(stream.id, "assistant", [Text(words)], status="complete", hidden=hidden, usage=None)

    for conversation, words in rng.sample([(here, "here"), (there, "there")], 2):
        seal(conversation, words)
        if rng.random() < 0.5:
            here.apply(there.diff())
            there.apply(here.diff())
    here.apply(there.diff())
    there.apply(here.diff())
    for conversation in (here, there):
        assert len(core_of(conversation).view.states[stream.id].versions) == 2
        shown = conversation.entry(stream.id)
        field = shown.hidden[NAME]
        assert field.refused == "" and len(field.versions) == 1
        assert (field.versions == (shown.hash,)) == (field.data.decode() == shown.text)
        problems = [(problem.entry, "another one's is" in problem.what) for problem in conversation.verify()]
        assert problems == [(stream.id, True)], "one of the two is lost, and that is told"
    assert here.transcript().hash == there.transcript().hash


def add_version(conversation: llmcrdt.Conversation, entry: llmcrdt.Entry, **changed: Any) -> str:
    """A stranger adds a version that is older than the entry's own."""
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    version = json.loads(stranger.get("entries", type=pycrdt.Map)[entry.id][f"version:{entry.hash}"])
    version |= {"lamport": 1, **changed}
    text = json.dumps({key: value for key, value in version.items() if value is not None})
    name = content_hash(entry.role, text)
    put(conversation, entry.id, {f"version:{name}": text})
    return name


@pytest.mark.parametrize("kind", [clear, sealed])
def test_a_version_that_says_nothing_makes_no_room_for_a_field(
    open_repo: OpenRepo, kind: Callable[..., llmcrdt.HiddenField]
) -> None:
    conversation = open_repo("laptop").create()
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript())
    conversation.append("assistant", "go on", frame=conversation.transcript())
    silent = add_version(conversation, entry, hidden=None)
    address = core_of(conversation).address(entry.id, NAME)
    put(conversation, entry.id, {f"hidden:{NAME}": write_hidden(kind(b"forged", provider="p"), address)})
    field = conversation.entry(entry.id).hidden[NAME]
    assert conversation.entry(entry.id).hash == entry.hash and field.versions == (silent,)
    assert [line.reason for line in conversation.hidden_report(llmcrdt.Target("p"))] == ["version"]


def test_a_version_that_vouches_for_another_value_is_named(open_repo: OpenRepo) -> None:
    """A writer over a field, who adds a version for it, sends nothing to anybody either."""
    conversation = open_repo("laptop").create()
    hidden = {NAME: b"genuine"}
    entry = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden=hidden)
    conversation.append("assistant", "go on", frame=conversation.transcript())
    value = write_hidden(clear(b"forged", provider="p"))
    address = core_of(conversation).address(entry.id, NAME)
    add_version(conversation, entry, hidden={NAME: field_digest(value, address)})
    put(conversation, entry.id, {f"hidden:{NAME}": value})
    assert [line.reason for line in conversation.hidden_report(llmcrdt.Target("p"))] == ["version"]
    assert [(problem.entry, str(entry.hash) in problem.what) for problem in conversation.verify()] == [(entry.id, True)]


def test_what_can_t_be_a_field_s_name_leaves_the_stream_open(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    stream = conversation.stream("assistant", frame=conversation.transcript())
    stream.write("Hi")
    with pytest.raises(InvalidContent):
        stream.seal(hidden={"x" * 2000: b""})
    assert stream.seal(hidden={NAME: b"s"}).hidden[NAME].data == b"s"


@pytest.mark.parametrize("by", ["append", "stream"])
def test_what_was_really_sent_is_recorded_for_whoever_calls_a_provider(open_repo: OpenRepo, by: str) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "Hello")
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}

    def say(sent: Any, **place: Any) -> llmcrdt.Frame | None:
        if by == "append":
            entry = conversation.append("assistant", "Hi", sent=sent, **place)
        else:
            with conversation.stream("assistant", sent=sent, **place) as stream:
                stream.write("Hi")
            entry = conversation.entry(stream.id)
        return entry.frame

    frame = conversation.transcript()
    first = say(body, frame=frame, renderer="mine/1")
    assert first and (first.sent, first.renderer, first.hash) == (sent_hash(body), "mine/1", frame.hash)
    again = say(json.dumps(body).encode(), instead_of=conversation.transcript()[-1])
    assert again and (again.sent, again.renderer) == (sent_hash(json.dumps(body).encode()), "")
    assert again.hash == first.hash and again.sent != first.sent, "bytes are hashed as they are"
    silent = say(None, instead_of=conversation.transcript()[-1])
    assert silent and (silent.sent, silent.renderer, silent.hash) == (None, "", first.hash), "it does not say another's"
    before = conversation.version()
    for place in ({}, {"instead_of": conversation.transcript()[0]}):
        with pytest.raises(InvalidContent, match="generation"):
            say(body, **place)
    with pytest.raises(InvalidContent):
        say({"x": object()}, frame=conversation.transcript())
    assert conversation.version() == before
    assert conversation.verify() == []
