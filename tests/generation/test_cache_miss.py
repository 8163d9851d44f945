"""``why`` names every cause, and ``plan`` is what llama_decode is given: over random histories, to the token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.entry import TOKENS
from llmcrdt.kvcache import MemoryCache
from llmcrdt.prompt.token_log import TokenLog, prompt_ids, token_field
from llmcrdt.testing.models import write_model
from llmcrdt.testing.vocabulary import CHAT_TEMPLATE

OpenRepo = Callable[..., llmcrdt.Repo]
DATED = "{{- '<|im_start|>system\\nToday is ' + strftime_now('%d %B %Y') + '<|im_end|>\\n' -}}" + CHAT_TEMPLATE
ARGUED = "{{- '<|im_start|>system\\nMood: ' + (mood or 'calm') + '<|im_end|>\\n' -}}" + CHAT_TEMPLATE
TRIMMED = CHAT_TEMPLATE.replace("(message.content or '')", "(message.content or '')|trim")
LONG = "There is much to be said for it, and as much against it. " * 6
assert TRIMMED != CHAT_TEMPLATE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Model files by template or kind, each made once."""
    folder, made = tmp_path_factory.mktemp("model"), dict[str, Path]()

    def make(template: str = CHAT_TEMPLATE, arch: Any = "llama") -> Path:
        if arch + template not in made:
            made[arch + template] = write_model(
                folder / f"{len(made)}.gguf", arch, chat_template=template, quant="F16", context=4096
            )
        return made[arch + template]

    return make


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., llmcrdt.LlamaEngine]]:
    engines = []

    def make(model: Path, cache: Any = None, **options: Any) -> llmcrdt.LlamaEngine:
        engines.append(llmcrdt.LlamaEngine(model, cache=cache or tmp_path / "kv", n_threads=1, **options))
        engines[-1].tokenizer.is_end = lambda token: False  # type: ignore[method-assign]
        assert engines[-1].settled(60)
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def conversation(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "You are a guide. " * 20)
    conversation.append("user", "Where shall we go?")
    return conversation


def answer(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, **more: Any) -> llmcrdt.Entry:
    entry = llmcrdt.generate(conversation, engine, **{"max_tokens": 12, "seed": 1, "warm": False, **more}).result(60)
    assert engine.settled(60)
    return entry


def said(
    conversation: llmcrdt.Conversation,
    engine: llmcrdt.LlamaEngine,
    words: Sequence[tuple[str, Any]],
    ids: Sequence[int],
) -> llmcrdt.Entry:
    """An answer of these words and parts, sampled as these ids, as its log says."""
    transcript = conversation.transcript()
    prompt = prompt_ids(list(transcript), engine.tokenizer, created_at=conversation.created_at)
    log = TokenLog(prompt.base, prompt.appended, tuple(ids))
    stream = conversation.stream("assistant", frame=transcript)
    for text, part in words:
        stream.write(text, part)
    return stream.seal(hidden={TOKENS: token_field(log, engine.tokenizer)})


def why(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, **more: Any) -> llmcrdt.Why:
    planned = llmcrdt.plan(conversation, engine, **more)
    assert planned.why.position is None or planned.why.cause != "extends"
    assert planned.mode in ("exact", "fast")
    return planned.why


def test_nothing_yet_then_it_extends(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    engine = opened(model())
    assert (why(conversation, engine).cause, why(conversation, engine).missing) == ("first", "")
    answer(conversation, engine)
    conversation.append("user", LONG)
    found = why(conversation, engine)
    assert (found.cause, found.missing, found.missing_tokens) == ("extends", "", 0)


def test_an_edit_a_rival_and_the_way_back(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    engine = opened(model())
    first = answer(conversation, engine)
    rival = answer(conversation, engine, instead_of=first, seed=2)
    conversation.append("user", "And then?")
    answer(conversation, engine)
    tip = conversation.transcript()[-1]
    edited = conversation.edit(conversation.transcript()[1], "Somewhere else?")
    assert (why(conversation, engine).cause, why(conversation, engine).entry) == ("edited", edited.id)
    conversation.select(tip)
    conversation.select(rival)
    answer(conversation, engine)
    conversation.select(first)
    assert why(conversation, engine).cause == "other branch"


def test_concurrent_input_that_comes_first_now(
    conversation: llmcrdt.Conversation, model: Any, opened: Any, open_repo: OpenRepo
) -> None:
    """Another device asked somebody else, who keeps no token log, and later: the transcript begins with that frame."""
    engine = opened(model())
    phone = open_repo("phone").join(conversation.id)
    phone.apply(conversation.diff())
    conversation.append("user", "Mine.")
    answer(conversation, engine)
    for _ in range(3):
        theirs = phone.append("user", "Theirs, which comes before mine.", author="Ann")
        phone.append("assistant", "Said by a provider.", frame=phone.transcript())
    conversation.apply(phone.diff())
    found = why(conversation, engine)
    assert found.cause == "order"
    assert found.entry in [entry.id for entry in conversation.transcript() if entry.author == "Ann"]
    assert "Ann" in str(found)
    assert theirs.id in conversation.transcript().ids


@pytest.mark.parametrize(
    ("template", "config", "cause"),
    [
        (CHAT_TEMPLATE, {"tools": [{"type": "function", "function": {"name": "trains"}}]}, "tools"),
        (DATED, {"date": "2026-01-02"}, "date"),
        (ARGUED, {"template": {"mood": "wild"}}, "settings"),
    ],
)
def test_settings_that_a_template_prints_early(
    conversation: llmcrdt.Conversation, model: Any, opened: Any, template: str, config: Any, cause: str
) -> None:
    engine = opened(model(template))
    first = answer(conversation, engine)
    conversation.append("system", "", **config)
    found = why(conversation, engine)
    assert found.cause == cause
    assert found.position is not None
    assert found.position < first.usage["prompt_tokens"], "in the prompt of then"  # type: ignore[operator]


def test_reasoning_that_a_template_strips(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    """The log keeps it, and says so; asked to render anew, it names the entry that thought."""
    engine = opened(model())
    ids = engine.tokenizer.encode("<think>hm</think>North.", special=False)
    thought = said(conversation, engine, [("hm", "reasoning"), ("North.", "text")], ids)
    conversation.append("user", "And then?")
    assert why(conversation, engine).cause == "extends"
    found = why(conversation, engine, token_log=False)
    assert (found.cause, found.entry) == ("reasoning", thought.id)


def test_the_same_text_in_other_tokens(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    engine = opened(model())
    letters = [token for c in "banana" for token in engine.tokenizer.encode(c, special=False)]
    assert letters != engine.tokenizer.encode("banana", special=False)
    said(conversation, engine, [("banana", "text")], letters)
    conversation.append("user", "And then?")
    assert why(conversation, engine).cause == "extends"
    assert why(conversation, engine, token_log=False).cause == "retokenized"


def test_the_same_entries_printed_otherwise(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    engine = opened(model(TRIMMED))
    said(conversation, engine, [("  north", "text")], engine.tokenizer.encode("  north", special=False))
    conversation.append("user", "And then?")
    assert why(conversation, engine, token_log=False).cause == "rendered"
    generation = llmcrdt.generate(conversation, engine, max_tokens=2, token_log=False, warm=False)
    generation.result(60)
    assert generation.stats["total"] == len(
        prompt_ids(
            list(conversation.transcript())[:-1], engine.tokenizer, created_at=conversation.created_at, use_log=False
        ).ids
    )


def test_what_is_kept_under_another_fingerprint_or_was_evicted_or_is_not_exact(
    conversation: llmcrdt.Conversation, model: Any, opened: Any, tmp_path: Path
) -> None:
    engine = opened(model())
    answer(conversation, engine)
    conversation.append("user", "And then?")
    assert why(conversation, engine).missing == ""
    with opened(model(), type_k="q8_0") as other:
        found = why(conversation, other)
        assert (found.cause, found.missing) == ("extends", "fingerprint")
        assert found.missing_tokens >= 64
        assert "other settings" in str(found)
    with opened(model(), tmp_path / "empty") as elsewhere:
        assert why(conversation, elsewhere).missing == "evicted"
        assert "not in the cache" in str(why(conversation, elsewhere))
    engine._core.settling.settle = lambda *what: iter(())  # as if other prompts were always waiting
    answer(conversation, engine, max_tokens=150)
    conversation.append("user", "And then?")
    found = why(conversation, engine)
    assert (found.cause, found.missing) == ("extends", "not exact")
    assert found.missing_tokens >= 64
    assert "not settled" in str(found)


def test_settled_is_exact_again(conversation: llmcrdt.Conversation, model: Any, opened: Any) -> None:
    engine = opened(model())
    answer(conversation, engine, max_tokens=150)
    conversation.append("user", "And then?")
    assert (why(conversation, engine).cause, why(conversation, engine).missing) == ("extends", "")


def test_a_plan_says_how_long_once_something_was_measured(
    conversation: llmcrdt.Conversation, model: Any, opened: Any
) -> None:
    engine = opened(model())
    assert llmcrdt.plan(conversation, engine).seconds is None
    answer(conversation, engine)
    conversation.append("user", LONG)
    small = llmcrdt.plan(conversation, engine)
    conversation.append("user", LONG * 4)
    large = llmcrdt.plan(conversation, engine)
    assert small.seconds is not None and large.seconds is not None
    assert large.seconds / small.seconds == pytest.approx(large.evaluate / small.evaluate)
    stats = engine.stats()
    assert small.seconds == pytest.approx(small.evaluate * stats["prefill_seconds"] / stats["prompt_tokens"])


def counted(engine: llmcrdt.LlamaEngine) -> Callable[[], int]:
    """How many prompt tokens llama_decode was given since the last call; each is counted by somebody."""
    context: Any = engine._core.model.context
    real, given = context._decode, [0]
    seen = {"prompt_tokens": 0, "all": 0}

    def decode(tokens: Sequence[int], logits: bool) -> None:
        given[0] += len(tokens)
        real(tokens, logits)

    context._decode = decode
    start = dict(context.counters)

    def since() -> int:
        now = context.counters
        total = sum(now[name] - start[name] for name in ("prompt_tokens", "settled_tokens", "sampled_tokens"))
        assert total == given[0], "every token that was decoded is counted, once"
        before, seen["prompt_tokens"] = seen["prompt_tokens"], now["prompt_tokens"] - start["prompt_tokens"]
        return int(seen["prompt_tokens"] - before)

    return since


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
def test_plan_is_what_llama_decode_is_given_over_random_histories(
    model: Any, opened: Any, open_repo: OpenRepo, arch: str, mode: str
) -> None:
    """Turns, edits, rivals, selections, merges, forks, tools, two conversations, small and large caches."""
    rng = random.Random(f"{arch} {mode}")
    cache = MemoryCache(rng.choice([300_000, 3_000_000])) if rng.random() < 0.5 else None
    engine = opened(model(arch=arch), cache, cache_memory=400_000, mode=mode)
    here, other = open_repo("laptop"), open_repo("phone")
    conversations = [here.create("a"), here.create("b")]
    for conversation in conversations:
        conversation.append("user", LONG)
    replicas = {c.id: other.join(c.id) for c in conversations}
    since = counted(engine)
    causes = set()
    for step in range(14):
        conversation = rng.choice(conversations)
        shown = [e for e in conversation.transcript() if e.status != "erased"]
        generated = [e for e in shown if e.frame is not None]
        options: dict[str, Any] = {}
        what = rng.choice(["say", "say", "edit", "rival", "select", "merge", "merge", "fork", "tools", "nothing"])
        if what == "say":
            conversation.append("user", LONG[: rng.randrange(10, 300)])
        elif what == "edit":
            conversation.edit(rng.choice([e for e in shown if e.role == "user"]), f"Changed {step}. {LONG[:100]}")
        elif what == "rival" and generated:
            options["instead_of"] = rng.choice(generated)
        elif what == "select" and len(conversation.transcript().elsewhere):
            conversation.select(rng.choice(conversation.transcript().elsewhere).entry)
        elif what == "merge" and conversation.id in replicas:
            there = replicas[conversation.id]
            if rng.random() < 0.5:
                there.apply(conversation.diff(since=there.version()))
            there.append("user", f"From the phone {step}. {LONG[:120]}")
            conversation.apply(there.diff(since=conversation.version()))
        elif what == "fork" and len(conversations) < 4:
            conversations.append(here.fork(conversation, at=rng.choice(shown)))
        elif what == "tools":
            conversation.append("system", "", tools=[{"type": "function", "function": {"name": f"t{step}"}}])
        assert engine.settled(60)
        since()
        planned = llmcrdt.plan(conversation, engine, **options)
        causes.add(planned.why.cause)
        generation = llmcrdt.generate(
            conversation, engine, max_tokens=rng.randrange(1, 24), seed=step, warm=False, **options
        )
        generation.result(60)
        assert engine.settled(60)
        stats = generation.stats
        assert (planned.total, planned.reused, planned.evaluate) == tuple(
            stats[name] for name in ("total", "reused", "evaluated")
        ), (step, what)
        assert planned.evaluate == since(), (step, what)
        assert planned.mode == stats["mode"] == mode
    assert len(causes) >= 3, "the histories are varied"
