"""Sealed hidden fields: what opens where, what never does, and that nothing shows them by accident.

The vectors in tests/vectors/sealed_field.json: "fields" are of the first form, whose binding is readable, and are read;
"sealed_bindings" are what is written now, by ``python tests/document/test_encryption.py``. A change of any of them is a
change of the format.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.document import schema
from llmcrdt.document.canonical import canonical_json
from llmcrdt.document.encryption import NOWHERE, EncryptedField, FieldAddress, encrypt_field, read_encrypted
from llmcrdt.document.entry_fields import field_digest, read_hidden, write_hidden
from llmcrdt.exceptions import CannotOpen, InvalidContent, KeyMissing, KeyringUnusable
from llmcrdt.ids import DocumentId, EntryId, KeyId, document_id, key_bytes, key_id, text_of
from llmcrdt.interop import openai_chat

from ..replicas import plain_replica

pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')

OpenRepo = Callable[..., llmcrdt.Repo]
VECTORS = Path(__file__).parents[1] / "vectors" / "sealed_field.json"
HERE, THERE = document_id(bytes(range(16))), document_id(bytes(16))
SECRET = b"the-content-nobody-may-see"


@dataclass(frozen=True)
class FixedKey:
    data: bytes

    @property
    def id(self) -> KeyId:
        return key_id(self.data)


@dataclass
class FixedKeys:
    """A keyring in memory: the last key seals."""

    known: list[FixedKey] = field(default_factory=lambda: [FixedKey(bytes(range(32)))])

    def newest(self, conversation: DocumentId) -> FixedKey:
        return self.known[-1]

    def find(self, conversation: DocumentId, id: KeyId) -> FixedKey | None:
        return next((key for key in self.known if key.id == id), None)

    def rotate(self, conversation: DocumentId) -> FixedKey:
        self.known.append(FixedKey(bytes([len(self.known)]) * 32))
        return self.known[-1]


def place(conversation: str = HERE, entry: str = "A" * 16, name: str = "p/n", keys: Any = None) -> FieldAddress:
    return FieldAddress(DocumentId(conversation), EntryId(entry), name, keys or FixedKeys())


def sealed(data: bytes, binding: Any = None) -> llmcrdt.HiddenField:
    return llmcrdt.HiddenField(data, binding or {}, sealed=True)


def of_before(data: bytes, binding: Any) -> bytes:
    """A value of the first form, at ``place()``: its binding stands in clear before the ciphertext."""
    bindings_ = pytest.importorskip("nacl.bindings")
    key, nonce, text = FixedKeys().newest(HERE), bytes(24), canonical_json(binding)
    covered = canonical_json(["llmcrdt/hidden/1", HERE, "A" * 16, "p/n", key.id, text]).encode()
    ciphertext = bindings_.crypto_aead_xchacha20poly1305_ietf_encrypt(data, covered, nonce, key.data)
    return b"\x01" + key_bytes(key.id) + nonce + text.encode() + b"\0" + bytes(ciphertext)


def vectors() -> list[dict[str, Any]]:
    made = []
    for data, binding, name in [
        (b"", {}, ""),
        (b"\x00\x01signature\xff", {"provider": "p", "n": 2**53 + 1}, "p/signature"),
        ("grün 😀".encode(), {"é": 1.0}, 'a"b\\c/é'),
    ]:
        here = place(name=name)
        value = write_hidden(sealed(data, binding), here, lambda n: bytes(range(100, 100 + n)))
        row = {"data": data.hex(), "binding": binding, "name": name, "value": value.hex()}
        made.append({**row, "digest": field_digest(value, here)})
    return made


def test_the_format_is_the_frozen_one_and_is_read_back() -> None:
    frozen = json.loads(VECTORS.read_text(encoding="utf-8"))
    assert {"conversation": HERE, "entry": "A" * 16, "key": bytes(range(32)).hex()} == {
        key: frozen[key] for key in ("conversation", "entry", "key")
    }
    assert vectors() == frozen["sealed_bindings"]
    assert [value["value"][:2] for value in frozen["fields"]] == ["01"] * 3
    for row in frozen["fields"] + frozen["sealed_bindings"]:
        found = read_hidden(bytes.fromhex(row["value"]), place(name=row["name"]))
        assert (found.data, found.binding, found.sealed) == (bytes.fromhex(row["data"]), row["binding"], True)


bindings = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none(), max_size=3)
names = st.text(max_size=8)


@settings(deadline=None)
@given(st.binary(max_size=200), bindings, names)
def test_a_field_opens_where_it_was_sealed_and_neither_content_nor_binding_is_readable_without_the_key(
    data: bytes, binding: Any, name: str
) -> None:
    value = encrypt_field(sealed(data, binding), place(name=name))
    assert read_encrypted(value, place(name=name)).data == data
    assert read_encrypted(value, place(name=name)).binding == binding
    assert read_hidden(value, NOWHERE).binding == {}
    assert len(data) < 5 or data not in value
    assert not [key for key in binding if len(key) > 2 and key.encode() in value]


@settings(deadline=None)
@given(st.sampled_from(["conversation", "entry", "name", "key", "binding"]))
def test_a_field_moved_anywhere_else_does_not_open(what: str) -> None:
    value = encrypt_field(sealed(SECRET, {"provider": "one"}), place())
    if what == "binding":  # it can be reached in a field of before only
        value = of_before(SECRET, {"provider": "one"})
        assert read_encrypted(value, place()).data == SECRET
    other = FixedKeys([FixedKey(b"k" * 32)])
    moved = {
        "conversation": place(conversation=THERE),
        "entry": place(entry="B" * 16),
        "name": place(name="p/m"),
        "key": place(keys=other),
        "binding": place(),
    }[what]
    if what == "binding":
        value = value.replace(b'"one"', b'"two"')
    if what == "key":  # the other key under the first one's place in the value
        value = value.replace(value[1:25], encrypt_field(sealed(b""), moved)[1:25])
    found = read_encrypted(value, moved)
    assert found.locked
    with pytest.raises(CannotOpen) as caught:
        _ = found.data
    assert type(caught.value) is CannotOpen
    assert SECRET.decode() not in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_any_byte_changed_or_cut_is_noticed(data: st.DataObject) -> None:
    value = bytearray(encrypt_field(sealed(SECRET, {"provider": "p"}), place()))
    at = data.draw(st.integers(0, len(value) - 1))
    if data.draw(st.booleans()):
        value[at] ^= data.draw(st.integers(1, 255))
    else:
        del value[at]
    with pytest.raises((CannotOpen, InvalidContent)):
        assert read_encrypted(bytes(value), place()).data != SECRET


@settings(deadline=None)
@given(st.binary(max_size=120) | st.binary(max_size=80).map(lambda rest: b"\x01" + bytes(48) + b"{}\0" + rest))
def test_opening_strangers_bytes_raises_only_what_is_documented(value: bytes) -> None:
    for keys in (FixedKeys(), FixedKeys([FixedKey(b"")])):
        with contextlib.suppress(InvalidContent, CannotOpen):
            _ = read_hidden(value, place(keys=keys)).data


def test_a_replica_without_the_key_carries_the_field_untouched(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    phone, tablet = open_repo("phone", laptop.library), open_repo("tablet", laptop.library)
    here = laptop.create("x")
    entry = here.append("assistant", "Hi", hidden={"p/n": sealed(SECRET, {"provider": "p"})})
    there, third = phone.join(here.id), tablet.join(here.id)
    there.apply(here.diff())
    carried = there.entry(entry.id).hidden["p/n"]
    assert carried.locked and carried.sealed and carried.binding == {}
    with pytest.raises(KeyMissing, match="not here"):
        _ = carried.data
    assert there.entry(entry.id).hidden == entry.hidden
    third.apply(there.diff())
    assert tablet.keyring.add(laptop.keyring.export(here.id)) == 1
    opened = third.entry(entry.id).hidden["p/n"]
    assert (opened.data, opened.binding, opened.versions) == (SECRET, {"provider": "p"}, (entry.hash,))
    assert there.verify() == []


def test_an_entry_read_before_the_key_came_opens_when_it_is_here(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    here = laptop.create("x")
    entry = here.append("user", "Hi", hidden={"n": sealed(SECRET)})
    there = phone.join(here.id)
    there.apply(here.diff())
    early = there.entry(entry.id)
    assert early.hidden["n"].locked
    phone.keyring.add(laptop.keyring.export(here.id))
    assert not early.hidden["n"].locked and early.hidden["n"].data == SECRET


def test_rotation_seals_under_the_new_key_and_opens_with_the_old(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop", clock=lambda: 1000.0)  # a clock that stands still
    conversation = repo.create("x")
    first = conversation.append("user", "1", hidden={"n": sealed(b"one")}).hidden["n"]
    rotated = conversation.rotate_key()
    second = conversation.append("user", "2", hidden={"n": sealed(b"two")}).hidden["n"]
    assert isinstance(first, EncryptedField) and isinstance(second, EncryptedField)
    assert second.key == rotated != first.key
    assert (first.data, second.data) == (b"one", b"two")
    assert [key.id for key in repo.keyring.keys(conversation.id)] == [first.key, second.key]


def test_fields_open_after_a_restart_and_after_a_stream(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    with conversation.stream("assistant") as stream:
        stream.write("Hello")
        stream.seal(hidden={"n": sealed(SECRET)})
    conversation.append("user", "clear", hidden={"n": b"clear"})
    repo.close()
    again = open_repo("laptop").get(conversation.id).transcript()
    assert [(entry.hidden["n"].data, entry.hidden["n"].sealed) for entry in again] == [
        (SECRET, True),
        (b"clear", False),
    ]


def test_a_field_read_sealed_is_sealed_anew_where_it_is_appended(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    one, two = repo.create("one"), repo.create("two")
    entry = one.append("user", "x", hidden={"n": sealed(SECRET)})
    other = two.append("user", "x", hidden=entry.hidden)
    assert other.hidden["n"].data == SECRET
    assert other.hidden["n"] != entry.hidden["n"]


def test_a_fork_seals_anew_what_opens_here_and_leaves_out_the_rest(open_repo: OpenRepo) -> None:
    repo, phone = open_repo("laptop"), open_repo("phone")
    conversation = repo.create("x")
    entry = conversation.append("user", "x", hidden={"n": sealed(SECRET, {"provider": "p"}), "clear": b"clear"})
    fork = repo.fork(conversation, at=entry)
    anew = fork.entry(entry.id).hidden["n"]
    assert (anew.data, anew.binding, anew.sealed) == (SECRET, {"provider": "p"}, True)
    assert [key.id for key in repo.keyring.keys(fork.id)] != [key.id for key in repo.keyring.keys(conversation.id)]
    there = phone.join(conversation.id)
    there.apply(conversation.diff())
    without = phone.fork(there, at=entry.id)
    assert set(without.entry(entry.id).hidden) == {"clear"}
    assert without.forked_from and without.forked_from["left_out"] == [[entry.id, "n"]]
    assert fork.forked_from and "left_out" not in fork.forked_from
    assert without.entry(entry.id).missing == ("n",)
    assert fork.verify() == without.verify() == []


def test_a_field_keeps_its_digest_in_forks_of_forks_and_a_forged_one_is_refused_there_too(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    asked = conversation.append("user", "x")
    frame = conversation.transcript()
    entry = conversation.append("assistant", "y", frame=frame, hidden={"n": sealed(SECRET, {"provider": "p"})})
    second = repo.fork(repo.fork(conversation, at=entry), at=entry)
    field = second.entry(entry.id).hidden["n"]
    assert (field.data, field.binding, field.versions) == (SECRET, {"provider": "p"}, (entry.hash,))
    assert second.verify() == []
    replica = plain_replica()
    replica.apply(second.diff())
    with replica.edit() as edit:
        other = encrypt_field(sealed(b"forged"), place(second.id, entry.id, "n", repo.keyring))
        edit.put_field(schema.ENTRIES, entry.id, "hidden:n", other)
    second.apply(edit.update)
    assert second.entry(entry.id).hidden["n"].refused == "replaced"
    assert [problem.entry for problem in second.verify()] == [entry.id]
    assert repo.fork(second, at=entry).entry(entry.id).missing == ("n",)
    assert conversation.entry(asked.id).hidden == {}


def test_a_device_without_the_newest_key_says_so_before_it_seals_under_another_one(open_repo: OpenRepo) -> None:
    laptop, phone = open_repo("laptop"), open_repo("phone")
    here = laptop.create("x")
    here.append("user", "1", hidden={"n": sealed(b"1")})
    there = phone.join(here.id)
    there.apply(here.diff())
    for _ in range(2):
        with pytest.raises(KeyMissing, match="newest"):
            there.append("user", "2", hidden={"n": sealed(b"2")})
        assert len(there.transcript()) == 1 and phone.keyring.keys(here.id) == ()
        there.close()
        there = phone.get(here.id)
    phone.keyring.add(laptop.keyring.export(here.id))
    there.append("user", "2", hidden={"n": sealed(b"2")})
    here.apply(there.diff())
    assert here.transcript()[-1].hidden["n"].data == b"2"
    # a key that was made anew, and not handed over
    here.rotate_key()
    here.append("user", "3", hidden={"n": sealed(b"3")})
    there.apply(here.diff())
    with pytest.raises(KeyMissing, match="newest"):
        there.append("user", "4", hidden={"n": sealed(b"4")})
    there.append("user", "clear", hidden={"n": b"clear"})
    there.rotate_key()
    for text in ("4", "5"):
        there.append("user", text, hidden={"n": sealed(text.encode())})
    here.apply(there.diff())
    with pytest.raises(KeyMissing, match="newest"):
        here.append("user", "6", hidden={"n": sealed(b"6")})
    assert here.transcript()[-1].hidden["n"].locked
    assert here.verify() == there.verify() == []


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_an_exposed_keyring_stops_sealing_and_nothing_else(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation, other = repo.create("x"), repo.create("y")
    entry = conversation.append("user", "x", hidden={"n": sealed(SECRET)})
    repo.keyring.path.chmod(0o644)
    with pytest.raises(KeyringUnusable, match="chmod 600"):
        conversation.append("user", "y", hidden={"n": sealed(SECRET)})
    assert conversation.append("user", "z", hidden={"n": b"clear"}).hidden["n"].data == b"clear"
    assert conversation.entry(entry.id).hidden["n"].locked
    assert [e.text for e in conversation.transcript()] == ["x", "z"] and conversation.verify() == []
    repo.delete(other.id)
    repo.close()
    again = open_repo("laptop")
    again.keyring.path.chmod(0o600)
    assert again.get(conversation.id).entry(entry.id).hidden["n"].data == SECRET


def test_verify_names_a_field_that_was_moved_or_changed_and_is_silent_without_the_key(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    entry = conversation.append("user", "x", hidden={"n": sealed(SECRET, {"provider": "one"})})
    other = conversation.append("user", "y")
    assert conversation.verify() == []
    replica = plain_replica()
    replica.apply(conversation.diff())
    value = replica.node(schema.ENTRIES, entry.id)["hidden:n"]  # type: ignore[index]
    assert isinstance(value, bytes)
    with replica.edit() as edit:
        edit.put_field(schema.ENTRIES, other.id, "hidden:n", value)
        edit.put_field(schema.ENTRIES, other.id, "hidden:m", value.replace(b"one", b"two"))
    conversation.apply(edit.update)
    assert [(p.entry, "does not open" in p.what) for p in conversation.verify()] == [(other.id, True)] * 2
    assert conversation.entry(other.id).hidden["n"].locked
    without = open_repo("phone").join(conversation.id)
    without.apply(conversation.diff())
    assert without.verify() == []


def test_entries_can_be_copied_and_pickled_and_no_key_goes_along(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create("x")
    content = [llmcrdt.Text("see"), llmcrdt.Blob(b"a picture")]
    entry = conversation.append("user", content, hidden={"n": sealed(SECRET)})
    assert copy.deepcopy(entry) == entry and copy.deepcopy(entry).hidden["n"].data == SECRET
    data = pickle.dumps(entry)
    assert SECRET not in data and pickle.loads(data) == entry
    assert pickle.loads(data).hidden["n"].locked
    assert [getattr(part, "present", None) for part in pickle.loads(data).parts] == [None, False]


def test_the_file_of_a_repo_holds_no_sealed_content(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    field = sealed(SECRET, {"provider": "p", "account": "acct-of-mine"})
    conversation.append("user", "Hi", hidden={"n": field, "clear": b"a-clear-field"})
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert any(b"a-clear-field" in data for data in files.values())
    assert not any(SECRET in data or b"acct-of-mine" in data for data in files.values())


def test_deleting_a_conversation_destroys_its_keys_on_every_device(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    gone, stays = laptop.create("gone"), laptop.create("stays")
    for conversation in (gone, stays):
        conversation.append("user", "x", hidden={"n": sealed(SECRET)})
        phone.keyring.add(laptop.keyring.export(conversation.id))
    laptop.delete(gone.id)
    phone._core.library.document.apply(laptop._core.library.document.diff())
    for repo in (laptop, phone):
        assert (len(repo.keyring.keys(gone.id)), len(repo.keyring.keys(stays.id))) == (0, 1)


def test_nothing_shows_hidden_content_by_accident(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    account = "acct-of-mine"
    bound = {"provider": "p", "account": account}
    hidden = {"sealed": sealed(SECRET, bound), "clear": llmcrdt.HiddenField(SECRET, bound), "bytes": SECRET}
    entry = conversation.append("user", "Hi", hidden=hidden)
    shown = [repr(entry), str(entry), repr(hidden["sealed"]), repr(hidden["clear"]), repr(entry.hidden)]
    shown += [repr(conversation.transcript()), repr(repo.keyring), repr(repo.keyring.keys(conversation.id))]
    shown.append(json.dumps(openai_chat.export(list(conversation.transcript()))))
    database = str(tmp_path / "laptop.db")
    for command in (["show"], ["show", "--json"], ["export"]):
        shown.append(CliRunner().invoke(main, ["--db", database, command[0], conversation.id, *command[1:]]).output)
    for bad in ({"n": llmcrdt.HiddenField(SECRET, {"x": {1}})}, {"n": sealed(SECRET, {"x": "\ud800"})}, {"n": "text"}):
        with pytest.raises(InvalidContent) as caught:
            conversation.append("user", "x", hidden=bad)  # type: ignore[arg-type]
        shown.append(str(caught.value))
    key = repo.keyring.keys(conversation.id)[0].data
    forms = [account, SECRET.decode(), SECRET.hex(), key.hex(), repr(key)[2:-1], text_of(key)]
    assert [len(repo.search(text)) for text in ("Hi", "nobody", "clear", SECRET.decode())] == [1, 0, 0, 0]
    assert not [text for text in shown for form in forms if form in text]
    assert all("Hi" in text for text in shown[-6:-3]), "the commands did show the visible text"


def test_without_pynacl_clear_fields_work_sealed_ones_are_carried_and_sealing_says_what_to_do(
    open_repo: OpenRepo, tmp_path: Path
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("x")
    conversation.append("user", "sealed", hidden={"n": sealed(SECRET)})
    repo.close()
    script = f"""
        import sys
        sys.modules["nacl"] = None  # what an import finds where it is not installed
        import llmcrdt
        from llmcrdt.exceptions import SealingMissing

        with llmcrdt.open({str(tmp_path / "laptop.db")!r}) as repo:
            conversation = repo.get({conversation.id!r})
            carried = conversation.transcript()[0].hidden["n"]
            assert carried.locked
            entry = conversation.append("user", "clear", hidden={{"n": b"clear"}})
            assert entry.hidden["n"].data == b"clear"
            to_seal = llmcrdt.HiddenField(b"", sealed=True)
            for ask in (lambda: carried.data, lambda: conversation.append("user", "x", hidden={{"n": to_seal}})):
                try:
                    ask()
                except SealingMissing as error:
                    assert str(error).startswith("Encrypted hidden fields need PyNaCl")
                    assert "llmcrdt[seal]" in str(error)
                else:
                    raise AssertionError
            assert len(conversation.transcript()) == 2
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


if __name__ == "__main__":
    frozen = {**json.loads(VECTORS.read_text(encoding="utf-8")), "sealed_bindings": vectors()}
    VECTORS.write_text(json.dumps(frozen, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
