"""One turn: transcript -> token ids -> plan -> KV state -> sampled tokens -> the document.

A generation only reads and appends through the document: to everybody else it is one more writer. It runs on a thread
of its own; the engine's thread never waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

from ..at_exit import end_at_exit
from ..document.ask import Ask
from ..document.canonical import JSON, canonical_json
from ..document.conversation import Conversation, core_of
from ..document.entry import Entry, Part
from ..document.frame import Frame, sent_hash
from ..document.stream import Stream
from ..engine.base import Engine, Event, Failed, Finished, Progress, Run, Sampled, Sampling, Started
from ..exceptions import EngineClosed, LLMCRDTError, TemplateFailed
from ..ids import EntryId
from ..prompt.answer import Answer
from ..prompt.messages import RENDERER, settings
from ..prompt.token_log import TOKENS, Prompt, TokenLog, entry_ends, prompt_ids, token_field
from ..prompt.tool_calls import TOOL_FORMATS, Piece, ToolFormat, tool_format
from ..repo.kv_caches import forget_erased
from .options import DEFAULT_MAX_TOKENS, Busy, GenerationOptions, check_tools, recorded
from .plan import basis
from .prefetch import attach


def generate(
    conversation: Conversation,
    engine: Engine,
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    temperature: float = 0.8,
    top_k: int = 40,
    top_p: float = 0.95,
    min_p: float = 0.05,
    repeat_penalty: float = 1.0,
    repeat_last_n: int = 64,
    presence_penalty: float = 0.0,
    frequency_penalty: float = 0.0,
    logit_bias: Mapping[int, float] | None = None,
    grammar: str = "",
    json_schema: Mapping[str, JSON] | str = "",
    top_logprobs: int = 0,
    tools: ToolFormat | Literal["auto", "off"] = "auto",
    seed: int | None = None,
    stop: Sequence[str] = (),
    instead_of: Entry | EntryId | None = None,
    author: str | None = None,
    interval: float | None = None,
    busy: Busy = "enqueue",
    warm: bool = True,
    token_log: bool = True,
    ask: Ask | None = None,
) -> Generation:
    """Let a model answer; others see the answer grow. Returns at once, started.

    ``busy``: what to do while this process generates in this conversation already. "enqueue": wait, then answer on the
    transcript as it is by then. "restart": stop the other one, keep what it said, then answer. "branch": answer at
    once, on what is sealed, beside the other one. ``instead_of``:
    answer again on the frame of that answer. ``seed``: None draws one; it is recorded. ``stop``: texts that end the
    answer, and are left out of it. ``grammar`` (GBNF) or ``json_schema``: what the answer must look like.
    ``logit_bias``: token id -> what to add to its logit. ``top_logprobs``: how likely each token was, and so many
    others, is put in ``gen.stats["logprobs"]``. ``tools``: how tool calls are told from text; "auto" goes by the
    model's template, where the conversation offers tools; a template that prints no tools is then refused, while "off"
    answers without them, and a named format leaves it to the prompt to tell of them. ``interval``: seconds between two
    writes to the document, as in ``Conversation.stream``.
    ``warm``: from now on, as long as both are open, what other devices write in this conversation is evaluated when it
    arrives (``llmcrdt.prefetch``). ``token_log``: whether what a model has seen stays as it saw it; otherwise all is
    rendered and tokenized anew, and a template may strip reasoning. ``ask``: the ask that is answered
    (``Conversation.asks``).
    ``result()`` and iterating raise what goes wrong; ``tools`` that are no format raise InvalidContent at once.
    """
    check_tools(tools)
    drawn = secrets.randbits(31) if seed is None else seed
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        repeat_last_n=repeat_last_n,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        logit_bias=dict(logit_bias or {}),
        grammar=grammar,
        json_schema=json_schema if isinstance(json_schema, str) else canonical_json(dict(json_schema)),
        top_logprobs=top_logprobs,
        seed=drawn,
    )
    options = GenerationOptions(
        sampling, max_tokens, tuple(stop), tools, instead_of, author, interval, busy, warm, token_log, ask
    )
    return Generation(conversation, engine, options)


class Generation:
    """A generation under way. ``for piece in gen``, ``async for piece in gen``: the answer's text as it comes, from the
    beginning. ``gen.result()``, ``await gen``: the sealed entry. ``gen.cancel()`` stops it and keeps what was said."""

    def __init__(self, conversation: Conversation, engine: Engine, options: GenerationOptions) -> None:
        """Starts it, on a thread of its own."""
        self._conversation, self._engine, self._options = conversation, engine, options
        self._changed = threading.Condition()
        self._pieces: list[str] = []
        self._done = False
        self._entry: Entry | None = None
        self._error: BaseException | None = None
        self._listeners: list[Callable[[], None]] = []
        self._run: Run | None = None
        self._stream: Stream | None = None
        self._cancelled = False
        self.stats: dict[str, Any] = {}
        """Counts and seconds: total, reused, evaluated, sampled, time_to_first_token, ...; filled in as it goes.

        ``progress``: tokens of the prompt evaluated so far, of so many, in a long prefill. ``tool_format``: how the
        answer is read for tool calls, or None. ``logprobs``: if asked for, for each sampled token its id, its log
        probability, and those of the likeliest.
        """
        self._begun = time.monotonic()
        core_of(conversation).turn.begin(self, cancel_others=options.busy == "restart")
        self._thread = threading.Thread(target=self._work, name="llmcrdt-generation", daemon=True)
        end_at_exit(self, stop=Generation.cancel, finish=lambda self, seconds: self._thread.join(seconds))
        self._thread.start()

    def cancel(self) -> None:
        """Stop. The answer so far is kept, sealed as stopped; ``result()`` returns it. Harmless when it is over."""
        with self._changed:
            self._cancelled = True
            run = self._run
        if run is not None:
            run.cancel()

    def result(self, timeout: float | None = None) -> Entry:
        """Wait for the sealed entry. Raises what went wrong, and TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._done, timeout):
                raise TimeoutError(f"The generation is not over after {timeout} s.")
        return self._outcome()

    def done(self) -> bool:
        with self._changed:
            return self._done

    def __iter__(self) -> Iterator[str]:
        at = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda at=at: self._done or len(self._pieces) > at)  # type: ignore[misc]
                pieces, done = self._pieces[at:], self._done
            yield from pieces
            at += len(pieces)
            if done:
                self._outcome()
                return

    async def __aiter__(self) -> AsyncIterator[str]:
        at = 0
        while True:
            news = self._next_news()
            with self._changed:
                pieces, done = self._pieces[at:], self._done
            for piece in pieces:
                yield piece
            at += len(pieces)
            if done:
                self._outcome()
                return
            await news

    def __await__(self) -> Generator[Any, None, Entry]:
        async def wait() -> Entry:
            while True:
                news = self._next_news()
                if self.done():
                    return self._outcome()
                await news

        return wait().__await__()

    def _next_news(self) -> asyncio.Future[None]:
        """A future of the running loop that the next change ends."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def listener() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        with self._changed:
            self._listeners.append(listener)
        return future

    def _outcome(self) -> Entry:
        if self._error is not None:
            raise self._error
        assert self._entry is not None
        return self._entry

    def _tell(self, piece: str = "", *, done: bool = False) -> None:
        with self._changed:
            if piece:
                self._pieces.append(piece)
            self._done = self._done or done
            listeners, self._listeners = self._listeners, []
            self._changed.notify_all()
        for listener in listeners:
            listener()

    # the generation's own thread

    def _work(self) -> None:
        try:
            core = core_of(self._conversation)
            turn = core.turn if self._options.busy != "branch" else nullcontext()
            with turn, core.host.presence().generating(self._engine.name):
                self._entry = self._generate()
        except BaseException as error:
            self._error = error
            if self._run is not None:
                self._run.cancel()
            if self._stream is not None:  # what was said stays, and anybody may seal it
                with contextlib.suppress(LLMCRDTError):
                    self._stream.seal("failed")
                self._stream.abandon()
        finally:
            core_of(self._conversation).turn.end(self)
            self._tell(done=True)

    def _generate(self) -> Entry:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        beside = self._options.busy == "branch"
        transcript, entries, frame = basis(self._conversation, self._options.instead_of, beside_unfinished=beside)
        prompt = prompt_ids(
            entries, self._engine.tokenizer, created_at=self._conversation.created_at, use_log=self._options.token_log
        )
        self._check_tools(entries)
        frame = _sent(frame, prompt)
        core_of(self._conversation).host.note_engine(self._engine)
        run = self._engine.start(
            prompt.ids,
            max_tokens=self._options.max_tokens,
            sampling=self._options.sampling,
            on_event=events.put,
            owner=self._conversation.id,
            marks=entry_ends(prompt, entries, self._engine.tokenizer),
        )
        with self._changed:
            self._run = run
            cancelled = self._cancelled
        if cancelled:
            run.cancel()
        if self._options.prefetch:
            attach(self._conversation, self._engine, token_log=self._options.token_log)
        stream = self._conversation.stream(
            "assistant",
            frame=transcript,
            frame_as=frame,
            instead_of=self._options.instead_of,
            model={
                "name": self._engine.name,
                "sampling": recorded(self._options.sampling),
                "max_tokens": self._options.max_tokens,
            },
            author=self._options.author or self._engine.name,
            interval=self._options.interval,
            ask=self._options.ask,
        )
        self._stream = stream
        try:
            form = self._form(entries)
            self.stats["tool_format"] = form
            answer = Answer(self._engine.tokenizer, self._options.stop, form, lambda n: _call_id(stream.id, n))
            return self._follow(events, run, stream, prompt, answer)
        finally:
            forget_erased(self._conversation, self._engine, entries)

    def _check_tools(self, entries: Sequence[Entry]) -> None:
        """Raises TemplateFailed where the conversation offers tools that the model would never hear of."""
        from ..prompt.chat_template import takes_tools

        template = self._engine.tokenizer.chat_template
        if self._options.tools == "auto" and settings(entries).tools and not takes_tools(template):
            raise TemplateFailed(
                f"The conversation offers tools, and {self._engine.name} has a chat template without any.",
                hint='Use another model; or tools="off" to answer without them, or, where the prompt itself tells of'
                f" the tools, the format in which it asks for calls: {', '.join(TOOL_FORMATS)}.",
            )

    def _form(self, entries: Sequence[Entry]) -> ToolFormat | None:
        """How this answer is read. Channels are told apart always, calls where tools are offered."""
        if self._options.tools != "auto":
            return None if self._options.tools == "off" else self._options.tools
        form = tool_format(self._engine.tokenizer.chat_template)
        return form if form == "harmony" or settings(entries).tools else None

    def _follow(
        self, events: queue.SimpleQueue[Event], run: Run, stream: Stream, prompt: Prompt, answer: Answer
    ) -> Entry:
        """Write what the engine reports until it is over; then seal."""
        sampled: list[int] = []
        unread = False
        while True:
            match events.get():
                case Progress(done, total):
                    self.stats["progress"] = (done, total)
                    self._tell()
                case Started() as started:
                    self.stats |= {
                        "total": started.reuse.total,
                        "reused": started.reuse.reused,
                        "evaluated": started.reuse.evaluate,
                        "reused_from": {k: getattr(started.reuse, k) for k in ("live", "memory", "disk")},
                        "mode": started.reuse.mode,
                        "prefill_seconds": started.seconds,
                        "seed": started.seed,
                    }
                case Sampled(token, logprob, top):
                    if not sampled:
                        self.stats["time_to_first_token"] = time.monotonic() - self._begun
                    if answer.stopped or unread:
                        continue
                    try:
                        pieces = answer.take(token)
                    except EngineClosed:  # meanwhile; what it sampled last can't be read any more
                        unread = True
                        continue
                    sampled.append(token)
                    if logprob is not None:
                        self.stats.setdefault("logprobs", []).append((token, logprob, top))
                    self._say(stream, pieces)
                    if answer.stopped:
                        run.cancel()
                case Finished(reason):
                    self._say(stream, answer.rest())
                    finish = "stop" if answer.stopped else "cancelled" if unread else reason
                    return self._seal(stream, prompt, sampled, finish, answer.parts())
                case Failed(error):
                    self._say(stream, answer.rest())
                    self._seal(stream, prompt, sampled, "failed", answer.parts())
                    raise error

    def _say(self, stream: Stream, pieces: Sequence[Piece]) -> None:
        for part, words in pieces:
            stream.write(words, part)
            if part == "text":
                self._tell(words)
        if stream.stop_asked:
            self.cancel()

    def _seal(
        self, stream: Stream, prompt: Prompt, sampled: Sequence[int], finish: str, parts: Sequence[Part] | None
    ) -> Entry:
        """The answer with its token log: what was sampled, and the prompt ids since the last logged generation."""
        self.stats |= {"sampled": len(sampled), "finish": finish, "seconds": time.monotonic() - self._begun}
        status: Mapping[str, Literal["complete", "stopped", "failed"]] = {"cancelled": "stopped", "failed": "failed"}

        log = TokenLog(prompt.base, prompt.appended, tuple(sampled))
        hidden = {TOKENS: token_field(log, self._engine.tokenizer, prompt.erased)}
        usage = {"prompt_tokens": len(prompt.ids), "sampled_tokens": len(sampled), "finish": finish}
        return stream.seal(status.get(finish, "complete"), parts=parts, hidden=hidden, usage=usage)


def _call_id(entry: EntryId, number: int) -> str:
    """Nine letters and digits, as some templates want them; another for every call ever made."""
    return hashlib.sha256(f"llmcrdt/call/1 {entry} {number}".encode()).hexdigest()[:9]


def _sent(frame: Frame, prompt: Prompt) -> Frame:
    """The frame with what was really sent: the renderer's name and the hash of the token ids."""
    return replace(frame, renderer=RENDERER, sent=sent_hash(list(prompt.ids)), assumed=False)
