"""The ways to answer prompts that ``kv`` compares, each in a process of its own, so that its memory is its own.

All sample greedily and never end early. The first token counts from the call on; tokens are counted where llama.cpp
decodes; saving is timed where state is taken out of llama.cpp and handed to a cache.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from llmcrdt.engine.base import Event, Failed, Finished, Sampled, Sampling
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache import DiskCache, TieredCache
from llmcrdt.kvcache.owners import FileOwners
from llmcrdt.kvcache.tiered import TieredOwners

ANSWER = 29
N_CTX = 4608
WAYS = ("no cache", "live context", "LlamaRAMCache", "LlamaDiskCache", "llmcrdt")


@dataclass(frozen=True)
class Turn:
    """One answer. Seconds: to the ``first`` token, and ``work`` of processors meanwhile; ``saved`` while somebody waits
    for the answer or the next one; ``aside``, saving on another thread; ``settled``, evaluating in the background what
    was sampled. Tokens: ``evaluated``, and ``planned`` before (None: there is no plan). ``written``: bytes on disk."""

    first: float
    work: float
    evaluated: int
    planned: int | None
    saved: float
    aside: float
    settled: float
    written: int
    said: tuple[int, ...]


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, which a busy machine stretches, and ``work``: those that processors worked for it."""

    clock: float
    work: float


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._clock, self._work = time.perf_counter(), time.process_time()

    def read(self) -> Took:
        return Took(time.perf_counter() - self._clock, time.process_time() - self._work)


class Way(Protocol):
    def answer(self, ids: Sequence[int]) -> Turn: ...
    def evaluate(self, ids: Sequence[int], more: Sequence[int]) -> Took: ...
    def held(self) -> int: ...
    def close(self) -> None: ...


class Remote:
    """A way in its own process. ``restart`` ends that process and starts another."""

    def __init__(self, name: str, model: Path, threads: int, folder: Path) -> None:
        self._arguments = (name, model, threads, folder)
        self._start()

    def answer(self, ids: Sequence[int]) -> Turn:
        turn: Turn = self._ask("answer", list(ids))
        return turn

    def evaluate(self, ids: Sequence[int], more: Sequence[int]) -> Took:
        """The time to evaluate ``more`` after ``ids``, which are live."""
        took: Took = self._ask("evaluate", list(ids), list(more))
        return took

    def held(self) -> int:
        """Bytes of saved state in memory, as the way itself counts them."""
        return int(self._ask("held"))

    def peak(self) -> int:
        """The most memory this process ever had, in bytes; 0 where the system doesn't say."""
        return int(self._ask("peak"))

    def restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        self._ask("close")
        self._process.join()
        self._pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._take()

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        return self._take()

    def _take(self) -> Any:
        good, value = self._pipe.recv()
        if not good:
            raise RuntimeError(f"{self._arguments[0]}: {value}")
        return value


def _serve(pipe: Connection, name: str, model: Path, threads: int, folder: Path) -> None:
    try:
        way: Way = Ours(model, threads, folder / "ours") if name == "llmcrdt" else Peer(name, model, threads, folder)
        calls: dict[str, Callable[..., Any]]
        calls = {"answer": way.answer, "evaluate": way.evaluate, "held": way.held, "peak": _peak, "close": way.close}
        asked, arguments = "", ()
        pipe.send((True, None))
        while asked != "close":
            asked, arguments = pipe.recv()
            pipe.send((True, calls[asked](*arguments)))
    except EOFError:
        pass
    except Exception as error:
        pipe.send((False, repr(error)))


def _peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes where there is no /proc: macOS
    return 0


class _Clock:
    """Adds up the time spent in calls."""

    def __init__(self) -> None:
        self._total = 0.0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._total += time.perf_counter() - began

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.running():
                return call(*arguments, **named)

        return timed

    def take(self) -> float:
        with self._lock:
            total, self._total = self._total, 0.0
        return total


class Ours:
    """LlamaEngine with its two tiers. Clocks stand around what its thread spends on taking state out and handing it
    over, and around what the writer's thread spends: digests, writes, fsync, renames, the notes of owners."""

    def __init__(self, model: Path, threads: int, folder: Path) -> None:
        self._folder = folder
        self._saved, self._aside = _Clock(), _Clock()
        for clock, methods in (
            (self._saved, ((TieredCache, "put"), (TieredOwners, "claim"))),
            (self._aside, ((DiskCache, "put"), (FileOwners, "claim"))),
        ):  # this process has no others
            for kind, name in methods:
                setattr(kind, name, clock.around(getattr(kind, name)))
        self._engine = LlamaEngine(model, folder, n_ctx=N_CTX, n_threads=threads)
        context = self._engine._core.model.context
        context.export = self._saved.around(context.export)  # type: ignore[method-assign]
        _ = self._engine.fingerprint  # the file is hashed, or was before

    def answer(self, ids: Sequence[int]) -> Turn:
        engine, done = self._engine, threading.Event()
        first: list[Took] = []
        last: list[Event] = []

        def hear(event: Event) -> None:
            if isinstance(event, Sampled) and not first:
                first.append(watch.read())
            if isinstance(event, (Finished, Failed)):
                last.append(event)
                done.set()

        ends = {token: -1000.0 for token in engine.tokenizer.special.values() if engine.tokenizer.is_end(token)}
        sampling = Sampling(temperature=0, logit_bias=ends)
        evaluated, size = engine.stats()["prompt_tokens"], folder_bytes(self._folder)
        planned = engine.plan(ids).evaluate
        watch = Stopwatch()
        engine.start(ids, max_tokens=ANSWER, sampling=sampling, on_event=hear, owner="bench")
        done.wait()
        over = time.perf_counter()
        if not isinstance(last[0], Finished):
            raise RuntimeError(last[0])
        engine.settled()
        settled = time.perf_counter() - over
        return Turn(
            first[0].clock,
            first[0].work,
            engine.stats()["prompt_tokens"] - evaluated,
            planned,
            self._saved.take(),
            self._aside.take(),
            settled,
            folder_bytes(self._folder) - size,
            last[0].tokens,
        )

    def evaluate(self, ids: Sequence[int], more: Sequence[int]) -> Took:
        self._engine.logits(ids).result()
        watch = Stopwatch()
        self._engine.logits([*ids, *more]).result()
        return watch.read()

    def held(self) -> int:
        return int(self._engine.stats()["cache"]["memory_held_bytes"])

    def close(self) -> None:
        self._engine.close()


class Peer:
    """llama-cpp-python's Llama: emptied before each answer ("no cache"), as it stands, or with one of its caches."""

    def __init__(self, name: str, model: Path, threads: int, folder: Path) -> None:
        import llama_cpp

        self._name = name
        self._evaluated, self._written = 0, 0
        self._first: Took | None = None
        self._clock = _Clock()
        llama: Any = llama_cpp.Llama(
            str(model), n_ctx=N_CTX, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        vocab = llama._model.vocab
        self._ends = [t for t in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, t)]
        decode = llama._ctx.decode

        def counted(batch: Any) -> None:
            if not self._first:
                self._evaluated += batch.batch.n_tokens
            decode(batch)

        llama._ctx.decode, llama.save_state = counted, self._clock.around(llama.save_state)
        self._cache = self._new_cache(folder / "peer")
        if self._cache is not None:
            llama.set_cache(self._cache)
        self._llama: Any = llama

    def answer(self, ids: Sequence[int]) -> Turn:
        if self._name == "no cache":
            self._llama.reset()
        self._evaluated, self._written, self._first = 0, 0, None
        self._watch = Stopwatch()
        self._llama.create_completion(
            list(ids), max_tokens=ANSWER, temperature=0.0, top_k=1, repeat_penalty=1.0, logits_processor=[self._choose]
        )
        said = tuple(int(token) for token in self._llama.input_ids[len(ids) : self._llama.n_tokens])
        said += (300,) * (ANSWER - len(said))  # the last one was drawn, and never evaluated
        first, saved = self._first or self._watch.read(), self._clock.take()
        return Turn(first.clock, first.work, self._evaluated, None, saved, 0.0, 0.0, self._written, said)

    def evaluate(self, ids: Sequence[int], more: Sequence[int]) -> Took:
        self._llama.n_tokens = len(ids)  # eval goes on from here, and cuts off what stands after
        watch = Stopwatch()
        self._llama.eval(list(more))
        return watch.read()

    def held(self) -> int:
        return int(self._cache.cache_size) if self._name == "LlamaRAMCache" else 0

    def close(self) -> None:
        self._llama.close()

    def _choose(self, ids: Any, scores: Any) -> Any:
        if not self._first:
            self._first = self._watch.read()
        scores[self._ends] = -float("inf")
        return scores

    def _new_cache(self, folder: Path) -> Any:
        """The cache, with a clock around what it does when a turn is over."""
        if self._name not in ("LlamaRAMCache", "LlamaDiskCache"):
            return None
        from llama_cpp import llama_cache

        kind: Any = getattr(llama_cache, self._name)
        way = self

        class Timed(kind):  # type: ignore[misc]
            def __setitem__(self, key: Sequence[int], value: Any) -> None:
                with way._clock.running(), contextlib.redirect_stderr(io.StringIO()):  # it prints its steps
                    super().__setitem__(key, value)
                if way._name == "LlamaDiskCache":
                    way._written += len(value.llama_state) + value.input_ids.nbytes + value.scores.nbytes

        return Timed(capacity_bytes=8 << 30) if self._name == "LlamaRAMCache" else Timed(str(folder), 8 << 30)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def usual_threads() -> int:
    """As many as the engine takes unless told: one core is left to the rest of the program."""
    return max(1, (os.cpu_count() or 2) - 1)
