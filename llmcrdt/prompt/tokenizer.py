"""What a prompt needs of a tokenizer. Any ``llmcrdt.engine`` tokenizer fits; nothing here imports an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text <-> token ids of one model."""

    @property
    def hash(self) -> str: ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def chat_template(self) -> str: ...

    @property
    def bos(self) -> str: ...

    @property
    def eos(self) -> str: ...

    @property
    def add_bos(self) -> bool: ...

    @property
    def special(self) -> Mapping[str, int]: ...

    def encode(self, text: str, *, special: bool) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> bytes: ...

    def token_text(self, token: int) -> str: ...

    def is_end(self, token: int) -> bool: ...
