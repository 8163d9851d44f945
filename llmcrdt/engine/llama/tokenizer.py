"""The model's own tokenizer: text to ids and back. ``lib`` is the low-level llama-cpp-python module."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...exceptions import EngineClosed, EngineError


class LlamaTokenizer:
    """Tokenizer of one model. Pure; any thread; until the engine is closed."""

    def __init__(self, lib: Any, model: Any, name: str) -> None:
        self._lib, self._hash = lib, name
        self._lock = threading.Lock()  # held around every call into C, so that close() can't pull the model away
        self._vocab: Any = lib.llama_model_get_vocab(model)
        self._n = int(lib.llama_vocab_n_tokens(self._vocab))
        self._template = (lib.llama_model_chat_template(model, None) or b"").decode("utf-8", "replace")
        self._bos, self._eos = int(lib.llama_vocab_bos(self._vocab)), int(lib.llama_vocab_eos(self._vocab))
        self._add_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._ends: dict[int, bool] = {}
        self._special: dict[str, int] | None = None  # until it is asked for: it takes a pass over the vocabulary

    @property
    def hash(self) -> str:
        return self._hash

    @property
    def n_vocab(self) -> int:
        """How many token ids there are: 0 to ``n_vocab`` - 1."""
        return self._n

    @property
    def chat_template(self) -> str:
        return self._template

    @property
    def bos(self) -> str:
        return self.token_text(self._bos) if self._bos >= 0 else ""

    @property
    def eos(self) -> str:
        return self.token_text(self._eos) if self._eos >= 0 else ""

    @property
    def add_bos(self) -> bool:
        return self._add_bos

    @property
    def special(self) -> Mapping[str, int]:
        if self._special is None:
            with self._lock:
                vocab, lib = self._open(), self._lib
                control = [i for i in range(self._n) if lib.llama_vocab_is_control(vocab, i)]
            self._special = {self.token_text(i): i for i in control}
        return self._special

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Raises EngineError for text that isn't Unicode (half a surrogate pair)."""
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError:
            raise EngineError("The text holds half of a surrogate pair.", hint="Decode its bytes again.") from None
        room = len(data) + 8
        with self._lock:
            while True:
                ids = (ctypes.c_int32 * room)()
                n = self._lib.llama_tokenize(self._open(), data, len(data), ids, room, False, special)
                if n >= 0:
                    return list(ids[:n])
                if n == -(2**31):
                    raise EngineError("The text is too long for llama.cpp's tokenizer.")
                room = -n

    def decode(self, ids: Sequence[int]) -> bytes:
        return b"".join(self._piece(token, False) for token in ids)

    def token_text(self, token: int) -> str:
        return self._piece(token, True).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        self._check(token)
        if token not in self._ends:
            with self._lock:
                self._ends[token] = bool(self._lib.llama_vocab_is_eog(self._open(), token))
        return self._ends[token]

    @contextlib.contextmanager
    def vocabulary(self) -> Iterator[Any]:
        """The pointer, for a call into C that needs it; the model stays as long. Raises EngineClosed."""
        with self._lock:
            yield self._open()

    def close(self) -> None:
        """Let go of the model; it may be freed now."""
        with self._lock:
            self._vocab = None

    def _piece(self, token: int, special: bool) -> bytes:
        piece = self._pieces.get((token, special))
        if piece is None:
            self._check(token)
            with self._lock:
                piece = self._ask(token, special)
            self._pieces[token, special] = piece
        return piece

    def _ask(self, token: int, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = self._lib.llama_token_to_piece(self._open(), token, buffer, room, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def _check(self, token: int) -> None:
        if not 0 <= token < self._n:
            raise EngineError(f"{token} is not a token id of this model: they go from 0 to {self._n - 1}.")

    def _open(self) -> Any:
        if self._vocab is None:
            raise EngineClosed("The engine of this tokenizer is closed.", hint="Open it again.")
        return self._vocab
