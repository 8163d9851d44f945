"""The tokens of each entry in the next prompt, and how many of them need no evaluation."""

from __future__ import annotations

from collections.abc import Callable

import llmcrdt
from llmcrdt.generation.coverage import coverage
from llmcrdt.kvcache import MemoryCache
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


def test_the_stretches_are_the_next_prompt_and_the_cached_ones_stand_first(
    open_repo: Callable[..., llmcrdt.Repo],
) -> None:
    conversation = open_repo("a").create()
    question = conversation.append("user", "Where shall we go in May? " * 20)
    engine = MemoryEngine(ByteTokenizer(TEMPLATE), MemoryCache(1 << 24))
    try:
        before = coverage(conversation, engine)
        assert sum(each.tokens for each in before) == llmcrdt.plan(conversation, engine).total
        assert sum(each.cached for each in before) == 0
        answer = llmcrdt.generate(conversation, engine, max_tokens=4, seed=1).result(30)
        after, planned = coverage(conversation, engine), llmcrdt.plan(conversation, engine)
        assert sum(each.tokens for each in after) == planned.total
        assert sum(each.cached for each in after) == planned.reused > 0
        assert {each.entry for each in after} >= {question.id, answer.id}
        whole = [each.cached == each.tokens for each in after if each.tokens]
        assert whole == sorted(whole, reverse=True)
    finally:
        engine.close()
