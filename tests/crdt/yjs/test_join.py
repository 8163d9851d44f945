"""Words of a stream that say together what one update says."""

from __future__ import annotations

import random
from contextlib import suppress

import pycrdt
import pytest

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import join_words, read_update
from llmcrdt.exceptions import MalformedUpdate

MOST = 1 << 20


def words(count: int, client: int = 7) -> list[bytes]:
    """A stream: each update adds a word to a text."""
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=client)
    text, updates = document.get("answer", type=pycrdt.Text), list[bytes]()
    document.observe(lambda event: updates.append(bytes(event.update)))
    for n in range(count):
        text += f"{n} " * (1 + n % 3)
    return updates


def documents(updates: list[bytes], rest: list[bytes]) -> list[tuple[str, bytes]]:
    """The text and the version that some updates make, one after the other, and that they make with the rest."""
    replica, found = YjsReplica(()), []
    for more in (updates, rest):
        for update in more:
            with suppress(MalformedUpdate):
                replica.apply(update)
        document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
        document.apply_update(replica.snapshot()[0])
        found.append((str(document.get("answer", type=pycrdt.Text)), replica.version()))
    return found


def test_a_stream_is_one_update_after_the_first_which_names_its_text() -> None:
    updates = words(400)
    assert join_words(updates, 0, MOST) == (updates[0], 1)
    update, count = join_words(updates, 1, MOST)
    assert count == 399
    assert len(update) < sum(map(len, updates)) / 2
    assert documents([updates[0], update], []) == documents(updates, [])


def test_so_many_are_joined_as_have_room() -> None:
    updates = words(400)
    for most in (0, 1, 20, 50, 333):
        update, count = join_words(updates, 1, most)
        assert count == 1 or len(update) <= most
    assert join_words(updates, 1, 333)[1] > 20


@pytest.mark.parametrize("seed", range(150))
def test_what_is_joined_could_be_read_and_says_what_it_said(seed: int) -> None:
    """Streams of two clients, of which some words are lost, moved, repeated, or have another byte."""
    rng = random.Random(seed)
    whole = [words(40, 7), words(30, 1 << 40)]
    updates = [update for stream in whole for update in stream[1:]]
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(updates))
        match rng.randrange(5):
            case 0:
                del updates[at]
            case 1:
                updates.insert(rng.randrange(len(updates)), updates[at])
            case 2 if updates[at]:
                changed = bytearray(updates[at])
                changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
                updates[at] = bytes(changed)
            case 3:
                updates[at] = updates[at][: rng.randrange(len(updates[at]) + 1)]
            case _:
                updates[at] += rng.choice((b"\0", b"x", b"\x01\x01"))
    first = [stream[0] for stream in whole]
    joined, at, several = list(first), 0, 0
    while at < len(updates):
        update, count = join_words(updates, at, MOST)
        for each in updates[at : at + count] if count > 1 else ():
            read_update(each)
        joined.append(update)
        at, several = at + count, several + (count > 1)
    assert at == len(updates)
    assert several
    assert documents(joined, whole[0] + whole[1]) == documents(first + updates, whole[0] + whole[1])


def test_a_word_past_the_clocks_that_are_read_at_once_is_not_joined() -> None:
    def word(clock: int) -> bytes:
        numbers = [
            bytes((n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14 & 0x7F | 0x80, n >> 21)) for n in (clock, clock - 1)
        ]
        return b"\x01\x01\x07" + numbers[0] + b"\x84\x07" + numbers[1] + b"\x04word\x00"

    last = (1 << 28) - 8
    assert join_words([word(last - 8), word(last - 4), word(last)], 0, MOST)[1] == 3
    assert join_words([word(last), word(last + 4), word(last + 4)], 0, MOST)[1] == 2
    assert join_words([word(last + 2), word(last + 6)], 0, MOST)[1] == 1
