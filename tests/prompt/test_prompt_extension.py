"""With the token log every prompt begins with what the model has seen: the last prompt and what was sampled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.prompt import prompt_ids, sources
from llmcrdt.testing.templates import tokenizers

STYLES = tokenizers()
HELD: dict[str, list[int]] = {style: [0, 0] for style in STYLES}


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_a_prompt_begins_with_what_the_model_saw(grow: Any, style: str, seed: int) -> None:
    tokenizer = STYLES[style]
    talk = grow(seed)
    seen: tuple[int, ...] = ()
    before: tuple[int, ...] | None = None
    if talk.random.random() < 0.5:
        talk.add("system", "Be brief.")
    talk.add("user", "Where is the sea?")
    ends = [token for token in range(256, tokenizer.n_vocab) if tokenizer.is_end(token)]
    for _ in range(4):
        prompt = prompt_ids(talk.entries, tokenizer, created_at=0.0)
        again = prompt_ids(talk.entries, tokenizer, created_at=0.0, use_log=False)
        assert prompt.ids[: len(seen)] == seen
        assert (prompt.logged, prompt.ids[: prompt.logged]) == (len(seen), seen)
        assert again.logged == 0
        if before is not None:
            HELD[style][0] += again.ids[: len(before)] == before
            HELD[style][1] += 1
        spans = sources(prompt, talk.entries, tokenizer)
        assert [0, *(stop for _, _, stop in spans)] == [*(start for _, start, _ in spans), len(prompt.ids)]
        sampled = talk.sample(tokenizer, lambda: talk.random.choice([*ends, None]))
        talk.generated(talk.answer(tokenizer, sampled), prompt, sampled, tokenizer)
        seen = (*prompt.ids, *sampled)
        before = (*again.ids, *sampled)
        for _ in range(talk.random.randrange(4)):
            talk.speak()


def teardown_module() -> None:
    for style, (held, of) in HELD.items():
        print(f"without the log, {style}: {held} of {of} prompts extend the last one")
