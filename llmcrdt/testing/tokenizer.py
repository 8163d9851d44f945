"""A tokenizer small enough to see through: one id per byte, then control tokens, then whole words.

Its words make it like a real one where that matters: a text has one canonical encoding (the longest word first), but
many sequences of ids decode to it, as a model's sampled ids do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from ..ids import tagged_hash


class ByteTokenizer:
    """Ids 0-255 are bytes, ``256 + i`` is ``control[i]``, then ``words``. ``end``: control tokens that end a turn."""

    def __init__(
        self,
        chat_template: str,
        control: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
        *,
        end: Sequence[str] = ("<|im_end|>",),
        bos: str = "",
        eos: str = "",
        add_bos: bool = False,
        words: Sequence[str] = (),
    ) -> None:
        self._control = tuple(control)
        self._words = tuple(words)
        self._special = {text: 256 + i for i, text in enumerate(self._control)}
        self._tokens = {word.encode("utf-8"): 256 + len(control) + i for i, word in enumerate(self._words)}
        self._longest = sorted(self._tokens, key=len, reverse=True)
        longest_first = sorted(self._control, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if control else None
        self._end = frozenset(self._special[text] for text in end)
        self._chat_template, self._bos, self._eos, self._add_bos = chat_template, bos, eos, add_bos
        everything = [chat_template, self._control, self._words, sorted(self._end), bos, eos, add_bos]
        self._hash = tagged_hash("llmcrdt/testing/tokenizer/1", json.dumps(everything).encode())

    @property
    def hash(self) -> str:
        return self._hash

    @property
    def chat_template(self) -> str:
        return self._chat_template

    @property
    def bos(self) -> str:
        return self._bos

    @property
    def eos(self) -> str:
        return self._eos

    @property
    def add_bos(self) -> bool:
        return self._add_bos

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    @property
    def n_vocab(self) -> int:
        """How many ids there are."""
        return 256 + len(self._control) + len(self._words)

    def encode(self, text: str, *, special: bool) -> list[int]:
        if not special or self._split is None:
            return self._encode_words(text.encode("utf-8"))
        ids: list[int] = []
        for i, piece in enumerate(self._split.split(text)):
            ids += [self._special[piece]] if i % 2 else self._encode_words(piece.encode("utf-8"))
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join(self._bytes(token) for token in ids)

    def token_text(self, token: int) -> str:
        if 256 <= token < 256 + len(self._control):
            return self._control[token - 256]
        return self._bytes(token).decode("utf-8", errors="replace")

    def is_end(self, token: int) -> bool:
        return token in self._end

    def _bytes(self, token: int) -> bytes:
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"no token {token}")
        if token < 256:
            return bytes([token])
        word = token - 256 - len(self._control)
        return self._words[word].encode("utf-8") if word >= 0 else b""

    def _encode_words(self, data: bytes) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(data):
            word = next((word for word in self._longest if data.startswith(word, at)), None)
            ids.append(data[at] if word is None else self._tokens[word])
            at += len(word or b"1")
        return ids
