"""Vocabularies of real models, where llama-cpp-python's source package is here: text may be cut at control tokens."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.sdist import vocabularies, vocabulary
from llmcrdt.engine.llama.tokenizer import LlamaTokenizer
from llmcrdt.prompt.guard import Guard

PIECES = (
    "the",
    "The",
    " sea",
    "\n",
    "\n\n",
    " ",
    "  ",
    "é",
    "日本",
    '{"a": 1}',
    "user",
    "123",
    "'s",
    "\t",
    "🙂",
    "<",
    "|>",
)
TAKES_SPACE = {"ggml-vocab-phi-3.gguf"}
"""Whose control tokens swallow the white space beside them."""


def words(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.randrange(5)))


def holds(tokenizer: LlamaTokenizer, before: str, control: str, after: str) -> bool:
    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, special=True)

    whole = ids(before + control + after)
    return ids(before) + ids(control + after) == ids(before + control) + ids(after) == whole


def test_text_may_be_cut_at_control_tokens(sdist: Path) -> None:
    """tokenize(a) + tokenize(b) == tokenize(a + b) where a ends, or b begins, with a control token."""
    files = vocabularies(sdist)
    assert files
    for file in files:
        rng, tried = random.Random(file.name), 0
        with vocabulary(file) as tokenizer:
            control = sorted(tokenizer.special)
            while tried < 60:
                before, token, after = words(rng), rng.choice(control), words(rng)
                if file.name in TAKES_SPACE:
                    before, after = before.rstrip(), after.lstrip()
                tried += 1
                assert holds(tokenizer, before, token, after), (file.name, before, token, after)


def test_white_space_beside_a_control_token_is_what_differs(sdist: Path) -> None:
    """So the exception above is one: with white space the rule fails there."""
    for name in TAKES_SPACE:
        with vocabulary(sdist / name) as tokenizer:
            assert not holds(tokenizer, "", "<|end|>", "\nThe")


@pytest.mark.parametrize("name", ["ggml-vocab-llama-bpe.gguf", "ggml-vocab-phi-3.gguf", "ggml-vocab-qwen2.gguf"])
def test_no_words_become_control_tokens(sdist: Path, name: str) -> None:
    rng = random.Random(name)
    with vocabulary(sdist / name) as tokenizer:
        control = sorted(tokenizer.special)
        for _ in range(200):
            text = "".join(rng.choices((*PIECES, *rng.sample(control, 4)), k=6))
            guard = Guard(tokenizer.special, [text])
            ids = guard.encode(guard.restore(guard.text(text)), tokenizer)
            assert not set(ids) & set(tokenizer.special.values()), text
            assert tokenizer.decode(ids).decode().replace(" ", "") == text.replace(" ", "")
