"""Encrypted attachments: any range is a piece of the whole, chunks hold together, and only the key shows anything."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, field

import pytest

from llmcrdt.document.sealed_blob import CHUNK, TAG, BlobCipher, sealed_size
from llmcrdt.exceptions import CannotOpen
from llmcrdt.ids import DocumentId, KeyId, key_id

pytest.importorskip("nacl")

CONVERSATION = DocumentId("3aXbnFiXdxAHcHKTW7Jh7WJBPX1Q")
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5)


@dataclass(frozen=True)
class Key:
    data: bytes = bytes(range(32))
    id: KeyId = field(default=key_id(bytes(range(32))))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def cipher(content: bytes, key: Key | None = None, size: int | None = None) -> BlobCipher:
    hash_ = hashlib.sha256(content).hexdigest()
    return BlobCipher(key or Key(), CONVERSATION, hash_, len(content) if size is None else size)


def sealed(content: bytes, key: Key | None = None) -> bytes:
    return cipher(content, key).read_sealed(io.BytesIO(content), 0, 1 << 30)


def opened(content: bytes, form: bytes, key: Key | None = None) -> bytes:
    return b"".join(cipher(content, key).open(io.BytesIO(form)))


@pytest.mark.parametrize("size", SIZES)
def test_what_was_sealed_opens_and_any_range_is_a_piece_of_it(size: int) -> None:
    content, rng = noise(size), random.Random(size)
    whole = sealed(content)
    assert len(whole) == sealed_size(size) and opened(content, whole) == content
    assert sealed(content) == whole, "every device makes the same"
    one = cipher(content)
    for _ in range(30):
        offset, length = rng.randrange(len(whole) + 1), rng.randrange(2 * CHUNK)
        assert one.read_sealed(io.BytesIO(content), offset, length) == whole[offset : offset + length]


def test_chunks_cannot_be_moved_left_out_or_changed() -> None:
    content = noise(CHUNK) * 3 + b"end"
    whole = sealed(content)
    chunks = [whole[at : at + CHUNK + TAG] for at in range(0, len(whole), CHUNK + TAG)]
    assert len({*chunks}) == 4, "equal chunks don't look alike"
    rng = random.Random(1)
    flipped = [bytearray(whole) for _ in range(20)]
    for each in flipped:
        each[rng.randrange(len(each))] ^= 1 << rng.randrange(8)
    wrong = [
        [chunks[1], chunks[0], *chunks[2:]],
        chunks[:-1],
        [*chunks[:2], chunks[3]],
        [*chunks, chunks[3]],
        [*chunks, b"!"],
        [],
        *([bytes(each)] for each in flipped),
        *([whole[:cut]] for cut in (0, 1, CHUNK, len(whole) - 1)),
    ]
    for each in wrong:
        with pytest.raises(CannotOpen):
            opened(content, b"".join(each))
    # The number of a chunk is in what its tag covers, and not in the nonce alone.
    one = cipher(content)
    assert one._bound(0) != one._bound(1)


def test_no_two_contents_have_one_key() -> None:
    a, b = noise(100), noise(100, 1)
    assert cipher(a)._key != cipher(b)._key != cipher(b, size=99)._key
    assert cipher(a).name != cipher(b).name
    other = Key(bytes(32), key_id(bytes(32)))
    assert cipher(a).name != cipher(a, other).name and cipher(a)._key != cipher(a, other)._key
    elsewhere = BlobCipher(Key(), DocumentId(CONVERSATION[::-1]), hashlib.sha256(a).hexdigest(), 100)
    assert elsewhere.name != cipher(a).name and elsewhere._key != cipher(a)._key
    with pytest.raises(CannotOpen):
        opened(a, sealed(a, other))


def test_nothing_of_it_is_seen() -> None:
    content = b"what nobody may read " * 9000
    hash_ = hashlib.sha256(content).digest()
    form = sealed(content)
    assert b"nobody" not in form and cipher(content).name != hash_ and hash_ not in form


def test_the_form_stays() -> None:
    """Frozen: relays hold it for years. docs/schema.md says how it is made."""
    one = cipher(b"a picture")
    assert one.name.hex() == "710a8cada0ecf370f3e5f08475bcd7347c013d7d98096225ff57c5ac4728ac8f"
    assert sealed(b"a picture").hex() == "083cbf176666b720c297f71cb05805d5e5ea19fb2c319955f2"
