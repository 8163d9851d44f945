"""Entries of other devices are evaluated when they arrive, after everything that is asked meanwhile."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import EngineClosed
from llmcrdt.kvcache import NullCache
from llmcrdt.kvcache.chunk_hash import pack_ids
from llmcrdt.prompt.stable import stable_prefix
from llmcrdt.prompt.token_log import TOKENS, Prompt, TokenLog, entry_ends, prompt_ids, token_field
from llmcrdt.testing.models import write_model

OpenRepo = Callable[..., llmcrdt.Repo]
LONG = "There is much to be said for it, and as much against it. " * 8


@pytest.fixture(scope="module", params=["llama", "gemma3", "mamba2", "lfm2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", request.param, quant="F16", context=4096)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", context=4096)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., llmcrdt.LlamaEngine]]:
    engines = []

    def make(model: Path, cache: Any = None) -> llmcrdt.LlamaEngine:
        engines.append(llmcrdt.LlamaEngine(model, cache=cache or tmp_path / "kv", n_threads=1))
        assert engines[-1].settled(60)
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def two(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation]:
    """One conversation on two devices."""
    here = open_repo("laptop").create()
    here.append("system", "You are a guide. " * 10)
    here.append("user", "Where shall we go?")
    there = open_repo("phone").join(here.id)
    there.apply(here.diff())
    return here, there


def counted(engine: llmcrdt.LlamaEngine) -> list[int]:
    """From now on, the number of tokens of each batch that llama_decode is given."""
    batches: list[int] = []
    context: Any = engine._core.model.context
    real = context._decode
    context._decode = lambda tokens, logits: (batches.append(len(tokens)), real(tokens, logits))[1]
    return batches


def windows(ids: Sequence[int], size: int) -> set[tuple[int, ...]]:
    return {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}


def told(conversation: llmcrdt.Conversation, prefetching: llmcrdt.Prefetch) -> None:
    """Wait until observers have heard of all that came, and the engine of what it is to do."""
    heard = threading.Event()
    core_of(conversation).observers.dispatch(heard.set)
    assert heard.wait(60)
    assert prefetching.wait(60)


def test_the_next_turn_starts_at_once_on_what_arrived(model: Path, opened: Any, two: Any) -> None:
    here, there = two
    engine = opened(model)
    llmcrdt.generate(here, engine, max_tokens=5, seed=1).result(60)
    assert engine.settled(60)
    there.apply(here.diff())
    there.append("user", LONG)
    batches = counted(engine)
    before = engine.stats()
    here.apply(there.diff())
    (prefetching,) = core_of(here).turn._prefetchers
    told(here, prefetching)
    assert engine.settled(60)
    after = engine.stats()
    assert after["settled_tokens"] - before["settled_tokens"] == sum(batches) >= 256, "each token is counted"
    assert after["prompt_tokens"] == before["prompt_tokens"]
    plan = llmcrdt.plan(here, engine)
    assert plan.evaluate <= engine.chunk + 1
    generation = llmcrdt.generate(here, engine, max_tokens=1, seed=1)
    generation.result(60)
    assert generation.stats["evaluated"] == plan.evaluate
    assert engine.stats()["prompt_tokens"] - after["prompt_tokens"] == plan.evaluate


def test_what_is_prefetched_is_what_the_next_prompt_begins_with_whoever_writes_it(
    llama: Path, opened: Any, two: Any
) -> None:
    here, _ = two
    engine = opened(llama)
    for step in range(3):
        entries = list(here.transcript())
        ids, marks = stable_prefix(entries, engine.tokenizer, created_at=here.created_at)
        now = prompt_ids(entries, engine.tokenizer, created_at=here.created_at).ids
        assert now[: len(ids)] == ids
        assert len(ids) >= len(now) - 16, "all but the head of the next turn"
        assert list(marks) == sorted(set(marks)) and marks[0] > 0 and marks[-1] <= len(ids)
        if step % 2:
            here.append("user", "Something that nobody foresaw.")
        else:
            llmcrdt.generate(here, engine, max_tokens=12, seed=step).result(60)
        later = prompt_ids(list(here.transcript()), engine.tokenizer, created_at=here.created_at).ids
        assert later[: len(ids)] == ids
    assert stable_prefix([], engine.tokenizer, created_at=0.0) == ((), ())


def test_prefetching_and_pinning_keep_state_where_answering_does(
    model: Path, opened: Any, two: Any, tmp_path: Path
) -> None:
    """Recurrent state is resumed where it was stored, and nowhere else: whoever edits a message needs the end of the
    entry before it."""
    here, _ = two
    for n in range(4):
        here.append("assistant" if n % 2 else "user", f"{n}. {LONG}")
    entries = list(here.transcript())

    def kept(way: str, begin: Callable[[llmcrdt.LlamaEngine, Prompt, Sequence[int]], object]) -> list[int]:
        """Up to where the prompt is reused after an edit, entry by entry."""
        engine = opened(model, tmp_path / way)
        prompt = prompt_ids(entries, engine.tokenizer, created_at=here.created_at)
        ends = entry_ends(prompt, entries, engine.tokenizer)
        begin(engine, prompt, ends)
        assert engine.settled(60)
        return [engine.plan([*prompt.ids[:end], *[401] * 200]).reused for end in ends]

    def answer(engine: llmcrdt.LlamaEngine, prompt: Prompt, ends: Sequence[int]) -> None:
        engine.start(
            prompt.ids, max_tokens=1, sampling=llmcrdt.Sampling(), on_event=lambda e: None, owner="me", marks=ends
        )

    answered = kept("answer", answer)
    assert len(set(answered)) >= 4
    assert kept("prefetch", lambda engine, *_: llmcrdt.prefetch(here, engine, quiet=0.0).wait(60)) == answered
    assert kept("pin", lambda engine, *_: llmcrdt.pin(here, engine)) == answered


def test_what_is_prefetched_is_asked_with_or_without_the_token_log_as_answers_are(
    llama: Path, opened: Any, two: Any, monkeypatch: Any
) -> None:
    here, there = two
    engine = opened(llama)
    prefetched: list[tuple[int, ...]] = []
    monkeypatch.setattr(engine, "prefetch", lambda ids, **more: prefetched.append(tuple(ids)))
    frame = here.transcript()
    prompt = prompt_ids(list(frame), engine.tokenizer, created_at=here.created_at)
    letters = tuple(token for letter in "Sure" for token in engine.tokenizer.encode(letter, special=False))
    with here.stream("assistant", frame=frame) as stream:
        stream.write("Sure")
        log = TokenLog(None, prompt.ids, letters)
        stream.seal(hidden={TOKENS: token_field(log, engine.tokenizer)})
    here.append("user", "And then?")
    entries = list(here.transcript())
    for use_log in (False, True):
        prefetching = llmcrdt.prefetch(here, engine, quiet=0.0, token_log=use_log)
        told(here, prefetching)
        now, other = (
            prompt_ids(entries, engine.tokenizer, created_at=here.created_at, use_log=use).ids
            for use in (use_log, not use_log)
        )
        assert other[: len(prefetched[-1])] != prefetched[-1], "nobody tokenizes letter by letter"
        assert now[: len(prefetched[-1])] == prefetched[-1] and len(prefetched[-1]) >= len(now) - 16
    assert len(prefetched) == 2
    llmcrdt.generate(here, engine, max_tokens=1, token_log=False).result(60)
    there.apply(here.diff())
    there.append("user", "And after that?")
    here.apply(there.diff())
    told(here, prefetching)
    assert [letters in windows(ids, 4) for ids in prefetched] == [False, True, False]
    assert not prefetching.token_log, "as the answer was asked for"


def test_a_waiting_prompt_goes_before_the_next_chunk(llama: Path, opened: Any) -> None:
    """Counted in batches: at most the one that runs is finished."""
    engine = opened(llama)
    batches, gate, entered = counted(engine), threading.Event(), threading.Event()
    context: Any = engine._core.model.context
    real = context._decode

    def slow(tokens: Any, logits: bool) -> None:
        if len(batches) == 2 and not entered.is_set():
            entered.set()
            assert gate.wait(60)
        real(tokens, logits)

    context._decode = slow
    engine.prefetch([300 + n % 200 for n in range(2000)], "a")
    assert entered.wait(60)
    before, done = len(batches), threading.Event()
    at_start: list[int] = []

    def listen(event: Any) -> None:
        if isinstance(event, llmcrdt.engine.base.Started):
            at_start.append(len(batches))
            done.set()

    engine.start([400 + n for n in range(100)], max_tokens=1, sampling=llmcrdt.Sampling(), on_event=listen)
    gate.set()
    assert done.wait(60)
    assert at_start[0] - before == 1 + 2, "the chunk that ran, then the two batches of the prompt"
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] >= 1984, "and it is taken up again"


def test_newer_ids_of_an_owner_take_the_place_of_older(llama: Path, opened: Any) -> None:
    engine = opened(llama)
    gate = threading.Event()
    engine._core.model.worker.submit(lambda: gate.wait(60))
    for seed in range(4):
        engine.prefetch([300 + (seed * 7 + n * (seed + 1)) % 200 for n in range(640)], "a")
    gate.set()
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] <= 640 + 3 * engine.chunk
    assert engine.plan([300 + (3 * 7 + n * 4) % 200 for n in range(642)]).reused == 640


def test_changes_in_a_row_are_looked_at_once(llama: Path, opened: Any, two: Any, monkeypatch: Any) -> None:
    here, there = two
    engine = opened(llama)
    asked: list[int] = []
    prefetch = engine.prefetch
    monkeypatch.setattr(engine, "prefetch", lambda ids, **more: (asked.append(len(ids)), prefetch(ids, **more))[1])
    with llmcrdt.prefetch(here, engine, quiet=0.5) as prefetching:
        for n in range(10):
            there.append("user", f"and {n}")
            here.apply(there.diff())
        told(here, prefetching)
        assert len(asked) <= 3
        assert llmcrdt.prefetch(here, engine) is prefetching
        told(here, prefetching)
        count = len(asked)
        here.append("user", "My own words are asked about at once, if at all.")
    there.append("user", "stopped")
    here.apply(there.diff())
    told(here, prefetching)
    assert len(asked) == count, "nothing for local entries, nothing after stop"


def test_it_ends_with_either_and_keeps_neither_alive(llama: Path, opened: Any, two: Any, tmp_path: Path) -> None:
    here, there = two
    engine = llmcrdt.LlamaEngine(llama, cache=tmp_path / "other", n_threads=1)
    prefetching = llmcrdt.prefetch(here, engine, quiet=0.0)
    assert prefetching.wait(60)
    engine.close()
    there.append("user", LONG)
    here.apply(there.diff())  # nobody hears of the closed engine
    told(here, prefetching)
    with pytest.raises(EngineClosed):
        engine.prefetch([300])
    engine.reopen()
    there.append("user", "and more")
    here.apply(there.diff())
    told(here, prefetching)
    assert engine.settled(60)
    assert llmcrdt.plan(here, engine).reused > 256, "opened again, it is told again"
    gone = weakref.ref(engine)
    del engine
    for _ in range(200):
        gc.collect()
        if gone() is None:
            break
        threading.Event().wait(0.05)
    assert gone() is None
    here.close()


def test_what_is_erased_meanwhile_is_not_prefetched(
    llama: Path, opened: Any, two: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    here, there = two
    engine = opened(llama)
    secret = there.append("user", "the number is 8472 and nobody may know it, " * 10)
    here.apply(there.diff())
    ids = engine.tokenizer.encode(secret.text, special=False)
    prefetch = engine.prefetch

    def erase_and_prefetch(ids: Any, **more: Any) -> None:
        here.erase(secret)
        prefetch(ids, **more)

    monkeypatch.setattr(engine, "prefetch", erase_and_prefetch)
    prefetching = llmcrdt.prefetch(here, engine, quiet=0.0)
    assert prefetching.wait(60)
    assert engine.settled(60)
    runs = {pack_ids(ids[i : i + 6]) for i in range(len(ids) - 6)}
    assert not [f for f in (tmp_path / "kv").rglob("*") if f.is_file() and any(run in f.read_bytes() for run in runs)]


def test_where_nothing_is_kept_another_conversation_costs_nobody_its_live_state(llama: Path, opened: Any) -> None:
    engine = opened(llama, NullCache())
    done = threading.Event()
    mine = [300 + n for n in range(200)]

    def listen(event: Any) -> None:
        if isinstance(event, llmcrdt.engine.base.Finished):
            done.set()

    engine.start(mine, max_tokens=1, sampling=llmcrdt.Sampling(), on_event=listen, owner="me")
    assert done.wait(60)
    engine.prefetch([500 + n % 90 for n in range(300)], "you")
    assert engine.settled(60)
    assert engine.plan(mine).reused == 192
    engine.prefetch(mine + [401] * 100, "me")
    assert engine.settled(60)
    assert engine.plan(mine + [401] * 100).live == 256


def test_generate_can_leave_it(llama: Path, opened: Any, two: Any) -> None:
    here, _ = two
    engine = opened(llama)
    llmcrdt.generate(here, engine, max_tokens=2, warm=False).result(60)
    assert core_of(here).turn._prefetchers == []
