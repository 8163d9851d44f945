"""Opens a model with all it takes to compute: files, weights, contexts, cache, thread; and frees it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...exceptions import EngineError, NotAModel
from ...kvcache import ChunkCache, MemoryCache, NullCache, Peer
from ...kvcache.paths import chunk_folder, exactness_folder, hashes_file, speeds_folder, user_cache
from ...kvcache.peers import Peers
from ...kvcache.sharing import open_shared
from ..base import Mode
from ..prefill_plan import chunk_length
from ..speed import Speed
from ..worker import Worker
from .context import BATCH, AbortFlag, Context, Shape
from .exactness import ExactnessCheck, WidthsCheck
from .fast_state import FastState
from .fingerprint import FileHashes, model_files
from .gguf_header import check_model_file, tokenizer_hash
from .kv_state import KVState
from .library import library
from .model import (
    Settings,
    checked_chunk,
    context_sizes,
    engine_fingerprint,
    libraries,
    load_adapters,
    load_model,
    metadata,
    new_context,
    shape_of,
    without_flash,
    work_of,
)
from .provenance import Provenance
from .rows import Rows
from .tokenizer import LlamaTokenizer
from .weights import Weights

_FIRST_CTX = 4096
_FIRST_STREAM = 1024
_PARKED = 4  # sequences beside the live one, in fast mode


@dataclass(frozen=True)
class EngineOptions:
    """The settings that an engine was asked for; see ``LlamaEngine``."""

    path: Path
    settings: Settings
    mode: Mode
    n_ctx: int | None
    chunk: int | None
    cache: ChunkCache | str | os.PathLike[str] | None
    cache_memory: int
    cache_disk: int
    slots: int = 1
    peers: tuple[Peer, ...] = ()


@dataclass
class OpenModel:
    """A model from open to close. ``state`` and ``context`` belong to the thread of ``worker``; the rest to any.

    ``rows``: the other sequences that are answered beside the live one, at most ``slots`` in all.
    ``closing``: it was asked to end; nothing begins any more. ``cache_folder``: where notes and chunks are kept.
    ``live_owner``: for whom the live state was made last. ``peers``: who hands chunks over, if anybody does.
    """

    lib: Any
    name: str
    mode: Mode
    n_ctx: int
    chunk: int
    cache_folder: Path | None
    tokenizer: LlamaTokenizer
    weights: Weights
    provenance: Provenance
    context: Context
    state: KVState | FastState
    abort: AbortFlag
    worker: Worker
    exactness: ExactnessCheck
    slots: int
    rows: Rows
    widths: WidthsCheck
    speed: Speed
    peers: Peers | None
    undo: contextlib.ExitStack
    closing: bool = False
    live_owner: str = ""

    def refresh(self) -> None:
        """On the engine's thread: go by what is known of the weights now."""
        before = self.provenance.fingerprint
        if self.provenance.update():
            self.state.forget()
        if self.provenance.fingerprint != before and isinstance(self.state, KVState):
            self.state.adopt(self.provenance.cache, self.provenance.fingerprint)
        self.find_exactness()

    def find_exactness(self) -> None:
        """Once it is known what model this is: what was found of it before, or else probes when there is time."""
        if self.provenance.named and self.speed.per_token is None:
            self.speed.recall(self.provenance.fingerprint.hex())
        if self.provenance.named and self.exactness.is_unknown(self.provenance.fingerprint):
            self.worker.background(self.exactness.probe(self.provenance.fingerprint))
        if self.provenance.named and self.widths.is_unknown(self.provenance.fingerprint):
            self.worker.background(self.widths.probe(self.provenance.fingerprint))

    def free(self) -> None:
        """On the engine's thread, its last job: give back all there is."""
        if self.provenance.named:
            self.speed.keep(self.provenance.fingerprint.hex())
        self.undo.close()


def open_model(options: EngineOptions, on_cache_open: Callable[[], None]) -> OpenModel:
    """``on_cache_open`` is called once the cache is open, which then ends after what opens now. Raises NotAModel,
    EngineMissing, EngineError and what ``on_cache_open`` raises; then everything is given back."""
    lib, path = library(), options.path
    check_model_file(path)
    with contextlib.ExitStack() as undo:
        lasting, memo, give_back = _open_cache(options.cache, options.cache_memory, options.cache_disk)
        undo.callback(give_back)
        on_cache_open()
        files, adapter_files = model_files(path), [file for file, _ in options.settings.lora]
        weights = _hold([*files, *adapter_files, *libraries(lib)], memo)
        undo.callback(weights.close)
        model = load_model(lib, path, options.settings)
        undo.callback(lib.llama_model_free, model)
        tokenizer = LlamaTokenizer(lib, model, tokenizer_hash(files[0]))
        undo.callback(tokenizer.close)
        name = metadata(lib, model, "general.name") or path.stem
        contexts = _Contexts(lib, model, options)
        context = contexts.open(contexts.first, contexts.limit)
        undo.callback(context.close)
        weights.loaded()
        counts = len(files), len(files) + len(adapter_files)
        keeps = contexts.safe and options.mode == "exact"
        provenance = Provenance(
            weights,
            lasting if keeps else NullCache(),
            options.cache_memory,
            lambda digests: contexts.fingerprint(digests, *counts),
        )
        folder = memo.parent if memo else None
        speed = Speed(speeds_folder(folder) if folder else None)
        peers = Peers(options.peers, lambda: speed.per_token) if options.peers else None
        exactness = ExactnessCheck(
            name,
            lambda: contexts.open(BATCH, 2 * BATCH),
            contexts.chunk,
            tokenizer.n_vocab,
            exactness_folder(folder) if folder else None,
            options.mode,
            speed,
        )
        rows = contexts.rows(contexts.first)
        undo.callback(rows.close)
        widths = WidthsCheck(
            lambda: contexts.open(BATCH, 2 * BATCH),
            lambda: contexts.rows(BATCH),
            options.slots,
            tokenizer.n_vocab,
            exactness_folder(folder) if folder else None,
            str(options.settings.n_threads),
        )
        return OpenModel(
            lib, name, options.mode, contexts.limit, contexts.chunk, folder, tokenizer, weights, provenance, context,
            contexts.state(context, provenance, peers), contexts.abort, Worker(f"llmcrdt-engine-{name}"), exactness,
            options.slots, rows, widths, speed, peers, undo.pop_all(),
        )  # fmt: skip


class _Contexts:
    """How contexts of a loaded model are made, and what state they have. Raises EngineError for settings that don't
    fit the model."""

    def __init__(self, lib: Any, model: Any, options: EngineOptions) -> None:
        self._lib, self._model, self._mode = lib, model, options.mode
        self._shape: Shape = shape_of(lib, model)
        self.safe = chunk_length(self._shape.window) > 0
        """Whether there is a chunk length that loses nothing on its way out of llama.cpp."""
        self.chunk = checked_chunk(options.chunk, self._shape.window)
        self.limit, self.first, self._long_rope = context_sizes(
            lib, model, options.n_ctx, _FIRST_CTX if self.safe else None
        )
        self._settings = without_flash(lib, model, options.settings, self.limit)
        self._adapters = load_adapters(lib, model, self._settings)
        self._slots_at_once = options.slots
        self._slots = range(2, 2 + _PARKED) if options.mode == "fast" else range(0)
        self.abort = AbortFlag()

    def open(self, first: int, limit: int) -> Context:
        """A context of ``first`` tokens that grows up to ``limit``."""

        def make(size: int) -> Any:
            return new_context(self._lib, self._model, self._settings, size, self._adapters, 2 + len(self._slots))

        return Context(
            self._lib, make, self._shape, size=first, limit=limit, piece=self.chunk, abort=self.abort
        )  # fmt: skip

    def rows(self, first: int) -> Rows:
        """Streams for as many sequences as are answered at once, of ``first`` tokens each at least."""
        slots = self._slots_at_once

        def make(size: int, streams: int) -> Any:
            return new_context(self._lib, self._model, self._settings, size, self._adapters, streams, streams=True)

        least = max(min(first, _FIRST_STREAM), self.first if self._long_rope else 0)
        return Rows(self._lib, make, slots, least=least, limit=self.limit, abort=self.abort)

    def state(self, context: Context, known: Provenance, peers: Peers | None) -> KVState | FastState:
        """The KV state of ``context``, in the mode that was asked for."""
        if self._mode == "fast":
            return FastState(context, self._slots)
        work = work_of(self._lib, self._model)
        return KVState(context, known.cache, known.fingerprint, self.chunk, work, known.sound, peers)

    def fingerprint(self, digests: Sequence[str], weights: int, lora: int) -> bytes:
        """Of ``digests``, the first are of the model's files, up to ``lora`` of adapters, then of llama.cpp's code."""
        return engine_fingerprint(
            self._lib, self._settings, self._shape, self.chunk, self._long_rope, weights=digests[:weights],
            lora=digests[weights:lora], engine=digests[lora:], mode=self._mode,
        )  # fmt: skip


def _hold(files: Sequence[Path], memo: Path | None) -> Weights:
    try:
        return Weights(files, FileHashes(memo))
    except OSError as error:
        raise NotAModel(f"{error.filename} can't be read: {error.strerror}.") from error


def _open_cache(
    cache: ChunkCache | str | os.PathLike[str] | None, memory: int, disk: int
) -> tuple[ChunkCache, Path | None, Callable[[], None]]:
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
