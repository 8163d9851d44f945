"""Engine over llama-cpp-python, by its low-level interface. The only import of llama_cpp.

One thread owns the context. What it computes is exact: the logits that a prompt ends with are the same bits, whether
its KV state was live, restored from disk, or computed from nothing (one machine, one build, one set of settings).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ...at_exit import end_at_exit
from ...exceptions import ContextOverflow, DecodeFailed, EngineClosed, EngineError, EngineMissing, NotAModel
from ...kvcache import ChunkCache, MemoryCache, NullCache
from ...kvcache.paths import chunk_folder, exactness_folder, hashes_file, user_cache
from ...kvcache.sharing import open_shared
from ..base import Event, Failed, Finished, Missing, Mode, Progress, Reuse, Sampling, Started
from ..prefill_plan import chunk_length
from ..speed import Speed
from ..worker import Worker
from .context import BATCH, Aborted, AbortFlag, Context
from .fast_state import FastState
from .fingerprint import FileHashes, model_files
from .gguf_header import check_model_file, tokenizer_hash
from .kv_state import KVState
from .model import (
    Settings,
    checked_chunk,
    context_sizes,
    engine_fingerprint,
    keep_log,
    libraries,
    load_adapters,
    load_model,
    metadata,
    new_context,
    shape_of,
    without_flash,
    work_of,
)
from .probe import Exactness, probe, remember, remembered
from .provenance import Provenance
from .run import LlamaRun
from .sampler import Sampler
from .tokenizer import LlamaTokenizer
from .weights import Weights

_FIRST_CTX = 4096
_PARKED = 4  # sequences beside the live one, in fast mode
_PATIENCE = 10.0  # seconds that closing waits for the weights to be hashed, where chunks wait for it
_LOG = logging.getLogger("llmcrdt.engine")
_log_functions: list[Any] = []  # llama.cpp calls the last of them


class LlamaEngine:
    """A model file behind the Engine protocol.

    ``cache``: None for the user's cache directory, a path, or a ChunkCache (``NullCache()`` to keep nothing beyond the
    live context). ``cache_memory`` and ``cache_disk`` are budgets in bytes where the engine makes the cache.
    ``n_threads`` None leaves one core to the rest of the program: llama.cpp waits busily, and crawls where it shares.
    ``n_ctx`` is in tokens; None starts small and grows up to what the model was trained for. ``flash_attn`` None
    leaves it off where that is faster, else to llama.cpp. Rope values of 0 are the model's own. ``chunk``: tokens per
    cached chunk, a multiple of 64. ``lora``: adapter files, or pairs of file and scale. ``mode``: "exact", or "fast":
    the state of sampled tokens is kept as it is, nothing is settled or stored, and what was live shows in the bits.

    Engines on one cache folder in one process share its memory tier. A model file is hashed in the background the first
    time it is seen (about a second per 1.5 GB); until then chunks stay in memory (``stats()["weights"]``).

    Raises EngineMissing, NotAModel, or EngineError for settings that llama.cpp refuses.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        cache: ChunkCache | str | os.PathLike[str] | None = None,
        n_ctx: int | None = None,
        cache_memory: int = 1 << 30,
        cache_disk: int = 8 << 30,
        *,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        offload_kqv: bool = True,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: bool | None = None,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        chunk: int | None = None,
        lora: Sequence[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]] = (),
        mode: Mode = "exact",
    ) -> None:
        self._closed = True  # until all stands; __del__ may come any time
        self._path = Path(model_path)
        self._asked = Settings(
            n_threads or max(1, (os.cpu_count() or 2) - 1),
            n_gpu_layers, offload_kqv, type_k, type_v, flash_attn, rope_freq_base, rope_freq_scale,
            tuple((Path(item[0]), float(item[1])) if isinstance(item, tuple) else (Path(item), 1.0) for item in lora),
        )  # fmt: skip
        self._cache_asked, self._budgets = cache, (cache_memory, cache_disk)
        self._n_ctx_asked, self._chunk_asked = n_ctx, chunk
        if mode not in ("exact", "fast"):
            raise EngineError(f"{mode!r} is not a mode.", hint='It is "exact" or "fast".')
        self._mode = mode
        self._lifecycle = threading.Lock()
        with self._lifecycle:
            self._open()

    def _open(self) -> None:
        """With the lifecycle's lock: who ends the engine waits until it stands."""
        self._lib = lib = _library()
        path, settings = self._path, self._asked
        check_model_file(path)
        self._undo = contextlib.ExitStack()
        with self._undo:
            lasting, memo, give_back = _open_cache(self._cache_asked, *self._budgets)
            self._undo.callback(give_back)
            if not end_at_exit(  # before the cache ends, which is older
                self, stop=LlamaEngine._begin_close, finish=LlamaEngine._await_end, forked=LlamaEngine._lose
            ):
                raise EngineClosed("An engine can't be opened while the program exits.", hint="Open it before.")
            self._folder = memo.parent if memo else None
            files, adapters_files, code = model_files(path), [file for file, _ in settings.lora], libraries(lib)
            try:
                self._weights = weights = Weights([*files, *adapters_files, *code], FileHashes(memo))
            except OSError as error:
                raise NotAModel(f"{error.filename} can't be read: {error.strerror}.") from error
            self._undo.callback(weights.close)
            model = load_model(lib, path, settings)
            self._undo.callback(lib.llama_model_free, model)
            self._tokenizer = LlamaTokenizer(lib, model, tokenizer_hash(files[0]))
            self._undo.callback(self._tokenizer.close)
            self._name = metadata(lib, model, "general.name") or path.stem
            shape = shape_of(lib, model)
            safe = chunk_length(shape.window)
            self._chunk = checked_chunk(self._chunk_asked, shape.window)
            self._n_ctx, first, long_rope = context_sizes(lib, model, self._n_ctx_asked, _FIRST_CTX if safe else None)
            settings = without_flash(lib, model, settings, self._n_ctx)
            adapters = load_adapters(lib, model, settings)
            self._abort = AbortFlag()
            mode = self._mode
            slots = range(2, 2 + _PARKED) if mode == "fast" else ()

            def context(first: int, limit: int) -> Context:
                def make(size: int) -> Any:
                    return new_context(lib, model, settings, size, adapters, 2 + len(slots))

                return Context(lib, make, shape, size=first, limit=limit, piece=self._chunk, abort=self._abort)

            self._context, self._new_context = context(first, self._n_ctx), context
            self._undo.callback(self._context.close)
            weights.loaded()
            chunk, n, m = self._chunk, len(files), len(files) + len(adapters_files)
            self._provenance = known = Provenance(
                weights,
                lasting if safe and mode == "exact" else NullCache(),
                self._budgets[0],
                lambda d: engine_fingerprint(
                    lib, settings, shape, chunk, long_rope, weights=d[:n], lora=d[n:m], engine=d[m:], mode=mode
                ),
            )
            work = work_of(lib, model)
            self._state: KVState | FastState = (
                FastState(self._context, slots)
                if mode == "fast"
                else KVState(self._context, known.cache, known.fingerprint, chunk, work, known.sound)
            )
            self._worker = Worker(f"llmcrdt-engine-{self._name}")
            self._undo = self._undo.pop_all()
        self._speed = Speed()
        self._unsettled: dict[str, tuple[int, ...]] = {}  # by owner: what is not settled of the last run
        self._warming: dict[str, tuple[int, ...]] = {}  # what is to be warmed, by owner
        self._last_owner = ""  # of the last run
        self._forgotten: dict[str, int] = {}  # how often; what began before the last time is not settled
        self._totals = {"runs": 0, "prefill_seconds": 0.0, "sampling_seconds": 0.0}
        # None: nobody has looked yet
        self._exactness: Exactness | None = None if self._mode == "exact" else "approximate"
        self._closed = False
        self._find_exactness()
        weights.hash(_weights_known(weakref.ref(self)))

    @property
    def name(self) -> str:
        return self._name

    @property
    def tokenizer(self) -> LlamaTokenizer:
        return self._tokenizer

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def chunk(self) -> int:
        """Tokens per cached chunk; 1 in fast mode, which reuses what is there to the token."""
        return self._chunk if self._mode == "exact" else 1

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def cache_folder(self) -> Path | None:
        """Where chunks and notes are kept on disk, for ``llmcrdt.kvcache.forget_owner``; None where nowhere."""
        return self._folder

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that differ whenever the KV state of the same tokens could. Waits until the weights are hashed."""
        if not self._closed:
            self._provenance.wait()
        return self._provenance.fingerprint

    @property
    def exactness(self) -> Exactness:
        """Whether state of this model that was restored, cut or evaluated in other batches was the same bits here, with
        these settings: "exact", "approximate" (it was not), or "unknown" (not tried yet; ``settled`` waits for it)."""
        return self._exactness or "unknown"

    @property
    def _exactness_folder(self) -> Path | None:
        return exactness_folder(self._folder) if self._folder else None

    def plan(self, ids: Sequence[int]) -> Reuse:
        planned = self._state.plan(self._checked(ids, room=0))
        return replace(planned, seconds=self._speed.estimate(planned))

    def missing(self, ids: Sequence[int], owner: str = "") -> Missing:
        prompt = self._checked(ids, room=0)
        reused, unsettled = self._state.plan(prompt).reused, self._unsettled.get(owner, ())
        if prompt[: reused + self._chunk] == unsettled[: reused + self._chunk]:
            return "not exact"
        first = prompt[: self._chunk]
        return "fingerprint" if not reused and self._provenance.named_otherwise(owner, first) else "evicted"

    def start(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
        marks: Sequence[int] = (),
    ) -> LlamaRun:
        prompt = self._checked(ids, room=1)
        if not prompt:
            raise EngineError("The prompt holds no tokens.", hint="Send at least one token.")
        run = LlamaRun(prompt, max_tokens, sampling, on_event, owner, tuple(marks))
        run.grammar = _grammar(sampling)
        self._new_sampler(run).close()  # what is wrong with it is said at once
        self._worker.submit(lambda: self._generate(run))
        return run

    def logits(self, ids: Sequence[int]) -> Future[Any]:
        prompt = self._checked(ids, room=0)
        if not prompt:
            raise EngineError("The prompt holds no tokens.", hint="Send at least one token.")
        future: Future[Any] = Future()
        self._worker.submit(lambda: self._answer(prompt, future))
        return future

    def warm(self, ids: Sequence[int], owner: str = "", marks: Sequence[int] = ()) -> None:
        self._warming[owner] = prompt = self._checked(ids, room=0)
        self._worker.background(self._warm(prompt, owner, self._forgotten.get(owner, 0), tuple(marks)))

    def pin(self, ids: Sequence[int], owner: str, marks: Sequence[int] = ()) -> None:
        prompt = self._checked(ids, room=0)
        state, name = self._state, self.fingerprint
        if not isinstance(state, KVState) or not self._provenance.cache.pins.set(owner, state.keys(prompt, name)):
            raise EngineError("The cache keeps nothing.", hint="Open the engine with a cache, in a folder with room.")
        self._worker.background(self._settle(prompt, owner, self._forgotten.get(owner, 0), tuple(marks)))

    def unpin(self, owner: str) -> None:
        self._provenance.cache.pins.drop(owner)

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until the weights are hashed, nothing is queued or being settled, and what was stored is on disk."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        known = self._closed or self._provenance.wait(left())
        return known and self._worker.idle(left()) and self._provenance.flush(left())

    def forget(self, owner: str) -> Future[int]:
        """As the protocol says. Of a closed engine, what is on disk is forgotten all the same."""
        self._forgotten[owner] = self._forgotten.get(owner, 0) + 1
        found = self._provenance.forget(owner)
        future: Future[int] = Future()
        try:
            self._worker.submit(lambda: self._forget_again(owner, found, future))
        except EngineClosed:
            future.set_result(found)
        return future

    def stats(self) -> dict[str, Any]:
        kind = "chunks" if self._mode == "exact" else "sequences"
        return {
            **self._context.counters,
            "mode": self._mode,
            **{f"{kind}_{name}": value for name, value in self._state.counters.items()},
            **self._totals,
            "exactness": self.exactness,
            "weights": self._weights.stats(),
            "cache": self._provenance.stats(),
        }

    def close(self) -> None:
        if self._begin_close():
            self._await_end()

    def _begin_close(self) -> bool:
        """Stop what runs, and let the engine's thread free everything. False where that was begun already."""
        with self._lifecycle:
            if self._closed:
                return False
            self._closed = True
            self._abort.set()
            self._worker.end(self._last_job)
            return True

    def _await_end(self, timeout: float | None = None) -> None:
        """After ``_begin_close``, from whatever thread but the engine's own: wait until everything is freed."""
        if hasattr(self, "_worker"):
            self._worker.join(timeout)

    def _lose(self) -> None:
        """In a forked child, which has no thread of the engine: it is closed there, and nothing of it is touched."""
        self._lifecycle = threading.Lock()
        self._closed = True

    def reopen(self) -> None:
        """Open it again after ``close``, with the settings it was made with; harmless where it is open.

        Counters begin anew. Raises what opening raises, and EngineError on the engine's own thread.
        """
        while self._closed:
            worker = self._worker
            if not worker.join():  # without the lock: a last listener may call close
                raise EngineError("A listener can't reopen the engine that calls it.", hint="Use another thread.")
            with self._lifecycle:
                if self._closed and self._worker is worker:
                    self._open()

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            self.close()

    def _checked(self, ids: Sequence[int], *, room: int) -> tuple[int, ...]:
        if self._closed:
            raise EngineClosed("The engine is closed.", hint="Open it again.")
        prompt = tuple(ids)
        if any(not 0 <= token < self._tokenizer.n_vocab for token in prompt):
            raise DecodeFailed("The prompt holds ids that are not tokens of this model.", hint="Encode it again.")
        if len(prompt) + room > self._n_ctx:
            raise ContextOverflow(
                f"The prompt takes {len(prompt) + room} tokens, the context holds {self._n_ctx}.",
                needed=len(prompt) + room,
                available=self._n_ctx,
                hint="Let a summary stand for older entries (conv.summarize), or open the engine with a larger n_ctx.",
            )
        return prompt

    def _last_job(self) -> None:
        """On the engine's thread: keep what waits for the weights to be known, then free everything."""
        if self._provenance.waiting:
            self._weights.wait(_PATIENCE)
        self._provenance.update()
        self._undo.close()

    def _update(self) -> None:
        """On the engine's thread: go by what is known of the weights now."""
        before = self._provenance.fingerprint
        if self._provenance.update():
            self._state.forget()
        if self._provenance.fingerprint != before and isinstance(self._state, KVState):
            self._state.adopt(self._provenance.cache, self._provenance.fingerprint)
        self._find_exactness()

    def _find_exactness(self) -> None:
        """Once it is known what model this is: what was found of it before, or else a probe when there is time."""
        if self._exactness is not None or not self._provenance.named:
            return
        self._exactness = remembered(self._provenance.fingerprint, self._exactness_folder)
        if self._exactness == "unknown":
            self._worker.background(self._probe(self._provenance.fingerprint))

    def _probe(self, fingerprint: bytes) -> Iterator[None]:
        """In a context of its own, so that what is live stays."""
        equal: bool | None = None
        try:
            with contextlib.closing(self._new_context(BATCH, 2 * BATCH)) as context:
                for step in probe(context, self._chunk, self._tokenizer.n_vocab):
                    equal = step
                    yield
        except (Aborted, EngineError):
            return  # it stays unknown
        self._exactness = "exact" if equal else "approximate"
        remember(fingerprint, self._exactness_folder, self._exactness)
        if not equal:
            _LOG.warning("%s is not exact here: answers may depend on what was cached", self._name)

    def _generate(self, run: LlamaRun) -> None:
        """On the engine's thread: the whole life of one run."""
        began = time.perf_counter()
        self._totals["runs"] += 1
        final: Event
        try:
            with self._working(run):
                reason = self._sample_all(run, began)
            final = Finished(reason, tuple(run.tokens), time.perf_counter() - began)
        except Aborted:
            final = Finished("cancelled", tuple(run.tokens), time.perf_counter() - began)
        except EngineError as error:
            final = Failed(error)
        except Exception as error:
            final = Failed(DecodeFailed(f"The engine failed: {error!r}."))
        if run.tokens and self._mode == "exact":
            self._unsettled[run.owner] = whole = run.ids + tuple(run.tokens)
            marks = (*run.marks, len(run.ids))
            self._worker.background(self._settle(whole, run.owner, self._forgotten.get(run.owner, 0), marks))
        self._report(run, final)

    def _sample_all(self, run: LlamaRun, began: float) -> Any:
        """Prefill, then one token after the other. Returns why it ended."""
        if run.cancelled or self._worker.closing:
            return "cancelled"
        self._update()
        self._last_owner = run.owner
        reuse = self._state.materialize(
            run.ids, run.owner, lambda done, total: self._report(run, Progress(done, total)), run.marks
        )
        prefilled = time.perf_counter()
        self._totals["prefill_seconds"] += prefilled - began
        self._speed.note(reuse, prefilled - began)
        self._report(run, Started(reuse, run.seed, prefilled - began))
        room = min(run.max_tokens, self._n_ctx - len(run.ids))
        sampler = self._new_sampler(run)
        try:
            while len(run.tokens) < room:
                if run.cancelled or run.deaf or self._worker.closing:
                    return "cancelled"
                if run.tokens:
                    self._state.append(run.tokens[-1])
                sampled = sampler.next(self._context.pointer)
                if sampled is None:
                    return "end"
                run.tokens.append(sampled.token)
                self._report(run, sampled)
                if self._tokenizer.is_end(sampled.token):
                    return "end"
            return "length"
        finally:
            sampler.close()
            self._totals["sampling_seconds"] += time.perf_counter() - prefilled

    def _new_sampler(self, run: LlamaRun) -> Sampler:
        with self._tokenizer.vocabulary() as vocab:
            return Sampler(self._lib, vocab, run.sampling, run.seed, run.ids, run.grammar)

    def _answer(self, prompt: tuple[int, ...], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            if self._worker.closing:
                raise EngineClosed("The engine was closed before it came to this.", hint="Open it again.")
            self._update()
            self._state.materialize(prompt)
            future.set_result(self._context.logits())
        except Aborted:
            future.set_exception(EngineClosed("The engine was closed meanwhile.", hint="Open it again."))
        except Exception as error:
            future.set_exception(error)

    def _settle(self, ids: tuple[int, ...], owner: str, forgotten: int, marks: tuple[int, ...]) -> Iterator[None]:
        """Re-evaluate what was sampled, canonically, a chunk per step; until its owner is forgotten once more."""
        with contextlib.suppress(Aborted):
            while self._forgotten.get(owner, 0) == forgotten:
                self._update()
                if not self._state.settle_step(ids, owner, marks):
                    break
                yield
            self._state.thin(ids)
            if self._unsettled.get(owner) is ids:
                del self._unsettled[owner]

    def _warm(self, ids: tuple[int, ...], owner: str, forgotten: int, marks: tuple[int, ...]) -> Iterator[None]:
        """As ``_settle``, until newer ids come. Where nothing is kept, nobody's live state is given up for it."""
        if self._provenance.cache.capacity or owner == self._last_owner or self._mode == "fast":
            for _ in self._settle(ids, owner, forgotten, marks):
                yield
                if self._warming.get(owner) is not ids:
                    return
        if self._warming.get(owner) is ids:
            del self._warming[owner]

    def _forget_again(self, owner: str, found: int, future: Future[int]) -> None:
        """After what ran meanwhile: the live state, and what that stored."""
        self._forgotten[owner] += 1  # what ran meanwhile has left something to settle
        if not self._worker.closing:
            self._state.forget()
        try:
            future.set_result(max(found, self._provenance.forget(owner)))
        except OSError as error:
            future.set_exception(error)

    @contextlib.contextmanager
    def _working(self, run: LlamaRun) -> Iterator[None]:
        run.running(self._abort.set)
        try:
            yield
        finally:
            run.running(None)
            if not self._closed:
                self._abort.clear()

    @staticmethod
    def _report(run: LlamaRun, event: Event) -> None:
        """Tell the listener. One that fails hears no more, and its run stops: nobody waits for it."""
        if run.deaf:
            return
        try:
            run.on_event(event)
        except Exception:
            run.deaf = True
            _LOG.exception("a listener of the engine failed")


def _weights_known(engine: weakref.ref[LlamaEngine]) -> Callable[[], None]:
    """What the hashing thread calls at its end. It keeps no engine alive that nobody uses."""

    def known() -> None:
        if (there := engine()) is not None:
            there._worker.submit(there._update)

    return known


def _library() -> Any:
    """The low-level module, with llama.cpp's log kept instead of printed. Raises EngineMissing."""
    try:
        import numpy  # noqa: F401
        from llama_cpp import llama_cpp as lib
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineMissing(
            f"llama-cpp-python can't be used: {error}.", hint="Install it: pip install 'llmcrdt[llama]'"
        ) from error
    if not _log_functions:
        _log_functions.append(lib.llama_log_callback(keep_log))
        lib.llama_backend_init()
        end_at_exit(lib, finish=_end_log)
    lib.llama_log_set(_log_functions[-1], None)  # each time: others in the process may have set their own
    return lib


def _end_log(lib: Any, seconds: float) -> None:
    """llama.cpp outlives the interpreter, and may log to its last moment: not through Python any more.

    C's own ``abs`` does nothing with the first argument, a number, and doesn't look at the others.
    """
    nothing = (ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)).abs
    _log_functions.append(ctypes.cast(nothing, lib.llama_log_callback))
    lib.llama_log_set(_log_functions[-1], None)


def _grammar(sampling: Sampling) -> str:
    """The grammar that a run must follow; "" for none. Raises EngineError, also for references to elsewhere."""
    if not sampling.json_schema:
        return sampling.grammar
    if sampling.grammar:
        raise EngineError("An answer follows a grammar or a JSON schema, not both.")
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(sampling.json_schema))
    except Exception as error:
        raise EngineError(f"The JSON schema can't be made into a grammar: {error!r}.") from error


def _open_cache(cache: Any, memory: int, disk: int) -> tuple[ChunkCache, Path | None, Callable[[], None]]:
    """The cache to use, where to remember file hashes, and what gives the cache back."""
    if cache is not None and not isinstance(cache, (str, os.PathLike)):
        return cache, None, lambda: None
    folder = Path(cache) if cache is not None else user_cache()
    try:
        store, give_back = open_shared(chunk_folder(folder), memory, disk)
    except OSError as error:
        if cache is None:  # no home to write to: still useful, until it closes
            alone = MemoryCache(memory)
            return alone, None, alone.close
        raise EngineError(f"The cache folder {folder} can't be used: {error.strerror}.") from error
    return store, hashes_file(folder), give_back
