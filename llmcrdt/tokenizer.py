"""The Tokenizer protocol: text <-> token ids of one model. Pure: the same answer always.

Prompts are made with it and engines have one, so it stands below both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Any thread. Many sequences of ids may decode to one text; ``encode`` gives one of them."""

    @property
    def hash(self) -> str:
        """Names vocabulary, merges and chat template, not weights: quantizations of one model share it."""
        ...

    @property
    def n_vocab(self) -> int:
        """How many token ids there are: 0 to ``n_vocab`` - 1."""
        ...

    @property
    def chat_template(self) -> str:
        """The model's own chat template, Jinja source; "" where it has none."""
        ...

    @property
    def bos(self) -> str:
        """Text of the token that begins a sequence; "" where there is none."""
        ...

    @property
    def eos(self) -> str:
        """Text of the token that ends a sequence; "" where there is none."""
        ...

    @property
    def add_bos(self) -> bool:
        """Whether a prompt of this model begins with the ``bos`` token even if its template doesn't print it."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Control tokens by their text: what must not be smuggled in by a user's words."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Ids of ``text``; ``special`` says whether texts of control tokens become those tokens. Adds nothing."""
        ...

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of ``ids``, control tokens printed as nothing. They need not be whole UTF-8 characters."""
        ...

    def token_text(self, token: int) -> str:
        """The text of one token, control tokens printed in full; undecodable bytes replaced."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether a model that samples this token has finished its turn."""
        ...
