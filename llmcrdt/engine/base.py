"""The Engine protocol: token ids -> KV state -> more token ids. An engine knows no messages and no documents.

Calls come from any thread and are served first come, first served, on the engine's own thread (or process: nothing
here shares memory with the caller beyond the values below).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..tokenizer import Tokenizer

Mode = Literal["exact", "fast"]
"""Whether state is computed canonically, so that a cache changes no bit, or kept as it was computed."""


Missing = Literal["not exact", "fingerprint", "evicted"]
"""Why state is not at hand that was computed once: it was sampled and is not settled yet; it is that of another model,
of other weights or settings; or it was evicted (or never was on this device)."""


@dataclass(frozen=True)
class Reuse:
    """What a prompt costs, in tokens: total = reused + evaluate. ``live`` + ``memory`` + ``disk`` = reused.

    ``seconds``: about how long that takes, by what this engine has measured; None while it has measured nothing.
    """

    total: int
    reused: int
    evaluate: int
    live: int = 0
    memory: int = 0
    disk: int = 0
    mode: Mode = "exact"
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 is greedy; ``seed`` None draws one, reported in ``Started``.

    The penalties look at the last ``repeat_last_n`` tokens; ``repeat_penalty`` divides, 1 is none; the others subtract,
    0 is none. ``logit_bias``: token id -> what to add. ``grammar``: GBNF with a rule ``root``, or ``json_schema``: a
    JSON Schema as text; not both. ``top_logprobs``: of so many likeliest tokens the log probability is reported.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str = ""
    json_schema: str = ""
    top_logprobs: int = 0


@dataclass(frozen=True)
class Started:
    """The prompt is in KV state. ``reuse`` was counted where llama_decode was called, not planned."""

    reuse: Reuse
    seed: int
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """One more token. An end-of-turn token is reported too, then ``Finished``.

    ``logprob``, ``top`` (token and log probability, likeliest first): if ``top_logprobs`` asked for them. They are the
    model's own, before bias, penalties, grammar and temperature.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Finished:
    """``reason``: "end" (an end-of-turn token), "length" (max_tokens or the context is full), "cancelled"."""

    reason: Literal["end", "length", "cancelled"]
    tokens: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Failed:
    error: Exception


@dataclass(frozen=True)
class Progress:
    """Of a long prefill: tokens evaluated so far, of so many."""

    done: int
    total: int


Event = Progress | Started | Sampled | Finished | Failed
"""A run reports Progress*, Started, Sampled*, and last Finished or Failed; Failed or Finished may come first."""


class Run(Protocol):
    """One queued or running generation."""

    def cancel(self) -> None:
        """Ask it to stop, in a prefill too. Returns at once; ``Finished("cancelled")`` follows."""
        ...


class Engine(Protocol):
    @property
    def name(self) -> str:
        """What the model calls itself, for the record."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def n_ctx(self) -> int:
        """The most tokens one sequence may hold."""
        ...

    @property
    def chunk(self) -> int:
        """Only whole chunks of this many tokens are reused."""
        ...

    @property
    def mode(self) -> Mode: ...

    def plan(self, ids: Sequence[int]) -> Reuse:
        """What ``start`` with these ids would evaluate now. Reads token ids and chunk headers only; changes nothing."""
        ...

    def missing(self, ids: Sequence[int], owner: str = "") -> Missing:
        """Why no more of ``ids`` is at hand, where the last prompt of ``owner`` began with them. Reads headers only."""
        ...

    def start(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
        marks: Sequence[int] = (),
    ) -> Run:
        """Queue a generation. ``on_event`` is called on the engine's thread, in order, and must be quick.

        ``marks``: after how many of ``ids`` an entry ends, in order: where a model whose state can't be shortened is
        resumed best. ``owner``: whose words the ids are (a conversation's id, say); ``forget`` finds by it what was
        stored of them.

        Raises ContextOverflow at once if the prompt leaves no room for one more token.
        Afterwards the sampled tokens are settled in the background: re-evaluated canonically and stored.
        """
        ...

    def logits(self, ids: Sequence[int]) -> Future[Any]:
        """Materialize ``ids``; the logits that the next token would be drawn from (numpy float32, n_vocab)."""
        ...

    def prefetch(self, ids: Sequence[int], owner: str = "", marks: Sequence[int] = ()) -> None:
        """Evaluate ``ids`` in the background, a chunk at a time, after whatever else is asked, so that a prompt that
        begins with them starts at once. ``owner``, ``marks``: as for ``start``. Only the newest call counts of those
        for one ``owner``.

        Raises ContextOverflow for more ids than a sequence may hold.
        """
        ...

    def pin(self, ids: Sequence[int], owner: str, marks: Sequence[int] = ()) -> None:
        """Keep the state of ``ids``, evaluating in the background what of it isn't stored; it is not evicted until
        ``unpin(owner)``. In place of what this owner had pinned before. ``marks``: as for ``start``.

        Raises ContextOverflow, and EngineError where the cache can't keep it.
        """
        ...

    def unpin(self, owner: str) -> None:
        """What this owner pinned may be evicted again."""
        ...

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until nothing is queued or being settled. False if that took longer than ``timeout`` seconds."""
        ...

    def forget(self, owner: str) -> Future[int]:
        """Delete all state computed for ``owner``, wherever it is kept: stored chunks at once, before this returns;
        what runs for it now is stored no more, and goes too, with the live state, when the future is done.

        The number of chunks looked for. Raises OSError where a file can't be deleted: then ask again.
        """
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since the engine was opened, counted where llama.cpp decodes."""
        ...

    def close(self) -> None:
        """Cancel what runs, free the model. Twice is harmless."""
        ...
