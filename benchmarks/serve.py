"""Asking a model through the document: bytes on the wire, tokens evaluated and time to the first word, turn by turn;
several conversations at once; and state that another worker hands over.

A phone without a model asks, a worker answers: two libraries and a relay in a process of its own. Beside it, what a
client of a chat API sends that resends its history, to a server that has it, too, where ``--against`` names one
(``llama-server -m FILE --port N``, or ``python -m llama_cpp.server --model FILE --port N``).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import random
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import llmcrdt
from llmcrdt.cli.plot import text_plot
from llmcrdt.cli.story import Relay
from llmcrdt.cli.turn_costs import QUESTIONS, SYSTEM
from llmcrdt.engine.base import Event, Failed, Finished, Reuse, Sampled, Sampling, Started
from llmcrdt.interop import openai_chat
from llmcrdt.kvcache import HandoverKey, HttpPeer
from llmcrdt.serve import Worker
from llmcrdt.serve.http.kv_server import KvServer
from llmcrdt.testing.models import write_model

from .report import Report, median
from .serve_beside import beside, found

_WAIT = 600.0
_AT = (1, 20, 200)
_SLOTS = (1, 2, 4, 8)
_LONG = 2000  # tokens of a prompt whose state is handed over


@dataclass(frozen=True)
class Turn:
    """``sent``, ``received``: bytes of the phone's link. ``evaluated``: tokens, where llama.cpp decodes, settling
    included. ``first``: seconds from the ask to the first word on the phone. ``resent``: bytes of a request with the
    whole history. ``whole``: tokens of the prompt. ``theirs``: of a server, the first word and tokens evaluated."""

    sent: int
    received: int
    evaluated: int
    first: float
    resent: int
    whole: int
    theirs: tuple[float, int | None] | None = None


@dataclass
class ServeReport(Report):
    turns: list[Turn] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"turns": [vars(turn) for turn in self.turns]}

    def table(self) -> str:
        curves = {
            "bytes of a turn, asked through the document": [float(turn.sent + turn.received) for turn in self.turns],
            "with the whole history in the request": [float(turn.resent) for turn in self.turns],
        }
        return "\n".join([super().table(), *(text_plot(curves) if len(self.turns) > 1 else ())])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="GGUF file (default: a tiny random one: only counts mean something)")
    parser.add_argument("--turns", type=int, default=200, help="turns of the conversation (default 200)")
    parser.add_argument("--tokens", type=int, default=12, help="of an answer (default 12)")
    parser.add_argument("--threads", type=int, default=1, help="of llama.cpp (default 1)")
    parser.add_argument("--against", metavar="URL", help="resend histories to this chat-completions server as well")
    parser.add_argument("--llama-server", type=Path, metavar="FILE", help="to measure beside [default: on the path]")
    parser.add_argument("--prompt", type=int, default=120, help="tokens of each prompt, of several at once (120)")
    parser.add_argument("--rounds", type=int, default=3, help="of several at once, each in turns (default 3)")


def run(options: argparse.Namespace) -> ServeReport:
    report = ServeReport("serve")
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as name:
        folder = Path(name)
        model = options.model or write_model(folder / "tiny.gguf", quant="Q8_0", context=max(2048, 64 * options.turns))
        _conversation(report, folder, model, options)
        _at_once(report, folder, model, options)
        _handed_over(report, folder, model, options)
        program = found(options.llama_server)
        if program is not None and options.model is not None:
            beside(report, folder, model, program, options)
        else:
            why = "no llama-server is here (--llama-server FILE)" if program is None else "a random model says nothing"
            report.notes.append(
                f"Nothing was measured beside llama-server: {why}. It is built from llama-cpp-python's source package:"
                " the target llama-server of vendor/llama.cpp; then give --model FILE.gguf."
            )
    if options.against is None:
        report.notes.append("Nothing was resent to a server: --against names none.")
    return report


def _conversation(report: ServeReport, folder: Path, model: Path, options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        relay = Relay(folder / "relay")
        relay.start()
        stack.callback(relay.stop)
        phone = stack.enter_context(llmcrdt.open(folder / "phone.db", author="phone"))
        desk = stack.enter_context(llmcrdt.open(folder / "desk.db", phone.library, author="desk"))
        link = stack.enter_context(phone.connect(relay.url))
        stack.enter_context(desk.connect(relay.url))
        conversation = phone.create("Lisbon")
        conversation.append("system", SYSTEM)
        link.wait_synced(_WAIT)
        with _engine(model, folder / "kv", options) as engine, Worker(desk, {"model": engine}):
            for n in range(options.turns):
                report.turns.append(_turn(conversation, link, engine, n, options))
        with _engine(model, folder / "kv", options) as engine, Worker(desk, {"model": engine}):
            restarted = _turn(conversation, link, engine, options.turns, options)
        with _engine(model, folder / "cold", options) as engine, Worker(desk, {"model": engine}):
            cold = _turn(conversation, link, engine, options.turns + 1, options)
    _add_turns(report, restarted, cold)


def _add_turns(report: ServeReport, restarted: Turn, cold: Turn) -> None:
    turns = report.turns
    for at in (at for at in _AT if at <= len(turns)):
        turn = turns[at - 1]
        report.add(f"turn {at}: bytes sent and received", turn.sent + turn.received, "bytes")
        report.add(f"turn {at}: bytes of a request with the history", turn.resent, "bytes")
        report.add(f"turn {at}: tokens evaluated, of {turn.whole:,}", turn.evaluated, "tokens")
        report.add(f"turn {at}: first word on the phone", 1000 * turn.first, "ms")
        if turn.theirs is not None:
            report.add(f"turn {at}: first word of the server", 1000 * turn.theirs[0], "ms")
    sent, resent = sum(turn.sent + turn.received for turn in turns), sum(turn.resent for turn in turns)
    report.add(f"all {len(turns)} turns: bytes sent and received", sent, "bytes")
    report.add(f"all {len(turns)} turns: bytes of requests with the history", resent, "bytes")
    report.add(f"all {len(turns)} turns: tokens evaluated", sum(turn.evaluated for turn in turns), "tokens")
    report.add("  without a prefix cache they would be", sum(turn.whole for turn in turns), "tokens")
    theirs = [turn.theirs[1] for turn in turns if turn.theirs is not None and turn.theirs[1] is not None]
    if theirs:
        report.add("  of the server", sum(theirs), "tokens")
    for name, turn in (("restarted", restarted), ("cold", cold)):
        report.add(f"a {name} worker: tokens evaluated, of {turn.whole:,}", turn.evaluated, "tokens")
        report.add(f"a {name} worker: first word on the phone", 1000 * turn.first, "ms")


def _engine(model: Path, cache: Path, options: argparse.Namespace) -> llmcrdt.LlamaEngine:
    engine = llmcrdt.LlamaEngine(model, cache=cache, n_threads=options.threads)
    engine.settled(_WAIT)
    return engine


def _turn(
    conversation: llmcrdt.Conversation,
    link: llmcrdt.Link,
    engine: llmcrdt.LlamaEngine,
    n: int,
    options: argparse.Namespace,
) -> Turn:
    sent, received, before = link.bytes_sent, link.bytes_received, _evaluated(engine)
    began = time.perf_counter()
    settings = {"max_tokens": options.tokens, "temperature": 0.5, "seed": n}
    ask = conversation.ask(QUESTIONS[n % len(QUESTIONS)], settings=settings)
    first = 0.0
    for answer in ask.follow(_WAIT):
        if not first and (answer.text or answer.sealed):
            first = time.perf_counter() - began
    answer = ask.result(_WAIT)
    engine.settled(_WAIT)
    link.wait_synced(_WAIT)
    turn = Turn(
        link.bytes_sent - sent,
        link.bytes_received - received,
        _evaluated(engine) - before,
        first,
        len(_request(conversation)),
        int(answer.usage["prompt_tokens"]),
        _resend(options.against, conversation, options) if options.against else None,
    )
    return turn


def _evaluated(engine: llmcrdt.LlamaEngine) -> int:
    stats = engine.stats()
    return int(stats["prompt_tokens"] + stats["settled_tokens"])


def _request(conversation: llmcrdt.Conversation) -> bytes:
    """The body that a chat-completions client would have sent for the last answer."""
    body = openai_chat.export(list(conversation.transcript())[:-1])
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _resend(url: str, conversation: llmcrdt.Conversation, options: argparse.Namespace) -> tuple[float, int | None]:
    """The same history, without its last answer, to a chat-completions server: seconds to its first word, and the
    tokens that it says to have evaluated."""
    body = json.loads(_request(conversation)) | {"max_tokens": options.tokens, "temperature": 0.5, "stream": True}
    where = urlsplit(url)
    client = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port or 80, timeout=_WAIT)
    began, first, evaluated = time.perf_counter(), 0.0, None
    with contextlib.closing(client):
        headers = {"Content-Type": "application/json"}
        client.request("POST", f"{where.path.rstrip('/')}/v1/chat/completions", json.dumps(body), headers)
        for told in _events(client.getresponse()):
            delta = (told.get("choices") or [{}])[0].get("delta") or {}
            if not first and delta.get("content"):
                first = time.perf_counter() - began
            evaluated = (told.get("timings") or {}).get("prompt_n", evaluated)
    return first or time.perf_counter() - began, evaluated


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        data = line.strip().removeprefix(b"data:").strip()
        if data.startswith(b"{"):
            yield json.loads(data)


class _Listener:
    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = 0.0
        self.done = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Sampled) and not self.first:
            self.first = time.perf_counter() - self.began
        if isinstance(event, (Finished, Failed)):
            self.done.set()


@dataclass(frozen=True)
class _Took:
    """Seconds: of the processor, by the clock, to the last first token."""

    work: float
    clock: float
    last_first: float


def _at_once(report: ServeReport, folder: Path, model: Path, options: argparse.Namespace) -> None:
    """Several prompts that share nothing, given at once to an engine with one slot, and to one with a slot for each."""
    rng = random.Random(7)
    with contextlib.ExitStack() as stack:
        one, many = (
            stack.enter_context(
                llmcrdt.LlamaEngine(model, cache=folder / "many", n_threads=options.threads, slots=slots)
            )
            for slots in (1, max(_SLOTS))
        )
        for engine in (one, many):
            engine.settled(_WAIT)
        for n in _SLOTS:
            took: dict[str, list[_Took]] = {"one": [], "many": []}
            for _ in range(options.rounds):
                for name, engine in (("one", one), ("many", many)):
                    took[name].append(_ask_at_once(engine, n, rng, options))
            for name, words in (("one", "one after the other"), ("many", "at once")):
                runs = took[name]
                report.add(f"{n} {words}: processor time", median([each.work for each in runs]), "s")
                report.add(f"{n} {words}: clock", median([each.clock for each in runs]), "s")
                report.add(f"{n} {words}: last first word", median([each.last_first for each in runs]), "s")


def _ask_at_once(engine: llmcrdt.LlamaEngine, n: int, rng: random.Random, options: argparse.Namespace) -> _Took:
    prompts = [_prompt(engine, rng, options.prompt) for _ in range(n)]
    work, clock = time.process_time(), time.perf_counter()
    listeners = [_Listener() for _ in prompts]
    for ids, listener in zip(prompts, listeners, strict=True):
        engine.start(ids, max_tokens=options.tokens, sampling=Sampling(temperature=0.0), on_event=listener)
    for listener in listeners:
        listener.done.wait(_WAIT)
    took = _Took(time.process_time() - work, time.perf_counter() - clock, max(each.first for each in listeners))
    engine.settled(_WAIT)
    return took


def _prompt(engine: llmcrdt.LlamaEngine, rng: random.Random, length: int) -> Sequence[int]:
    words = ["river", "bridge", "village", "morning", "boat", "hill", "castle", "tram", "rain", "music"]
    text = " ".join(rng.choice(words) for _ in range(length))
    return engine.tokenizer.encode(text, special=False)[:length]


def _handed_over(report: ServeReport, folder: Path, model: Path, options: argparse.Namespace) -> None:
    """A worker with an empty cache is asked to go on from a long prompt that another process has the state of: alone,
    and with that handed over."""
    key = HandoverKey(secrets.token_urlsafe(32))
    took: dict[str, list[tuple[float, float, Reuse]]] = {"cold": [], "handed over": []}
    with contextlib.ExitStack() as stack:
        with _engine(model, folder / "strong", options) as strong:
            ids = [*_prompt(strong, random.Random(11), min(_LONG, strong.n_ctx - 2))]
            _first_token(strong, ids)
            strong.settled(_WAIT)
        peer = HttpPeer(stack.enter_context(_offering(folder / "strong", key)), key)
        for n in range(options.rounds):
            for name, peers in (("cold", ()), ("handed over", (peer,))):
                cache = folder / f"{name}{n}"
                engine = llmcrdt.LlamaEngine(model, cache=cache, n_threads=options.threads, peers=peers)
                with engine:
                    engine.settled(_WAIT)
                    took[name].append(_first_token(engine, ids))
                shutil.rmtree(cache)
    for name, runs in took.items():
        report.add(f"{len(ids):,} tokens, {name}: evaluated", median([each[2].evaluate for each in runs]), "tokens")
        report.add(f"{len(ids):,} tokens, {name}: first token", median([1000 * each[1] for each in runs]), "ms")
        report.add(f"{len(ids):,} tokens, {name}: processor time", median([1000 * each[0] for each in runs]), "ms")


def _first_token(engine: llmcrdt.LlamaEngine, ids: Sequence[int]) -> tuple[float, float, Reuse]:
    """Seconds of the processor and by the clock until there is one, and what was reused."""
    found: list[Started] = []
    done = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            found.append(event)
        if isinstance(event, (Finished, Failed)):
            done.set()

    work, clock = time.process_time(), time.perf_counter()
    engine.start(ids, max_tokens=1, sampling=Sampling(temperature=0.0), on_event=listen)
    done.wait(_WAIT)
    return time.process_time() - work, time.perf_counter() - clock, found[0].reuse


@contextlib.contextmanager
def _offering(folder: Path, key: HandoverKey) -> Iterator[str]:
    """The address of a process that offers the chunks of a cache folder."""
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    process = context.Process(target=_offer, args=(folder, key, told), daemon=True)
    process.start()
    try:
        yield told.get()
    finally:
        process.kill()
        process.join()


def _offer(folder: Path, key: HandoverKey, told: Any) -> None:
    with KvServer(folder, [key]) as server:
        told.put(server.url)
        time.sleep(_WAIT)
