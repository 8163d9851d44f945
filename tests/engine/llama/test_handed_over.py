"""State that another process hands over: the same bits as evaluated here, and never a longer wait than evaluating."""

import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from llmcrdt.engine import speed
from llmcrdt.engine.base import Sampled
from llmcrdt.engine.llama import probe
from llmcrdt.kvcache import Chunk, ChunkCache, ChunkKey, DiskCache, HandoverKey
from llmcrdt.kvcache.chunk_file import encode
from llmcrdt.kvcache.peers import PeerFailed

KEY = HandoverKey("k" * 40)


class FolderPeer:
    """A peer that has what a cache has, at once. ``fails_after``: reads, then it is gone. ``spoil`` changes chunks, and
    vouches for what comes of that: somebody with the key, whose numbers are wrong."""

    name, key = "the other one", KEY

    def __init__(self, cache: ChunkCache, fails_after: int | None = None) -> None:
        self.cache, self.fails_after, self.reads = cache, fails_after, 0
        self.spoil = lambda chunk: chunk

    def have(self, keys: Sequence[ChunkKey], seconds: float) -> list[int]:
        return [header.size if (header := self.cache.header(key)) else 0 for key in keys]

    def read(self, key: ChunkKey, size: int, seconds: float) -> tuple[bytes, bytes]:
        if self.fails_after is not None and self.reads >= self.fails_after:
            raise PeerFailed("gone")
        self.reads += 1
        chunk = self.cache.get(key)
        assert chunk is not None
        sent: Chunk = self.spoil(chunk)
        return encode(sent), KEY.mac(key, sent.digest)

    def close(self) -> None:
        pass


class Pair:
    """A strong engine that has read ``ids``, what its logits were, and its folder as a peer; ``weak``: one with an
    empty cache."""

    def __init__(self, lab, arch: str = "llama", n: int = 700) -> None:
        self.lab, self.model, self.ids = lab, lab.model(arch), lab.tokens(n, seed=n)
        strong = lab.engine(self.model, lab.folder / "strong")
        self.logits = strong.logits(self.ids).result()
        assert strong.settled(60)
        self.made = 0

    def peer(self, **options) -> FolderPeer:
        return FolderPeer(DiskCache(self.lab.folder / "strong" / "chunks"), **options)

    def weak(self, *peers, per_token: float = 10.0, **options):
        self.made += 1
        engine = self.lab.engine(self.model, self.lab.folder / f"weak{self.made}", peers=peers, **options)
        engine._core.model.speed.believe(per_token)
        return engine


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
def test_state_that_is_handed_over_gives_the_same_bits_and_is_planned(lab, arch):
    pair = Pair(lab, arch)
    weak = pair.weak(pair.peer())
    plan = weak.plan(pair.ids)
    assert plan.peer == plan.reused == weak.chunk * ((700 - 2) // weak.chunk)
    outcome = lab.run(weak, pair.ids, 3)
    assert outcome.started.reuse == plan and plan.evaluate <= weak.chunk + 1
    assert (weak.logits(pair.ids).result() == pair.logits).all()
    kept = weak.plan(pair.ids)
    assert (kept.peer, kept.reused) == (0, plan.reused), "it is kept as if it had been evaluated here"
    assert weak.stats()["peers"]["fetched"] == weak.stats()["chunks_fetched"] > 0


def test_what_both_have_is_put_together(lab):
    """The weak one has the beginning; the strong one lost chunks in the middle: those are evaluated, and all after."""
    pair = Pair(lab)
    weak, peer = pair.weak(peer := pair.peer()), peer
    weak.logits(pair.ids[:200]).result()
    weak.logits([5, 5, 5]).result()
    plan = weak.plan(pair.ids)
    assert (plan.memory + plan.disk, plan.peer) == (192, 448)
    keys = weak._core.model.state.keys(pair.ids, weak.fingerprint)
    peer.cache.discard(keys[6])
    fresh = pair.weak(peer)
    assert fresh.plan(pair.ids).peer == 6 * 64
    assert (fresh.logits(pair.ids).result() == pair.logits).all()


def test_nothing_is_fetched_before_the_speed_here_is_known_or_in_fast_mode(lab, monkeypatch):
    pair = Pair(lab, n=200)
    monkeypatch.setattr(speed, "_here", {})
    weak = pair.weak(peer := pair.peer())
    weak._core.model.speed._before = None
    assert weak.plan(pair.ids).peer == 0
    lab.run(weak, pair.ids, 1)
    fast = pair.weak(peer, mode="fast")
    lab.run(fast, pair.ids, 1)
    assert peer.reads == 0


def test_the_speed_is_found_by_the_probe_and_kept(lab, monkeypatch):
    monkeypatch.setattr(probe, "_here", {})
    monkeypatch.setattr(speed, "_here", {})
    first = lab.engine()
    (note,) = (lab.folder / "cache" / "speeds").iterdir()
    assert note.name == first.fingerprint.hex()
    assert float(note.read_text()) == pytest.approx(first._core.model.speed.per_token, rel=1e-3)
    assert first.plan(lab.tokens(100)).seconds is None, "of prompts nothing is known yet"
    note.write_text("0.25\n")
    monkeypatch.setattr(speed, "_here", {})
    assert lab.engine()._core.model.speed.per_token == 0.25
    note.write_text("nan\n")
    monkeypatch.setattr(speed, "_here", {})
    assert lab.engine()._core.model.speed.per_token is None, "a prompt measures it"


def test_a_peer_that_goes_away_in_the_middle_costs_what_it_did_not_give(lab):
    pair = Pair(lab)
    weak = pair.weak(pair.peer(fails_after=4))
    assert weak.plan(pair.ids).peer == 640
    reuse = lab.run(weak, pair.ids, 1).started.reuse
    assert (reuse.peer, reuse.evaluate) == (4 * 64, 700 - 4 * 64)
    assert (weak.logits(pair.ids).result() == pair.logits).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_chunk_that_no_model_takes_is_refused_and_evaluated(lab, seed):
    """By one who has the key: the frame of the payload is checked before llama.cpp sees it, as from disk."""
    rng, pair = random.Random(seed), Pair(lab)
    weak = pair.weak(peer := pair.peer())

    def spoil(chunk: Chunk) -> Chunk:
        if chunk.position != 128:
            return chunk
        payload = bytearray(chunk.payload)
        match seed:
            case 0:
                payload = payload[: rng.randrange(len(payload))]
            case 1:
                payload[16:20] = (1 << 30).to_bytes(4, "little")  # a position
            case 2:
                payload += b"?"
            case 3:
                return replace(chunk, position=chunk.position + 64)
        return replace(chunk, payload=bytes(payload))

    peer.spoil = spoil
    assert (weak.logits(pair.ids).result() == pair.logits).all()
    stats = weak.stats()
    assert stats["peers"]["refused"] == 1 and stats["chunks_rejected_memory"] == 1
    reads = peer.reads
    assert weak.plan(lab.tokens(500, seed=9)).peer == 0
    assert (weak.logits(pair.ids).result() == pair.logits).all() and peer.reads == reads


def test_what_is_fetched_is_claimed_and_forgotten(lab):
    pair = Pair(lab)
    weak = pair.weak(pair.peer())
    lab.run(weak, pair.ids, 1)  # of nobody
    weak.prefetch(pair.ids, "mine")
    assert weak.settled(60)
    other = pair.weak(pair.peer())
    other.prefetch(pair.ids, "mine")
    assert other.settled(60)
    assert other.stats()["settled_tokens"] == 0 and other.stats()["chunks_fetched"] == 700 // 64
    other.forget("mine").result()
    other._core.model.peers._known.clear()
    assert other.plan(pair.ids).reused == 0
    assert not [*(lab.folder / "weak2" / "chunks").glob("*.kv")]


def test_others_get_their_words_while_state_comes(lab):
    """Each chunk that is fetched is a step, as a batch of a prompt is: between two, whoever speaks says a word."""
    pair = Pair(lab)
    peer, said, at = pair.peer(), [], []
    weak = lab.endless(pair.weak(peer, slots=2))
    read = peer.read

    def slowly(key, size, seconds):
        at.append(len(said))
        return read(key, size, seconds)

    peer.read = slowly
    speaks, comes = lab.Outcome(), lab.Outcome()

    def listen(event):
        speaks(event)
        if isinstance(event, Sampled):
            said.append(event)
        if len(said) == 1 and not comes.events:
            weak.start(pair.ids, max_tokens=1, sampling=lab.Sampling(temperature=0.0), on_event=comes)

    weak.start(lab.tokens(20), max_tokens=100, sampling=lab.Sampling(temperature=0.0), on_event=listen)
    assert comes.done.wait(60) and speaks.done.wait(60)
    assert comes.started.reuse.peer == 640 and len(at) == 10
    assert all(before < after for before, after in itertools.pairwise(at))


def test_closing_and_cancelling_end_what_is_asked_for(lab):
    pair = Pair(lab)
    peer = pair.peer()
    weak = pair.weak(peer)
    outcome, read = lab.Outcome(), peer.read

    def cancelled(key, size, seconds):
        run.cancel()
        return read(key, size, seconds)

    peer.read = cancelled
    ready = threading.Event()
    weak._core.model.worker.submit(lambda: ready.wait(60))
    run = weak.start(pair.ids, max_tokens=1, sampling=lab.Sampling(temperature=0.0), on_event=outcome)
    ready.set()
    assert outcome.done.wait(60)
    assert outcome.last.reason == "cancelled" and peer.reads == 1
    ended, asked = threading.Event(), threading.Event()

    def waits(key, size, seconds):
        asked.set()
        assert seconds > 100 and ended.wait(60)
        raise PeerFailed("closed")

    peer.read, peer.close = waits, ended.set
    weak.start(pair.ids, max_tokens=1, sampling=lab.Sampling(temperature=0.0), on_event=lab.Outcome())
    assert asked.wait(60)
    weak.close()
    assert ended.is_set()


def test_nothing_is_asked_for_where_nothing_is_kept_or_where_the_model_is_another_one(lab):
    pair = Pair(lab, n=200)
    weak = pair.weak(peer := pair.peer(), type_k="q8_0", flash_attn=True)
    assert weak.plan(pair.ids).peer == 0, "another fingerprint: other names"
    lab.run(weak, pair.ids, 1)
    assert peer.reads == 0
