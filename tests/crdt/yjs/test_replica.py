"""YjsReplica keeps the contract, and stands up to the bytes that are known to panic or corrupt its core."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pycrdt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcrdt.crdt.yjs import update as yjs_update
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import UpdateRange, read_state_vector, read_update
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.testing.backend_suite import ROOTS
from llmcrdt.varint import write_uint

# yrs 0.28 panics, corrupts itself or allocates without bound on these: clocks near 2^31, and counts that no bytes back.
HARMFUL = [
    "010207feffffff0f040101740161440700016200",
    "010107ffffffff0f04010174016100",
    "0102078080808008040101740161440700016200",
    "010207ffffffff07040101740161440700016200",
    "ffff804a",
    "80ade204",
    "0000ffff804a",
]


@pytest.mark.parametrize("seed", HARMFUL)
def test_bytes_that_would_harm_the_core_never_reach_it(seed: str) -> None:
    replica = YjsReplica(ROOTS)
    with pytest.raises(MalformedUpdate):
        replica.apply(bytes.fromhex(seed))
    assert not replica.broken
    assert replica.diff() == b"\x00\x00"


WORD = bytes.fromhex("0101a7a8c303c0b8028407a7c3020568656c6c6f00")
"""A word of a stream: client, clock, left neighbour, five letters."""


def ends(read: Callable[[bytes], UpdateRange | None], data: bytes) -> UpdateRange | None:
    try:
        return read(data)
    except MalformedUpdate:
        return None


@given(st.lists(st.tuples(st.integers(0, len(WORD) - 1), st.integers(0, 255)), max_size=3), st.binary(max_size=9))
@example([], b"")
@example([(3, 0xFF), (4, 0xFF)], b"")
def test_a_word_of_a_stream_is_read_as_any_update(changes: list[tuple[int, int]], inside: bytes) -> None:
    """Changed at some places, and with some bytes more behind the first: the short way reads what the long one does."""
    data = bytearray(WORD)
    for at, byte in changes:
        data[at] = byte
    for update in (bytes(data), bytes(data[:2]) + inside + bytes(data[2:]), bytes(data[:2]) + inside + bytes(data[5:])):
        short, long = yjs_update._read_word(update), ends(yjs_update._read_update, update)
        assert short is None or short == long
        assert ends(read_update, update) == long
    assert changes or yjs_update._read_word(WORD)


@given(st.integers(0, (1 << 53) - 1), st.integers(1, (1 << 28) - 128), st.integers(1, 127))
def test_every_word_at_a_usual_clock_is_read_the_short_way(client: int, clock: int, size: int) -> None:
    name, before = (write_uint(client) + write_uint(at) for at in (clock, clock - 1))
    update = b"\x01\x01" + name + b"\x84" + before + bytes([size]) + b"a" * size + b"\x00"
    assert yjs_update._read_word(update) == yjs_update._read_update(update)


def test_a_version_with_an_unbacked_count_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(MalformedUpdate):
        YjsReplica(ROOTS).diff(since=bytes.fromhex("ffff804a"))


@given(st.binary(max_size=200))
def test_the_readers_raise_nothing_but_malformed_update(data: bytes) -> None:
    for read in (read_update, read_state_vector):
        with contextlib.suppress(MalformedUpdate):
            read(data)


def test_every_kind_of_content_that_yjs_writes_is_read() -> None:
    """Documents of other programs hold more than ours: arrays, numbers, XML, formats, subdocuments."""
    import pycrdt

    doc = pycrdt.Doc()
    shared = doc.get("m", type=pycrdt.Map)
    shared["any"] = {"list": [1, -2.5, True, None, "x", 2**40], "bytes": b"\x00"}
    shared["array"] = pycrdt.Array([1, "two", b"3"])
    text = doc.get("t", type=pycrdt.Text)
    text += "bold 😀"
    text.format(0, 4, {"b": True})
    text.insert_embed(2, {"image": "x"})
    doc["xml"] = pycrdt.XmlFragment([pycrdt.XmlElement("p", {"a": "1"}, [pycrdt.XmlText("hi")])])
    shared["sub"] = pycrdt.Doc()
    del shared["any"]
    update = doc.get_update()
    span = read_update(update)
    assert span.covered_by(read_state_vector(doc.get_state()))
    assert not span.covered_by({})


def test_writers_never_share_an_identity() -> None:
    a, b = YjsReplica(ROOTS), YjsReplica(ROOTS)
    versions = []
    for replica in (a, b):
        with replica.edit() as edit:
            edit.put("acts", "k", "v")
        versions.append(set(read_state_vector(replica.version())))
    assert versions[0].isdisjoint(versions[1])


FREED = """
import gc
from llmcrdt.crdt.yjs.replica import YjsReplica
writer = YjsReplica(["m"])
for n in range(300):
    with writer.edit() as edit:
        edit.put("m", str(n), "x" * 500)
whole, _ = writer.snapshot()
def memory():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def use():
    for _ in range(100):
        replica = YjsReplica(["m"])
        replica.load(whole, [])
        with replica.edit() as edit:
            edit.put("m", "k", "v")
use()
before = memory()
use()
print(memory() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_a_replica_that_nobody_holds_is_freed() -> None:
    """pycrdt keeps an observed document for ever unless it is unobserved; and one whose callback leads back to it."""
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 << 20, "100 documents of 150 kB each were kept: 45 MB"


def test_the_first_update_is_told_as_every_other() -> None:
    """Whether a replica was empty before makes no difference for what is touched, and for what is to be kept."""
    doc = pycrdt.Doc(client_id=7)
    words = doc.get("words", type=pycrdt.Map)
    words["a"] = pycrdt.Map({"said": "apple"})
    before = bytes(doc.get_update())
    words["b"] = pycrdt.Map({"said": "secret pear"})
    both = bytes(doc.get_update())
    del words["b"]
    after = bytes(doc.get_update())
    deleted = bytes(doc.get_update(doc.get_state()))
    said_and_deleted = bytes(pycrdt.merge_updates(both, deleted))
    assert b"secret" in said_and_deleted
    other = pycrdt.Doc(client_id=8)
    other.get("words", type=pycrdt.Map)["other"] = "there before"
    for update in (before, after, said_and_deleted):
        first, second = YjsReplica(("words",)), YjsReplica(("words",))
        second.apply(bytes(other.get_update()))
        told, told_too = first.apply(update), second.apply(update)
        assert told.changed and told_too.changed
        assert told.touched.of("words") - {"b"} == told_too.touched.of("words") - {"b"} == {"a"}
        assert b"secret" not in told.update
        again = YjsReplica(("words",))
        again.load(None, [told.update])
        assert again.version() == first.version()
        assert first.node("words", "a") == again.node("words", "a") == {"said": "apple"}
        assert not first.apply(update).news
