"""Chunks that peers hand over: when they are fetched, what is believed, and that nobody waits for a peer for long."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from llmcrdt.exceptions import InvalidContent
from llmcrdt.kvcache import Chunk, ChunkKey, HandoverKey, HttpPeer
from llmcrdt.kvcache.chunk_file import encode
from llmcrdt.kvcache.fetch_choice import Transfers, patience, worth
from llmcrdt.kvcache.handover import pack_sizes, read_handover_keys, unpack_keys, unpack_sizes
from llmcrdt.kvcache.peers import PeerFailed, Peers
from llmcrdt.testing.chunk_cache_suite import chain, keys_of

KEY = HandoverKey("a secret of forty letters, or more: none.".replace(" ", "-"))
TOKENS = 4  # of a chunk


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakePeer:
    """A peer on a clock of its own: it answers after ``latency`` and ``rate``, or not at all, as long as it is let."""

    def __init__(
        self, clock: Clock, chunks: Sequence[Chunk], latency: Callable[[], float], rate: Callable[[], float]
    ) -> None:
        self.clock, self.chunks, self.latency, self.rate = clock, {c.key: c for c in chunks}, latency, rate
        self.name, self.key = "fake", KEY
        self.asked = self.reads = 0
        self.spoil: Callable[[Chunk, bytes, bytes], tuple[bytes, bytes]] = lambda chunk, data, mac: (data, mac)

    def have(self, keys: Sequence[ChunkKey], seconds: float) -> list[int]:
        self.asked += 1
        self._take(self.latency(), seconds)
        return [self.chunks[key].size if key in self.chunks else 0 for key in keys]

    def read(self, key: ChunkKey, size: int, seconds: float) -> tuple[bytes, bytes]:
        self.reads += 1
        chunk = self.chunks[key]
        self._take(self.latency() + chunk.size / self.rate(), seconds)
        return self.spoil(chunk, encode(chunk), KEY.mac(key, chunk.digest))

    def close(self) -> None:
        pass

    def _take(self, seconds: float, most: float) -> None:
        self.clock.now += min(seconds, most)
        if seconds > most:
            raise PeerFailed("slow")


def fetched(peers: Peers, chunks: Sequence[Chunk], clock: Clock, per_token: float) -> list[Chunk]:
    """The steps of an engine: seek, then chunk by chunk what is offered; the rest is evaluated."""
    keys = keys_of(list(chunks))
    peers.seek(keys, TOKENS * len(keys))
    found: list[Chunk] = []
    while len(found) < len(keys) and peers.offered(keys[len(found) :], TOKENS):
        chunk = peers.fetch(keys[len(found)], TOKENS)
        if chunk is None:
            break
        found.append(chunk)
    clock.now += TOKENS * per_token * (len(keys) - len(found))
    return found


def test_a_chunk_is_fetched_where_that_takes_less_time_than_evaluating() -> None:
    """The rule of the module's docstring, for what was measured, whatever it was; and what follows of it."""
    rng = random.Random(1)
    for _ in range(500):
        size, tokens = rng.randrange(1, 1 << 24), rng.randrange(1, 4096)
        latency, rate = 10 ** rng.uniform(-5, 0), 10 ** rng.uniform(3, 9)
        per_token = 10 ** rng.uniform(-6, 0)
        known = Transfers(latency).moved(1 << 20, latency + (1 << 20) / rate, 5.0)
        right = latency + size / rate < tokens * per_token
        if math.isclose(latency + size / rate, tokens * per_token, rel_tol=1e-6):
            continue
        assert worth(size, tokens, per_token, known, 6.0) is right
        if right:  # cheaper bytes, more tokens or a slower engine don't change that
            assert worth(size // 2, tokens, per_token, known, 6.0)
            assert worth(size, 2 * tokens, per_token, known, 6.0)
            assert worth(size, tokens, 2 * per_token, known, 6.0)
        assert not worth(size, tokens, None, known, 6.0), "nothing was measured here: it is evaluated, and measured"
        assert patience(tokens, None) == 0
        assert not worth(size, tokens, per_token, known.failed(6.0), 7.0), "one that failed is left alone for a while"


def test_what_was_measured_is_kept_and_forgotten_after_a_minute() -> None:
    known = Transfers(0.1)
    assert known.estimate(1000, 0.0) is None and worth(1 << 20, 64, 0.01, known, 0.0), "one is tried"
    known = known.moved(1000, 1.1, 5.0)
    assert known.estimate(2000, 6.0) == pytest.approx(2.1)
    assert known.moved(3000, 1.1, 7.0).estimate(2000, 8.0) == pytest.approx(1.1), "all transfers count"
    assert known.estimate(2000, 66.0) is None
    assert known.moved(8000, 1.1, 70.0).estimate(2000, 71.0) == pytest.approx(0.35), "the line may be another one"


def test_whatever_a_peer_does_it_costs_a_chunk_and_a_quarter_at_most() -> None:
    """Random peers: quick, slow, silent, changing from one to the next call. Evaluating alone is the measure."""
    for seed in range(200):
        rng = random.Random(seed)
        clock, chunks = Clock(), chain(rng.randrange(1, 12), seed=seed, payload=1000)
        per_token = 10 ** rng.uniform(-4, 0)
        mood = rng.choice(("quick", "slow", "silent", "any"))

        def latency(rng: random.Random = rng, mood: str = mood) -> float:
            kind = rng.choice(("quick", "slow", "silent")) if mood == "any" else mood
            return {"quick": 1e-6, "slow": 10 ** rng.uniform(-3, 0), "silent": 1e9}[kind]

        there = chunks[: rng.randrange(len(chunks) + 1)]
        peer = FakePeer(clock, there, latency, lambda rng=rng: 10 ** rng.uniform(3, 9))
        peers = Peers([peer], lambda per_token=per_token: per_token, clock)
        for _ in range(3):
            began, alone = clock.now, TOKENS * per_token * len(chunks)
            found = fetched(peers, chunks, clock, per_token)
            assert found == chunks[: len(found)] and len(found) <= len(there)
            assert clock.now - began <= alone + alone / 4 + TOKENS * per_token + 1e-6
            clock.now += rng.choice((0.0, 10.0, 100.0))
        if mood == "quick" and there and per_token > 0.01:
            assert peers.stats()["fetched"] > 0


def test_a_slow_peer_is_tried_once_and_again_after_a_minute() -> None:
    clock, chunks = Clock(), chain(6)
    peer = FakePeer(clock, chunks, lambda: 0.001, lambda: 100.0)
    peers = Peers([peer], lambda: 0.01, clock)
    for asked, later in ((1, 0.0), (1, 30.0), (2, 61.0)):
        clock.now += later
        assert fetched(peers, chunks, clock, 0.01) == []
        assert peer.reads == asked


def test_the_second_peer_is_asked_for_what_the_first_does_not_give() -> None:
    clock, chunks = Clock(), chain(6)
    first = FakePeer(clock, chunks[:3], lambda: 0.001, lambda: 1e9)
    second = FakePeer(clock, chunks, lambda: 0.001, lambda: 1e9)
    assert fetched(Peers([first, second], lambda: 0.1, clock), chunks, clock, 0.1) == chunks
    assert (first.reads, second.reads) == (3, 3)
    first.spoil = lambda chunk, data, mac: (data[:-1] + b"?", mac)
    assert fetched(Peers([first, second], lambda: 0.1, clock), chunks, clock, 0.1) == chunks, "what lies is passed by"


def test_what_was_said_is_remembered_and_asked_again_later() -> None:
    clock, chunks = Clock(), chain(6)
    peer = FakePeer(clock, chunks[:3], lambda: 0.001, lambda: 1e9)
    peers = Peers([peer], lambda: 0.1, clock)
    for later, asked in ((0.0, 1), (1.0, 1), (5.0, 2), (1.0, 2)):
        clock.now += later
        peers.seek(keys_of(chunks), 24)
        assert peer.asked == asked
    assert peers.offered(keys_of(chunks), TOKENS) == 3
    assert peers.offered(keys_of(chunks)[3:], TOKENS) == 0
    clock.now += 61
    assert peers.offered(keys_of(chunks), TOKENS) == 0, "it may have evicted them by now"


def lies(rng: random.Random) -> list[Callable[[Chunk, bytes, bytes], tuple[bytes, bytes]]]:
    """Ways to send what isn't the chunk, each with all that can be made right without the secret."""
    other = chain(1, seed=99)[0]

    def forged(chunk: Chunk, data: bytes, mac: bytes) -> tuple[bytes, bytes]:
        """Other numbers under the right key, in a file that is whole."""
        return encode(replace(chunk, payload=rng.randbytes(len(chunk.payload)))), mac

    def stranger(chunk: Chunk, data: bytes, mac: bytes) -> tuple[bytes, bytes]:
        fake = replace(chunk, payload=bytes(len(chunk.payload)))
        return encode(fake), HandoverKey("b" * 40).mac(chunk.key, fake.digest)

    def flipped(chunk: Chunk, data: bytes, mac: bytes) -> tuple[bytes, bytes]:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :], mac

    return [
        forged,
        stranger,
        flipped,
        lambda chunk, data, mac: (data[: rng.randrange(len(data))], mac),
        lambda chunk, data, mac: (data + b"?", mac),
        lambda chunk, data, mac: (b"", mac),
        lambda chunk, data, mac: (rng.randbytes(len(data)), mac),
        lambda chunk, data, mac: (encode(other), KEY.mac(other.key, other.digest)),  # a right one, of something else
        lambda chunk, data, mac: (encode(other), KEY.mac(chunk.key, other.digest)),  # by somebody with the key
        lambda chunk, data, mac: (data, b""),
        lambda chunk, data, mac: (data, KEY.mac(other.key, chunk.digest)),
    ]


@pytest.mark.parametrize("lie", range(11))
def test_a_chunk_that_lies_is_refused_told_and_its_sender_asked_no_more(
    lie: int, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        clock, chunks = Clock(), chain(4, seed=seed)
        peer = FakePeer(clock, chunks, lambda: 0.001, lambda: 1e9)
        peers = Peers([peer], lambda: 0.1, clock)
        assert fetched(peers, chunks[:1], clock, 0.1) == chunks[:1]
        peer.spoil = lies(rng)[lie]
        with caplog.at_level(logging.WARNING, "llmcrdt.kv"):
            assert fetched(peers, chunks[1:], clock, 0.1) == []
        assert "fake sent" in caplog.text and peers.stats()["refused"] == 1
        del peer.spoil
        clock.now += 1000
        reads, asked = peer.reads, peer.asked
        assert fetched(peers, chunks, clock, 0.1) == [] and (peer.reads, peer.asked) == (reads, asked)
        caplog.clear()


def test_who_sent_what_the_model_does_not_take_is_asked_no_more() -> None:
    clock, chunks = Clock(), chain(3)
    peers = Peers([FakePeer(clock, chunks, lambda: 0.001, lambda: 1e9)], lambda: 0.1, clock)
    assert fetched(peers, chunks[:1], clock, 0.1) == chunks[:1]
    peers.seek(keys_of(chunks), 12)
    peers.distrust(chunks[2].key)
    assert peers.offered(keys_of(chunks), TOKENS) == 3, "that one was evaluated here"
    peers.distrust(chunks[0].key)
    assert peers.offered(keys_of(chunks), TOKENS) == 0


def test_what_is_shown_with_a_question_does_not_vouch_for_chunks() -> None:
    chunk = chain(1)[0]
    assert KEY.vouches(chunk.key, chunk.digest, KEY.mac(chunk.key, chunk.digest))
    known = HandoverKey("an-example-that-nobody-should-use")  # what docs/kv.md says, once more
    assert known.token == "d5c4e3d790a759c7e8203ff842f2d7f80b727f725577339f5ea274ed8f35827e"
    mac = known.mac(ChunkKey(bytes(range(32))), bytes(range(32, 64)))
    assert mac.hex() == "f8ef89a8260961c73eb49d9eaa90d549839736686a091ed3b5be9846081d3bbc"
    answer_mac = known.answer_mac(bytes(range(32)), bytes(8))
    assert answer_mac.hex() == "ac3546ae7d21792652ad86cd2bddd85eeb74f6d611e049893da4b239b472e7a7"
    listener = HandoverKey(KEY.token)
    assert listener.token != KEY.token
    assert not KEY.vouches(chunk.key, chunk.digest, listener.mac(chunk.key, chunk.digest))


def test_keys_are_read_from_a_file_that_is_its_owners_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{'k' * 32}\n\n{'l' * 40}  # old\n")
    file.chmod(0o600)
    tokens = [HandoverKey("k" * 32).token, HandoverKey("l" * 40).token]
    assert [key.token for key in read_handover_keys(file, {})] == tokens
    assert read_handover_keys(file, {"LLMCRDT_KV_KEY": "m" * 32})[0].token == HandoverKey("m" * 32).token
    for spoiled, mode in (("short\n", 0o600), ("# none\n", 0o600), (f"{'k' * 32}\n", 0o640), ("k k " * 20, 0o600)):
        file.write_text(spoiled)
        file.chmod(mode)
        with pytest.raises(InvalidContent):
            read_handover_keys(file, {})
    with pytest.raises(InvalidContent):
        read_handover_keys(tmp_path / "absent", {})
    with pytest.raises(InvalidContent):
        read_handover_keys(None, {})


def test_the_wire_says_keys_and_sizes_and_nothing_else() -> None:
    rng = random.Random(1)
    keys = [ChunkKey(rng.randbytes(32)) for _ in range(5)]
    assert unpack_keys(b"".join(keys)) == keys
    sizes = [rng.randrange(1 << 40) for _ in range(5)]
    assert unpack_sizes(pack_sizes(sizes), 5) == sizes
    for wrong in (b"", b"?" * 31, b"?" * 33, b"?" * 32 * 2049):
        with pytest.raises(ValueError):
            unpack_keys(wrong)
    with pytest.raises(ValueError):
        unpack_sizes(pack_sizes(sizes), 4)


@pytest.mark.parametrize("url", ["", "ftp://host:1", "http://", "http://host:port", "http://host/path", "http://u@h"])
def test_an_address_is_a_host_and_a_port(url: str) -> None:
    with pytest.raises(InvalidContent):
        HttpPeer(url, KEY)
