"""The Engine protocol: token ids -> KV state -> more token ids. An engine knows no messages and no documents.

Calls come from any thread, and return at once unless they say that they wait. The work is done on the engine's
own thread (or process: nothing here shares memory with the caller beyond the values below).

Invariants of every engine:

1. **Served in order.** Runs and ``logits`` are served first come, first served, one at a time. Background
   work (settling, ``prefetch``, ``pin``) gives way to them, after at most one chunk. An engine that has slots for it
   serves several runs at once: then a short prompt may be through before a long one that came first.
2. **Events in order.** A run reports ``Progress*, Started, Sampled*, Finished | Failed``, on the engine's thread; the
   last two may come first. Nothing follows them. A listener that raises hears no more, and its run ends.
3. **Exact.** In exact mode the logits after a prompt, and so the first sampled token, do not depend on what was live,
   stored or evicted: only on the token ids. A cache changes how long it takes, never the answer.
4. **Planned is done.** ``start`` evaluates what ``plan`` has said, unless something else runs or is evicted between
   the two. ``reused`` is a multiple of ``chunk``, and at most ``total - 2`` (in exact mode).
5. **Settled.** After a run its sampled tokens are evaluated again in canonical batches and stored. Until then
   ``missing`` says "not exact" of them; ``settled`` waits for that.
6. **Forgotten.** After ``forget(owner)`` and its future nothing that was computed for ``owner`` before is kept.
7. **Closed.** ``close`` ends what runs with ``Finished("cancelled")``; then everything raises EngineClosed, except
   ``forget``, ``unpin``, ``settled``, ``stats``, ``close`` and the properties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ..tokenizer import Tokenizer

Mode = Literal["exact", "fast"]
"""Whether state is computed canonically, so that a cache changes no bit, or kept as it was computed."""


Missing = Literal["not exact", "fingerprint", "evicted"]
"""Why state is not at hand that was computed once: it was sampled and is not settled yet; it is that of another model,
of other weights or settings; or it was evicted (or never was on this device)."""


@dataclass(frozen=True)
class Reuse:
    """The cost of a prompt, in tokens: total = reused + evaluate. ``live`` + ``memory`` + ``disk`` + ``peer`` = reused;
    ``peer``: of what another process hands over.

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
    peer: int = 0


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
"""A report of a run. The contract says in which order they come."""


class Run(Protocol):
    """One queued or running generation."""

    def cancel(self) -> None:
        """Ask it to stop, in a prefill too. Returns at once; ``Finished("cancelled")`` follows."""
        ...


class Engine(Protocol):
    """The contract is in the module's docstring; ``llmcrdt.testing.engine_suite`` tests an implementation.

    ``owner`` is whose words ids are (a conversation's id, say): ``forget`` finds by it what was stored of them.
    ``marks`` says after how many of the ids an entry ends, in order: where a model whose state can't be shortened is
    resumed best.
    """

    @property
    def name(self) -> str:
        """The name that the model gives itself, for the record."""
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

    @property
    def cache_folder(self) -> Path | None:
        """The folder with stored state that ``llmcrdt.kvcache.forget_owner`` can reach without the engine, so that an
        erase does; None if there is none."""
        ...

    def plan(self, ids: Sequence[int]) -> Reuse:
        """Predict what ``start`` would evaluate now. Reads token ids and chunk headers only; changes nothing."""
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

        Raises ContextOverflow at once if the prompt leaves no room for one more token, EngineError for no ids at all,
        or for a ``sampling`` that can't be followed.
        """
        ...

    def logits(self, ids: Sequence[int]) -> Future[Any]:
        """Evaluate ``ids``; the logits that the next token would be drawn from (numpy float32, one for each token)."""
        ...

    def prefetch(self, ids: Sequence[int], owner: str = "", marks: Sequence[int] = ()) -> None:
        """Evaluate ``ids`` in the background, a chunk at a time, so that a prompt that begins with them starts at once.
        Of calls for one ``owner`` only the newest counts. If no cache keeps it, it is done only for the owner of the
        last run: another one's live state is not given up for it.

        Raises ContextOverflow for more ids than a sequence may hold.
        """
        ...

    def pin(self, ids: Sequence[int], owner: str, marks: Sequence[int] = ()) -> None:
        """Keep the state of ``ids``, evaluating in the background what of it isn't stored; it is not evicted until
        ``unpin(owner)``. In place of what this owner had pinned before.

        Raises ContextOverflow, and EngineError where the cache can't keep it.
        """
        ...

    def unpin(self, owner: str) -> None:
        """End what this owner pinned: it may be evicted again."""
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
