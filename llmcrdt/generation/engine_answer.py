"""One answer of an engine: transcript -> token ids -> plan -> KV state -> sampled tokens -> the document."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ..document.conversation import Conversation, core_of
from ..document.deltas import ReasoningDelta, TextDelta
from ..document.entry import Entry, Part
from ..document.frame import Frame, sent_hash
from ..document.stream import Stream
from ..engine.base import Engine, Event, Failed, Finished, Progress, Run, Sampled, Started
from ..exceptions import EngineClosed, LLMCRDTError, TemplateFailed
from ..ids import EntryId
from ..prompt.answer import Answer
from ..prompt.messages import RENDERER, settings
from ..prompt.token_log import TOKENS, Prompt, TokenLog, entry_ends, prompt_ids, token_field
from ..prompt.tool_calls import TOOL_FORMATS, Piece, ToolFormat, tool_format
from ..repo.kv_caches import forget_erased
from .events import GenerationStats, Report, Usage, calls_told
from .options import DEFAULT_MAX_TOKENS, GenerationOptions, recorded
from .plan import basis
from .prefetch import attach


class EngineAnswer:
    """One answer of a model that runs here. Made for one ``Generation``, which calls ``compute`` on its thread."""

    def __init__(self, conversation: Conversation, engine: Engine, options: GenerationOptions) -> None:
        self._conversation, self._engine, self._options = conversation, engine, options
        self._sampling = options.sampling(secrets.randbits(31))
        self._most = options.max_tokens or DEFAULT_MAX_TOKENS
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._stream: Stream | None = None
        self._cancelled = False
        self._begun = time.monotonic()
        self.stats: GenerationStats = {}

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._engine.name

    def cancel(self) -> None:
        """Stop; ``compute`` returns what was said. Any thread; harmless when it is over."""
        with self._lock:
            self._cancelled = True
            run = self._run
        if run is not None:
            run.cancel()

    def compute(self, report: Report) -> Entry:
        """Have the engine answer, and write it into the document; ``report`` hears of it. Raises what goes wrong: then
        anybody may seal what was said."""
        try:
            return self._compute(report)
        except BaseException:
            self.cancel()
            if self._stream is not None:  # what was said stays, and anybody may seal it
                with contextlib.suppress(LLMCRDTError):
                    self._stream.seal("failed")
                self._stream.abandon()
            raise

    def _compute(self, report: Report) -> Entry:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        options, engine = self._options, self._engine
        transcript, entries, frame = basis(
            self._conversation, options.instead_of, beside_unfinished=options.busy == "branch", on=options.on
        )
        prompt = prompt_ids(
            entries, engine.tokenizer, created_at=self._conversation.created_at, use_log=options.token_log
        )
        self._check_tools(entries)
        frame = _sent(frame, prompt)
        core_of(self._conversation).host.note_engine(engine)
        run = engine.start(
            prompt.ids,
            max_tokens=self._most,
            sampling=self._sampling,
            on_event=events.put,
            owner=self._conversation.id,
            marks=entry_ends(prompt, entries, engine.tokenizer),
        )
        with self._lock:
            self._run = run
            cancelled = self._cancelled
        if cancelled:
            run.cancel()
        if options.warm:
            attach(self._conversation, engine, token_log=options.token_log)
        self._stream = stream = self._conversation.stream(
            "assistant",
            frame=transcript,
            frame_as=frame,
            instead_of=options.instead_of,
            ask=options.ask,
            model={"name": engine.name, "sampling": recorded(self._sampling), "max_tokens": self._most},
            author=options.author or engine.name,
            interval=options.interval,
        )
        self.stats["entry"] = stream.id
        report()
        try:
            form = self._form(entries)
            self.stats["tool_format"] = form
            answer = Answer(engine.tokenizer, options.stop, form, lambda n: _call_id(stream.id, n))
            return self._follow(events, run, stream, prompt, answer, report)
        finally:
            forget_erased(self._conversation, engine, entries)

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
        self,
        events: queue.SimpleQueue[Event],
        run: Run,
        stream: Stream,
        prompt: Prompt,
        answer: Answer,
        report: Report,
    ) -> Entry:
        """Write what the engine reports until it is over; then seal."""
        sampled: list[int] = []
        unread = False
        while True:
            match events.get():
                case Progress(done, total):
                    self.stats["progress"] = (done, total)
                    report()
                case Started() as started:
                    self._note_start(started)
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
                    self._say(stream, pieces, report)
                    if answer.stopped:
                        run.cancel()
                case Finished(reason):
                    self._say(stream, answer.rest(), report)
                    finish = "stop" if answer.stopped else "cancelled" if unread else reason
                    return self._seal(stream, prompt, sampled, finish, answer.parts(), report)
                case Failed(error):
                    self._say(stream, answer.rest(), report)
                    self._seal(stream, prompt, sampled, "failed", answer.parts(), report)
                    raise error

    def _note_start(self, started: Started) -> None:
        reuse = started.reuse
        self.stats |= {
            "total": reuse.total,
            "reused": reuse.reused,
            "evaluated": reuse.evaluate,
            "reused_from": {"live": reuse.live, "memory": reuse.memory, "disk": reuse.disk, "peer": reuse.peer},
            "mode": reuse.mode,
            "prefill_seconds": started.seconds,
            "seed": started.seed,
        }

    def _say(self, stream: Stream, pieces: Sequence[Piece], report: Report) -> None:
        for part, words in pieces:
            stream.write(words, part)
            report(TextDelta(words) if part == "text" else ReasoningDelta(words))
        if stream.stop_asked:
            self.cancel()

    def _seal(
        self,
        stream: Stream,
        prompt: Prompt,
        sampled: Sequence[int],
        finish: str,
        parts: Sequence[Part] | None,
        report: Report,
    ) -> Entry:
        """The answer with its token log: what was sampled, and the prompt ids since the last logged generation."""
        self.stats |= {"sampled": len(sampled), "finish": finish, "seconds": time.monotonic() - self._begun}
        status: Mapping[str, Literal["complete", "stopped", "failed"]] = {"cancelled": "stopped", "failed": "failed"}

        log = TokenLog(prompt.base, prompt.appended, tuple(sampled))
        hidden = {TOKENS: token_field(log, self._engine.tokenizer, prompt.erased)}
        usage = {"prompt_tokens": len(prompt.ids), "sampled_tokens": len(sampled), "finish": finish}
        entry = stream.seal(status.get(finish, "complete"), parts=parts, hidden=hidden, usage=usage)
        for delta in calls_told(entry):
            report(delta)
        report(Usage(len(prompt.ids), len(sampled), self.stats.get("reused"), usage))
        return entry


def _call_id(entry: EntryId, number: int) -> str:
    """Nine letters and digits, as some templates want them; another for every call ever made."""
    return hashlib.sha256(f"llmcrdt/call/1 {entry} {number}".encode()).hexdigest()[:9]


def _sent(frame: Frame, prompt: Prompt) -> Frame:
    """The frame with what was really sent: the renderer's name and the hash of the token ids."""
    return replace(frame, renderer=RENDERER, sent=sent_hash(list(prompt.ids)), assumed=False)
