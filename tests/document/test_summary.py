"""O10: a summary stands in prompts for what it covers; in the transcript everything stays."""

from __future__ import annotations

from collections.abc import Callable

import llmcrdt
from llmcrdt.prompt.messages import messages
from llmcrdt.prompt.token_log import TokenLog, prompt_ids, token_field
from llmcrdt.testing.templates import tokenizers

OpenRepo = Callable[..., llmcrdt.Repo]


def said(conversation: llmcrdt.Conversation) -> list[str]:
    return [str(message["content"]) for message in messages(conversation.transcript()).messages]


def grown(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "sys", tools=[])
    for n in range(3):
        conversation.append("user", f"u{n}")
        conversation.append("assistant", f"a{n}", frame=conversation.transcript())
    return conversation


def test_prompts_hold_the_summary_and_the_transcript_holds_everything(open_repo: OpenRepo) -> None:
    conversation = grown(open_repo)
    second = conversation.transcript()[4]
    summary = conversation.summarize(until=second, text="what was said")
    assert [e.text for e in conversation.transcript()] == ["sys", "u0", "a0", "u1", "a1", "u2", "a2", "what was said"]
    assert said(conversation) == ["sys", "what was said", "u2", "a2"]
    conversation.append("user", "u3")
    assert said(conversation) == ["sys", "what was said", "u2", "a2", "u3"]
    assert conversation.entry(summary).covers is not None
    assert conversation.verify() == []


def test_a_newer_summary_covers_an_older_one(open_repo: OpenRepo) -> None:
    conversation = grown(open_repo)
    conversation.summarize(until=conversation.transcript()[2], text="first")
    conversation.append("user", "u3")
    conversation.summarize(until=conversation.transcript()[-1], text="second")
    assert said(conversation) == ["sys", "second"]
    conversation.append("assistant", "a3", frame=conversation.transcript())
    assert said(conversation) == ["sys", "second", "a3"]


def test_a_summary_in_other_words_covers_what_it_covered(open_repo: OpenRepo) -> None:
    conversation = grown(open_repo)
    summary = conversation.summarize(until=conversation.transcript()[4], text="what was said")
    conversation.append("user", "u3")
    edited = conversation.edit(summary, "in better words")
    assert edited.covers == summary.covers is not None
    assert said(conversation) == ["sys", "in better words", "u2", "a2"]
    conversation.append("user", "shorter", instead_of=edited)
    assert said(conversation) == ["sys", "shorter", "u2", "a2"]
    with conversation.stream("user", instead_of=edited) as stream:
        stream.write("streamed")
    assert said(conversation) == ["sys", "streamed", "u2", "a2"]
    conversation.erase(conversation.transcript()[-1])
    assert said(conversation) == ["sys", "u0", "a0", "u1", "a1", "u2", "a2"]
    conversation.edit(conversation.transcript()[-1], "anew")
    assert said(conversation) == ["sys", "anew", "u2", "a2"]
    assert conversation.verify() == []


def test_what_another_device_wrote_meanwhile_is_not_covered(open_repo: OpenRepo) -> None:
    conversation = grown(open_repo)
    phone = open_repo("phone").join(conversation.id)
    phone.apply(conversation.diff())
    phone.append("user", "from the phone")
    conversation.summarize(until=conversation.transcript()[-1], text="all of it")
    conversation.apply(phone.diff())
    phone.apply(conversation.diff())
    assert said(conversation) == said(phone) == ["sys", "all of it", "from the phone"]


def test_an_edit_of_something_covered_is_not_covered(open_repo: OpenRepo) -> None:
    """The summary speaks of what was there; what somebody says instead of it has to be said."""
    conversation = grown(open_repo)
    first = conversation.transcript()[1]
    conversation.summarize(until=conversation.transcript()[4], text="old")
    conversation.edit(first, "u0 again")
    assert said(conversation) == ["sys", "u0 again"]


def test_token_logs_from_before_a_summary_are_not_continued_and_those_after_it_are(open_repo: OpenRepo) -> None:
    tokenizer = tokenizers()["chatml"]
    conversation = open_repo("laptop").create()

    def generate(text: str) -> tuple[int, ...]:
        prompt = prompt_ids(list(conversation.transcript()), tokenizer, created_at=0)
        sampled = tuple(tokenizer.encode(text, special=False))
        frame = conversation.transcript()
        with conversation.stream("assistant", frame=frame) as stream:
            stream.write(text)
            log = TokenLog(prompt.base, prompt.appended, sampled)
            stream.seal(hidden=lambda version: {"llmcrdt/tokens": token_field(log, tokenizer, version)})
        return (*prompt.ids, *sampled)

    conversation.append("user", "one")
    generate("a1")
    conversation.append("user", "two")
    before = generate("a2")
    conversation.summarize(until=conversation.transcript()[1], text="in short")
    prompt = prompt_ids(list(conversation.transcript()), tokenizer, created_at=0)
    assert prompt.ids[: len(before)] != before
    assert prompt.base is None
    seen = generate("a3")
    conversation.append("user", "three")
    assert prompt_ids(list(conversation.transcript()), tokenizer, created_at=0).ids[: len(seen)] == seen
