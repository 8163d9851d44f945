"""One answer of a provider: transcript -> a whole request -> the response -> the document."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

from ..document.canonical import JSON, parse_json
from ..document.conversation import Conversation
from ..document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta
from ..document.entry import Entry
from ..document.request import Request
from ..exceptions import InvalidContent, LLMCRDTError, ProviderRefused, ProviderUnreachable, ResponseFailed
from ..ids import EntryId
from ..interop.failures import Failure, NextStep, next_step
from ..providers.base import Exchange, Provider, Settings
from ..providers.costs import PRICED
from .events import GenerationStats, Report, Usage, calls_told
from .options import GenerationOptions
from .provider_plan import last_kept, refusal_noted, refused_before, request_for

_ONLY_HERE = ("min_p", "repeat_penalty", "repeat_last_n", "grammar")
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds


class ProviderAnswer:
    """One answer of a model that runs elsewhere. Made for one ``Generation``, which calls ``compute`` on its thread."""

    def __init__(self, conversation: Conversation, provider: Provider, options: GenerationOptions) -> None:
        """Raises InvalidContent for options that the provider's API has none of."""
        self._conversation, self._provider, self._options = conversation, provider, options
        self._settings = settings_of(options, provider)
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._cancelled = threading.Event()
        self._said = False
        self._refused: list[tuple[EntryId, str]] = []
        self._begun = time.monotonic()
        self.stats: GenerationStats = {"attempts": 0}

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._provider.model

    def cancel(self) -> None:
        """Stop; ``compute`` returns what was said. Any thread; harmless when it is over."""
        with self._lock:
            self._cancelled.set()
            if self._exchange is not None:
                self._exchange.cancel()

    def compute(self, report: Report) -> Entry:
        """Ask the provider, and write its answer into the document; ``report`` hears of it. After a failure the next
        step is that of ``interop.failures``. Raises what goes wrong."""
        conversation, instead_of = self._conversation, self._options.instead_of
        on = self._options.on
        since: Entry | EntryId | None = None if instead_of or on else last_kept(conversation, self._provider)
        if self._provider.sealed:
            conversation.check_key()  # before anything is sent, and paid
        known = refused_before(conversation, self._provider)
        without: Collection[tuple[EntryId, str]] = known
        while True:
            request = request_for(conversation, self._provider, instead_of, since=since, without=without, on=on)
            self.stats["left_out"] = [str(line) for line in request.left_out]
            self.stats["attempts"] += 1
            try:
                entry = self._ask(request, report)
            except (ProviderRefused, ProviderUnreachable, ResponseFailed) as error:
                step = self._next_step(error, request)
                if step is None:
                    raise
                self.stats.setdefault("sent_again", []).append(f"{step.why} {step.loses}".rstrip())
                since, without = step.since, {*known, *step.without}
                self._refused = sorted(without - known)
                self._cancelled.wait(step.seconds)
                continue
            self._note(entry, report)
            return entry

    def _next_step(self, error: LLMCRDTError, request: Request) -> NextStep | None:
        """The next request after a failure; None where there is none to be sent without being asked."""
        attempts = self.stats["attempts"]
        step = _step_after(error, request, attempts)
        if step.action == "ask":
            error.hint = f"{step.why} Generate again to have it asked again."
        elif step.loses:
            error.hint = f"The next request would not have {step.loses}."
        again = step.action in ("send", "wait") and step.seconds <= _LONGEST_WAIT
        return step if again and attempts < self._provider.attempts and not self._said else None

    def _ask(self, request: Request, report: Report) -> Entry:
        streams = self._provider.stream or self._options.ask is not None  # an ask's answer begins with its reply
        body = self._provider.body(request.body, self._settings, stream=streams)
        exchange = self._provider.exchange(body)
        with self._lock:
            self._exchange = exchange
            if self._cancelled.is_set():
                exchange.cancel()
        ask = self._ask_stream if streams else self._ask_whole
        return ask(exchange, request, body, report) or self._nothing(request, body)

    def _ask_stream(self, exchange: Exchange, request: Request, body: dict[str, JSON], report: Report) -> Entry | None:
        """The answer as it comes; None where it was cancelled before it began."""
        options = self._options
        answer = self._conversation.stream_response(
            request,
            exchange,
            sent=body,
            sealed=self._provider.sealed,
            author=options.author,
            interval=options.interval,
            beside=self._beside,
            ask=options.ask,
        )
        try:
            for delta in answer:
                if answer.stream is not None:
                    self.stats["entry"] = answer.stream.id
                self._tell(delta, report)
        except ProviderUnreachable:
            if answer.entry is None or answer.entry.status != "complete":  # else it broke off after the end
                raise
        return None if answer.entry is None and exchange.cancelled else answer.result()

    def _tell(self, delta: Delta, report: Report) -> None:
        if isinstance(delta, (TextDelta, ReasoningDelta, CallBegun, CallArguments, CallEnded)):
            self._note_first()
            report(delta)

    def _ask_whole(self, exchange: Exchange, request: Request, body: dict[str, JSON], report: Report) -> Entry | None:
        """The answer when it is whole; None where it was cancelled before."""
        response = exchange.read()
        if exchange.cancelled:
            return None
        author, sealed = self._options.author, self._provider.sealed
        entry = self._conversation.append_response(
            request, response, sent=body, sealed=sealed, author=author, beside=self._beside
        )
        self._note_first()
        if entry.reasoning:
            report(ReasoningDelta(entry.reasoning))
        if entry.text:
            report(TextDelta(entry.text))
        for delta in calls_told(entry):
            report(delta)
        return entry

    def _beside(self, usage: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """The price of the answer, and the fields that were refused before it, to be kept beside its usage."""
        cost = self._provider.cost(usage)
        priced = {} if cost is None else {PRICED: {**cost}}
        return {**priced, **refusal_noted(self._conversation, self._provider, self._refused)}

    def _note_first(self) -> None:
        if not self._said:
            self._said = True
            self.stats["time_to_first_token"] = time.monotonic() - self._begun

    def _nothing(self, request: Request, body: Mapping[str, JSON]) -> Entry:
        """An answer that was stopped before it began."""
        return self._conversation.stream(
            "assistant",
            frame=request.frame,
            instead_of=request.instead_of,
            model={"api": self._provider.api, "name": self._provider.model},
            author=self._options.author or self._provider.model,
            sent=dict(body),
            renderer=request.renderer,
            ask=self._options.ask,
        ).seal("stopped", usage={"finish": "cancelled"})

    def _note(self, entry: Entry, report: Report) -> None:
        self.stats["entry"] = entry.id
        tokens = self._provider.tokens(entry.usage)
        finish = entry.usage.get("finish")
        self.stats["seconds"] = time.monotonic() - self._begun
        self.stats["finish"] = "cancelled" if entry.status == "stopped" else finish if isinstance(finish, str) else ""
        if tokens.prompt is not None:
            self.stats["total"] = tokens.prompt
        if tokens.cached is not None:
            self.stats["reused"] = tokens.cached
        if tokens.output is not None:
            self.stats["sampled"] = tokens.output
        cost = self._provider.cost(entry.usage)
        if cost is not None:
            self.stats["cost"] = cost
        report(Usage(tokens.prompt, tokens.output, tokens.cached, entry.usage))


def _step_after(error: LLMCRDTError, request: Request, attempts: int) -> NextStep:
    if isinstance(error, ProviderRefused):
        body: Any = error.body
        return next_step(Failure(error.status, body, error.retry_after), request)
    if isinstance(error, ResponseFailed):
        given_up: Any = {"error": error.error}
        return next_step(Failure(200, given_up), request)
    if isinstance(error, ProviderUnreachable) and not error.sent:
        seconds = _FIRST_WAIT * 2 ** (attempts - 1)
        return NextStep("wait", "No connection was made.", since=request.since, seconds=seconds)
    return next_step(Failure(None), request)


def settings_of(options: GenerationOptions, provider: Provider) -> Settings:
    """The options as settings of a provider. Raises InvalidContent for those that its API has none of."""
    for name in _ONLY_HERE:
        if name in options.given():
            raise InvalidContent(f"The API {provider.api} has no {name}.", hint="Leave it out, or use an engine.")
    if options.tools not in ("auto", "off"):
        raise InvalidContent(
            f"A provider reads tool calls by itself; tools={options.tools!r} is for an engine.",
            hint='Use tools="off" to offer none.',
        )
    schema = parse_json(options.json_schema) if isinstance(options.json_schema, str) and options.json_schema else None
    if isinstance(options.json_schema, Mapping):
        schema = dict(options.json_schema)
    if schema is not None and not isinstance(schema, dict):
        raise InvalidContent("json_schema is no object.", hint="Pass a JSON Schema.")
    settings = Settings(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logit_bias=options.logit_bias,
        json_schema=schema,
        top_logprobs=options.top_logprobs,
        seed=options.seed,
        stop=tuple(options.stop),
        tools=options.tools != "off",
    )
    provider.check(settings)
    return settings
