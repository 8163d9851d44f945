"""Opens a model and its contexts, and says what they are. ``lib`` is the low-level llama-cpp-python module."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...exceptions import EngineError, NotAModel
from ..base import Mode
from ..prefill_plan import chunk_length
from .context import BATCH, Shape
from .fingerprint import fingerprint
from .gguf_header import check_model_file

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
_MOST_SCRATCH = 512 << 20
_ERROR_LEVEL = 4  # of ggml's log
_NATIVE = {".dylib", ".dll"}
_log_lines: deque[str] = deque(maxlen=6)


@dataclass(frozen=True)
class Settings:
    """Settings of a context. Only ``n_threads`` can't change KV state (where it is evaluated canonically)."""

    n_threads: int
    n_gpu_layers: int
    offload_kqv: bool
    type_k: str
    type_v: str
    flash_attn: bool | None
    rope_freq_base: float
    rope_freq_scale: float
    lora: tuple[tuple[Path, float], ...] = ()

    def fingerprint_fields(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("n_threads", "lora")}


def keep_log(level: int, text: bytes, data: Any) -> None:
    """llama.cpp's log function: keeps the last errors for an exception's message, prints nothing."""
    if level >= _ERROR_LEVEL and text.strip():
        _log_lines.append(text.decode("utf-8", "replace").strip())


def _last_log() -> str:
    lines = " ".join(_log_lines)
    _log_lines.clear()
    return f" llama.cpp said: {lines}" if lines else ""


def load_model(lib: Any, path: Path, settings: Settings) -> Any:
    """A pointer to the loaded model. Raises NotAModel, with what llama.cpp said."""
    _log_lines.clear()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = settings.n_gpu_layers
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise NotAModel(
            f"llama.cpp can't load {path}.{_last_log()}",
            hint="It may be cut short: compare its size, or download it again. Or llama.cpp is too old for it.",
        )
    if lib.llama_model_has_encoder(model) or lib.llama_model_is_diffusion(model):
        lib.llama_model_free(model)
        raise NotAModel(f"{path} is not a model that continues text.", hint="Use a decoder-only model.")
    return model


def load_adapters(lib: Any, model: Any, settings: Settings) -> tuple[Any, Any]:
    """The LoRA adapters of ``settings`` and their scales, as arrays for C. They live as long as the model.

    Raises NotAModel for a file that is none for this model, or one that waits for invocation tokens.
    """
    adapters = []
    for path, _ in settings.lora:
        check_model_file(path)
        _log_lines.clear()
        adapter = lib.llama_adapter_lora_init(model, os.fsencode(path))
        if not adapter:
            raise NotAModel(f"llama.cpp can't load the adapter {path}.{_last_log()}", hint="Is it for this model?")
        if lib.llama_adapter_get_alora_n_invocation_tokens(adapter):
            raise NotAModel(f"The adapter {path} switches itself on amid a prompt.", hint="Use a plain LoRA.")
        adapters.append(adapter)
    n = len(adapters)
    scales = (ctypes.c_float * n)(*(scale for _, scale in settings.lora))
    return (ctypes.c_void_p * n)(*(ctypes.cast(adapter, ctypes.c_void_p).value for adapter in adapters)), scales


def new_context(
    lib: Any,
    model: Any,
    settings: Settings,
    size: int,
    adapters: tuple[Any, Any] = ((), ()),
    sequences: int = 2,
    *,
    streams: bool = False,
) -> Any:
    """A pointer to a context of ``size`` tokens, null where llama.cpp can't make one.

    Two ``sequences``, or more, that share their cells, so that a range of positions can be copied from one to the
    other; and a sliding window that forgets nothing, so that state can be cut. ``streams``: each sequence has ``size``
    cells of its own instead, and goes on by single tokens.
    """
    params = lib.llama_context_default_params()
    batch = max(2, sequences) if streams else BATCH
    params.n_ctx, params.n_batch, params.n_ubatch = size * sequences if streams else size, batch, batch
    params.n_seq_max, params.kv_unified, params.swa_full = sequences, not streams, True
    params.n_threads = params.n_threads_batch = settings.n_threads
    params.type_k, params.type_v = _kv_type(settings.type_k), _kv_type(settings.type_v)
    params.flash_attn_type = -1 if settings.flash_attn is None else int(settings.flash_attn)
    params.rope_freq_base, params.rope_freq_scale = settings.rope_freq_base, settings.rope_freq_scale
    params.offload_kqv = settings.offload_kqv
    params.embeddings, params.no_perf = False, True
    context = lib.llama_init_from_model(model, params)
    if context and adapters[0]:
        first = ctypes.cast(adapters[0], lib.llama_set_adapters_lora.argtypes[1])
        if lib.llama_set_adapters_lora(context, first, len(adapters[0]), adapters[1]):
            lib.llama_free(context)
            raise EngineError("llama.cpp did not take the LoRA adapters.")
    return context


def _kv_type(name: str) -> int:
    if name not in KV_TYPES:
        raise EngineError(f"{name!r} is not a KV type.", hint=f"One of {', '.join(KV_TYPES)}.")
    return KV_TYPES[name]


def without_flash(lib: Any, model: Any, settings: Settings, n_ctx: int) -> Settings:
    """``settings`` with flash attention off, if that was left open, and off is faster: where nothing is offloaded.

    On a processor its kernel for batches of fewer than 64 tokens takes about twice as long, and every prompt ends with
    such a batch. Left to llama.cpp where values are quantised (they need it), or the scratch space of a batch would be
    large without it.
    """
    scratch = 4 * int(lib.llama_model_n_head(model)) * BATCH * n_ctx
    plain = settings.n_gpu_layers == 0 and settings.type_v in ("f32", "f16", "bf16")
    if settings.flash_attn is not None or not plain or scratch > _MOST_SCRATCH:
        return settings
    return replace(settings, flash_attn=False)


def shape_of(lib: Any, model: Any) -> Shape:
    """The kind of memory that the model has."""
    window = int(lib.llama_model_n_swa(model))
    recurrent = bool(lib.llama_model_is_hybrid(model) or lib.llama_model_is_recurrent(model))
    if recurrent and not lib.llama_model_is_hybrid(model):
        return Shape((), window, recurrent)
    return Shape(("window", "attention") if window > 0 else ("attention",), window, recurrent)


def work_of(lib: Any, model: Any) -> Callable[[int, int], int]:
    """An estimate of the floating-point operations that evaluating positions ``start`` to ``stop`` takes.

    Two per weight and token, and four per layer, channel and pair of a token with one before it (attention's two
    products; Kaplan et al., 2020, table 1). Too many for mixtures of experts, and where few layers attend: eviction
    compares, it doesn't measure.
    """
    weights = int(lib.llama_model_n_params(model))
    width = int(lib.llama_model_n_layer(model)) * int(lib.llama_model_n_embd(model))

    def work(start: int, stop: int) -> int:
        return 2 * weights * (stop - start) + 4 * width * (stop * (stop + 1) - start * (start + 1)) // 2

    return work


def checked_chunk(chunk: int | None, window: int) -> int:
    """The chunk length to use: as asked, if it fits the window and leaves a batch room for one token more."""
    safe = chunk_length(window) or 64
    most = max(safe, min(window or BATCH, BATCH - 64) // 64 * 64)
    if chunk is not None and chunk != safe and not (0 < chunk <= most and chunk % 64 == 0):
        raise EngineError(f"Chunks of {chunk} tokens can't be exact here.", hint=f"Take a multiple of 64 up to {most}.")
    return chunk or safe


def context_sizes(lib: Any, model: Any, n_ctx: int | None, first: int | None) -> tuple[int, int, bool]:
    """The most tokens a sequence may hold, the size to start with, and whether that is beyond a rope extension.

    ``n_ctx`` is what was asked for; None: all the model was trained for, growing from ``first`` (None: not growing).
    Raises EngineError for a context too small to hold a prompt and an answer.
    """
    limit = n_ctx if n_ctx is not None else int(lib.llama_model_n_ctx_train(model))
    if limit < 2:
        raise EngineError(f"A context of {limit} tokens holds no prompt.", hint="Pass a larger n_ctx.")
    size = limit if n_ctx is not None or first is None else min(first, limit)
    edge = _long_rope_from(lib, model)
    if 0 < edge < limit:
        return limit, max(size, edge + 1), True  # so that growing never crosses the edge
    return limit, size, False


def _long_rope_from(lib: Any, model: Any) -> int:
    """Above this context length the model may rotate positions otherwise, from the first token on; 0: at no length.

    (llama.cpp chooses between "short" and "long" factors by the length of the context, not of the prompt.)
    """
    text = metadata(lib, model, metadata(lib, model, "general.architecture") + ".rope.scaling.original_context_length")
    return int(text) if text.isdecimal() else 0


def metadata(lib: Any, model: Any, key: str) -> str:
    """A field of the model file as text, at most 255 bytes of it; "" where there is none."""
    buffer = ctypes.create_string_buffer(256)
    n = lib.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if n > 0 else ""


def libraries(lib: Any) -> list[Path]:
    """The files of llama.cpp's own code."""
    folder = Path(lib.__file__).parent / "lib"
    return sorted({file.resolve() for file in folder.glob("*") if ".so" in file.name or file.suffix in _NATIVE})


def engine_fingerprint(
    lib: Any, settings: Settings, shape: Shape, chunk: int, long_rope: bool, *, weights: Sequence[str],
    lora: Sequence[str], engine: Sequence[str], mode: Mode = "exact",
) -> bytes:  # fmt: skip
    """The fingerprint of all that decides what state a token sequence has. Digests of the files of the model, of the
    adapters in ``settings``, and of llama.cpp's ``libraries``."""
    scales = [scale for _, scale in settings.lora]
    return fingerprint(
        settings.fingerprint_fields()
        | {
            "weights": list(weights),
            "engine": sorted(set(engine)),
            "system": lib.llama_print_system_info(),
            "kinds": shape.kinds,
            "recurrent": shape.recurrent,
            "window": shape.window,
            "swa_full": True,
            "batch": BATCH,
            "chunk": chunk,
            "long_rope": long_rope,
            "rotation_off": os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
        }
        | ({"lora": (list(lora), scales)} if settings.lora else {})
        | ({"mode": mode} if mode != "exact" else {})
    )
