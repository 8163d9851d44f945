"""Turns: answers under way, for those who wait for them over HTTP.

One task reads each generation to its end and translates it into events of its API. Requests read those: one, several
(a retry that names the same key), or none (a response in the background). When the last reader of an answer that is not
in the background has gone, it is stopped, and what was said stays.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...document.canonical import JSON
from ...document.conversation import Conversation
from ...document.entry import Entry
from ...engine.base import Engine
from ...exceptions import LLMCRDTError
from ...generation.events import Ended, GenerationEvent, GenerationStats
from ...generation.generate import generate
from ...generation.generation import Generation
from ...generation.options import GenerationOptions
from ...ids import DocumentId, EntryId
from ...interop.format import Draft
from ...providers.base import Provider
from ...repo.repo import Repo
from .errors import HttpError, error_of
from .keys import Caller
from .limits import HttpLimits
from .placing import Placed, Placer
from .scratch import Scratch
from .sse import Feed

logger = logging.getLogger("llmcrdt.serve.http")

_BUSY = "The server answers as many requests as it may. Ask again in a moment."
LIMITED = ("length", "max_tokens", "max_output_tokens", "MAX_TOKENS")
"""The words of engines and providers for an answer that was as long as it may be."""
_LOOK = 0.005  # seconds between two looks at whether an answer has begun


@dataclass(frozen=True)
class Asked:
    """A request, read. ``after``: the answer that it goes on from; ``at_the_end``: it goes on from all that its
    conversation shows. ``store``: whether anything of it is kept. ``retry``: the key by which a repeat is known, and
    the hash of what was asked."""

    caller: Caller
    model: str
    drafts: Sequence[Draft]
    tools: Sequence[JSON]
    options: GenerationOptions
    conversation: str | None = None
    after: tuple[DocumentId, EntryId] | None = None
    at_the_end: bool = False
    store: bool = True
    background: bool = False
    retry: tuple[str, str] | None = None
    echo: Mapping[str, JSON] = field(default_factory=dict)


class Translator(Protocol):
    """Makes the events of an API of those of a generation."""

    def begin(self) -> Sequence[bytes]: ...

    def take(self, event: GenerationEvent) -> Sequence[bytes]: ...

    def end(self, entry: Entry) -> Sequence[bytes]: ...

    def fail(self, error: HttpError) -> Sequence[bytes]: ...


class Turn:
    """An answer. Used on the server's loop alone. ``entry``: the answer, sealed; ``error``: why there is none."""

    def __init__(self, asked: Asked, placed: Placed, generation: Generation, engine: Engine | Provider) -> None:
        self.asked, self.placed, self.generation, self.engine = asked, placed, generation, engine
        self.id = EntryId(generation.stats["entry"])
        self.created_at = time.time()
        self.feed = Feed()
        self.entry: Entry | None = None
        self.error: HttpError | None = None
        self.cancelled = False
        self._readers = 0

    @property
    def conversation(self) -> Conversation:
        return self.placed.conversation

    @property
    def stats(self) -> GenerationStats:
        return self.generation.stats

    @property
    def ended_by(self) -> str:
        """Why it ended, in the word that engines have for it."""
        finish = self.stats.get("finish", "")
        if not isinstance(self.engine, Provider):
            return finish
        return "length" if finish in LIMITED else "stop" if finish == "stop_sequence" else "end"

    @property
    def sealed(self) -> Entry:
        """The answer. Raises HttpError where there is none."""
        if self.error is not None:
            raise self.error
        assert self.entry is not None
        return self.entry

    def enter(self) -> None:
        """Somebody waits for it."""
        self._readers += 1

    def leave(self) -> None:
        """They have gone."""
        self._readers -= 1
        if self._readers < 1 and not self.feed.ended and not self.asked.background:
            self.cancel()

    def cancel(self) -> None:
        """Stop it; what was said stays."""
        self.cancelled = True
        self.generation.cancel()

    async def run(self, translator: Translator, seconds: float) -> None:
        """Read the generation to its end."""
        timer = asyncio.get_running_loop().call_later(seconds, self.generation.cancel)
        try:
            self.feed.put(*translator.begin())
            async for event in self.generation.events():
                if isinstance(event, Ended):
                    self.entry = event.entry
                    self.feed.put(*translator.end(event.entry))
                else:
                    self.feed.put(*translator.take(event))
                await asyncio.sleep(0)  # a quick model never lets the reader wait, and others want their turn
        except LLMCRDTError as error:
            self.error = error_of(error)
        except Exception:
            logger.exception("The answer %s failed", self.id)
            self.error = HttpError(500, "The server failed. See its log.")
            self.generation.cancel()
        finally:
            timer.cancel()
            if self.error is not None:
                self.feed.put(*translator.fail(self.error))
            self.feed.end()


class Turns:
    """All that run, and the last ones that are over. ``models``: engines and models of providers, by the names that
    requests use."""

    def __init__(self, repo: Repo, models: Mapping[str, Engine | Provider], limits: HttpLimits) -> None:
        self.repo, self.models, self.limits = repo, dict(models), limits
        self.placer, self.scratch = Placer(repo), Scratch()
        self._running: dict[asyncio.Task[None], Turn] = {}
        self._starting = 0
        self._known: dict[tuple[DocumentId, EntryId], Turn] = {}
        self._retries: dict[tuple[str, str], tuple[str, asyncio.Future[Turn]]] = {}
        self._over: deque[Turn] = deque()
        self._over_bytes = 0
        self.bodies = 0
        self.stopping = False

    def find(self, conversation: str, entry: str) -> Turn | None:
        """A turn that runs, or is over since not long ago."""
        return self._known.get((DocumentId(conversation), EntryId(entry)))

    def template(self, model: str) -> str:
        """The chat template of a model; "" for one of a provider. Raises HttpError."""
        engine = self.engine(model)
        return "" if isinstance(engine, Provider) else engine.tokenizer.chat_template

    def engine(self, model: str) -> Engine | Provider:
        """The engine of a model, or the provider that has it. Raises HttpError."""
        if model not in self.models:
            known = ", ".join(self.models)
            raise HttpError(
                404,
                f"The model {model[:80]!r} does not exist here. There are: {known}.",
                code="model_not_found",
                param="model",
            )
        return self.models[model]

    async def start(self, asked: Asked, translate: Callable[[Turn], Translator]) -> Turn:
        """Write what is new of a request, and begin to answer it. A request whose key was used before gets that one's
        answer. Raises HttpError. The caller has entered the turn, and leaves it."""
        if asked.retry is None:
            turn = await self._start(asked, translate)
        else:
            turn = await self._once(asked, asked.retry, translate)
        turn.enter()
        return turn

    async def _once(self, asked: Asked, retry: tuple[str, str], translate: Callable[[Turn], Translator]) -> Turn:
        name, digest = (asked.caller.author, retry[0]), retry[1]
        known = self._retries.get(name)
        if known is not None and not self._is_over(known[1]):
            if known[0] != digest:
                raise HttpError(409, "Another request had this Idempotency-Key.", code="idempotency_error")
            return await asyncio.shield(known[1])
        future: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._retries[name] = digest, future
        try:
            turn = await self._start(asked, translate)
        except BaseException as error:
            self._retries.pop(name, None)
            future.set_exception(error if isinstance(error, HttpError) else HttpError(503, "Ask again."))
            future.exception()  # nobody may wait for it
            raise
        future.set_result(turn)
        return turn

    def _is_over(self, start: asyncio.Future[Turn]) -> bool:
        """Whether a repeat of a request is to be answered anew: the first one failed, or was left."""
        return start.done() and (start.result().cancelled or start.result().error is not None)

    async def _start(self, asked: Asked, translate: Callable[[Turn], Translator]) -> Turn:
        if self.stopping:
            raise HttpError(503, "The server is closing. Ask again.", code="overloaded")
        if len(self._running) + self._starting >= self.limits.requests:
            raise HttpError(429, _BUSY, code="rate_limit_exceeded")
        engine = self.engine(asked.model)
        self._starting += 1
        try:
            placed, generation = await asyncio.shield(asyncio.to_thread(self._begin, asked, engine))
        except LLMCRDTError as error:
            raise error_of(error) from None
        finally:
            self._starting -= 1
        turn = Turn(asked, placed, generation, engine)
        self._known[turn.conversation.id, turn.id] = turn
        task = asyncio.create_task(turn.run(translate(turn), self.limits.seconds))
        self._running[task] = turn
        task.add_done_callback(lambda done: self._ended(done, turn))
        return turn

    def _begin(self, asked: Asked, engine: Engine | Provider) -> tuple[Placed, Generation]:
        """On a thread: this waits for the disk."""
        if asked.store:
            placed = self.placer.place(
                asked.caller,
                asked.drafts,
                asked.tools,
                conversation=asked.conversation,
                after=asked.after,
                at_the_end=asked.at_the_end,
            )
        else:
            placed = self.scratch.place(asked.caller, asked.drafts, asked.tools, self.base(asked))
        try:
            options = replace(asked.options, on=placed.branch, busy="branch", warm=False, author=asked.model)
            generation = generate(placed.conversation, engine, options=options)
            while "entry" not in generation.stats and not generation.done():
                time.sleep(_LOOK)
            if "entry" not in generation.stats:
                generation.result(0)  # raises why
        except BaseException:
            if not asked.store:
                self.scratch.drop(placed.conversation)
            raise
        return placed, generation

    def base(self, asked: Asked) -> Sequence[Entry]:
        """The entries that a request goes on from."""
        named = asked.after[0] if asked.after else asked.conversation
        if named is None:
            return ()
        conversation = self.placer.conversation(asked.caller, named)
        if asked.after is None:
            return tuple(conversation.transcript())
        return self.placer.list_to(conversation, asked.after[1])

    def _ended(self, task: asyncio.Task[None], turn: Turn) -> None:
        self._running.pop(task, None)
        self._over.append(turn)
        self._over_bytes += turn.feed.size
        while len(self._over) > self.limits.kept or self._over_bytes > self.limits.kept_bytes:
            self._forget(self._over.popleft())
        if not turn.asked.store:
            self._known.pop((turn.conversation.id, turn.id), None)
            threading.Thread(target=self.scratch.drop, args=[turn.conversation], daemon=True).start()

    def _forget(self, turn: Turn) -> None:
        """From now on the document alone knows of an answer that is over."""
        self._over_bytes -= turn.feed.size
        self._known.pop((turn.conversation.id, turn.id), None)
        name = (turn.asked.caller.author, turn.asked.retry[0]) if turn.asked.retry else None
        known = self._retries.get(name) if name is not None else None
        if name is not None and known is not None and known[1].done() and known[1].result() is turn:
            del self._retries[name]

    async def stop(self, seconds: float) -> None:
        """Take nothing more; answers have some seconds to end, then they are stopped and kept as they are."""
        self.stopping = True
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)
        for turn in list(self._running.values()):
            turn.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=10)


def digest_of(body: bytes) -> str:
    """A name for a body."""
    return hashlib.sha256(body).hexdigest()
