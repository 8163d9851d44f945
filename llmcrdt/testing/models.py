"""Tiny GGUF models with random weights, made by code: real files for the real llama.cpp, a few megabytes each.

They know nothing, so they speak noise, but in readable syllables. Five architectures stand for the four
kinds of memory: ``llama`` and ``qwen2`` (full attention), ``gemma3`` (sliding window of 64), ``mamba2`` (recurrent),
``lfm2`` (hybrid). The same arguments give the same bytes. Needs ``llmcrdt[testing]``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .vocabulary import CHAT_TEMPLATE, Vocabulary, vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arch = Literal["llama", "qwen2", "gemma3", "mamba2", "lfm2"]
Quant = Literal["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K_M"]
ARCHS: tuple[Arch, ...] = ("llama", "qwen2", "gemma3", "mamba2", "lfm2")

_FILE_TYPE = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_M": 15}
_N_HEAD, _N_HEAD_KV, _WINDOW = 4, 2, 64


def write_model(
    path: str | os.PathLike[str],
    arch: Arch = "llama",
    *,
    seed: int = 0,
    n_layer: int = 4,
    n_embd: int | None = None,
    quant: Quant = "F32",
    context: int = 2048,
    window: int = _WINDOW,
    original_context: int = 0,
    chat_template: str = CHAT_TEMPLATE,
) -> Path:
    """Write a model of random weights to ``path`` and return it.

    ``n_embd`` is 128, or 256 for Q4_K_M (which needs rows of a multiple of 256). ``context`` is the trained context in
    tokens, ``window`` gemma3's sliding window, ``original_context`` the length before a rope extension. Raises
    ValueError for an unknown ``arch`` or ``quant``.
    """
    if arch not in ARCHS or quant not in _FILE_TYPE:
        raise ValueError(f"no such model: {arch} {quant}")
    target = Path(path)
    n_embd = n_embd or (256 if quant == "Q4_K_M" else 128)
    if quant == "Q4_K_M":
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            plain = Path(folder) / "f16.gguf"
            _Writer(
                plain, arch, seed, n_layer, n_embd, "F16", (context, original_context), window, chat_template
            ).write()
            _quantize(plain, target)
    else:
        _Writer(target, arch, seed, n_layer, n_embd, quant, (context, original_context), window, chat_template).write()
    return target


def _quantize(source: Path, target: Path) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = _FILE_TYPE["Q4_K_M"], 1
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise RuntimeError("llama.cpp could not quantise the model")
    _KEEP.append(silent)


_KEEP: list[object] = []  # llama.cpp goes on calling the log function, so it must outlive this call


def write_adapter(path: str | os.PathLike[str], *, seed: int = 0, n_embd: int = 128) -> Path:
    """Write a LoRA adapter of rank 2 for a tiny ``llama`` of ``n_embd``: it bends the queries of the first layer."""
    import gguf
    import numpy as np

    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(os.fspath(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", random.standard_normal((2, n_embd), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", random.standard_normal((n_embd, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


class _Writer:
    """One model file: metadata first, then random tensors in a fixed order, so that a seed decides every byte."""

    def __init__(
        self,
        path: Path,
        arch: Arch,
        seed: int,
        n_layer: int,
        n_embd: int,
        quant: str,
        context: tuple[int, int],
        window: int,
        template: str,
    ) -> None:
        import gguf
        import numpy as np

        self.arch, self.n_layer, self.n_embd, self.quant = arch, n_layer, n_embd, quant
        self.context, self.window, self.template = context, window, template
        self.head, self.n_ff = n_embd // _N_HEAD, 2 * n_embd
        self.words: Vocabulary = vocabulary()
        self.random = np.random.default_rng(seed)
        self.gguf: Any = gguf
        self.file: Any = gguf.GGUFWriter(str(path), arch)

    def write(self) -> None:
        self._metadata()
        self._tokenizer()
        self._tensors()
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()

    def _metadata(self) -> None:
        f, a = self.file, self.arch
        f.add_name(f"tiny {a} {self.quant}")
        f.add_file_type(_FILE_TYPE[self.quant])
        f.add_context_length(self.context[0])
        if self.context[1]:
            f.add_rope_scaling_orig_ctx_len(self.context[1])
        f.add_embedding_length(self.n_embd)
        f.add_block_count(self.n_layer)
        f.add_feed_forward_length(self.n_ff)
        f.add_layer_norm_rms_eps(1e-5)
        if a == "mamba2":
            for key, value in (("conv_kernel", 4), ("inner_size", 2 * self.n_embd), ("state_size", 16)):
                f.add_uint32(f"mamba2.ssm.{key}", value)
            f.add_uint32("mamba2.ssm.time_step_rank", 8)
            f.add_uint32("mamba2.ssm.group_count", 1)
            return
        f.add_head_count(_N_HEAD)
        f.add_head_count_kv([self._kv_heads(i) for i in range(self.n_layer)] if a == "lfm2" else _N_HEAD_KV)
        f.add_rope_dimension_count(self.head)
        f.add_rope_freq_base(10000.0)
        if a == "gemma3":
            f.add_key_length(self.head)
            f.add_value_length(self.head)
            f.add_sliding_window(self.window)
            f.add_uint32("gemma3.attention.sliding_window_pattern", 2)
        if a == "lfm2":
            f.add_uint32("lfm2.shortconv.l_cache", 3)

    def _kv_heads(self, layer: int) -> int:
        """In lfm2 every other layer attends; 0 heads mark a short convolution."""
        return _N_HEAD_KV if layer % 2 else 0

    def _tokenizer(self) -> None:
        f, words = self.file, self.words
        f.add_tokenizer_model("llama")
        f.add_tokenizer_pre("default")
        f.add_token_list(words.texts)
        f.add_token_scores(words.scores)
        f.add_token_types(words.types)
        f.add_bos_token_id(words.bos)
        f.add_eos_token_id(words.end)
        f.add_unk_token_id(0)
        f.add_add_bos_token(False)
        f.add_add_space_prefix(False)
        if self.template:
            f.add_chat_template(self.template)

    def _tensors(self) -> None:
        import numpy as np

        n, v = self.n_embd, len(self.words.texts)
        self._add("token_embd.weight", self._normal(v, n), matrix=True)
        self._norm("token_embd_norm.weight" if self.arch == "lfm2" else "output_norm.weight", n)
        output = self._normal(v, n) * np.array(self.words.voice, dtype=np.float32)[:, None] / n**0.5
        self._add("output.weight", output, matrix=True)
        layer: Callable[[str, int], None] = {
            "llama": self._attention_layer, "qwen2": self._attention_layer, "gemma3": self._attention_layer,
            "mamba2": self._mamba_layer, "lfm2": self._lfm_layer,
        }[self.arch]  # fmt: skip
        for i in range(self.n_layer):
            layer(f"blk.{i}.", i)

    def _attention_layer(self, at: str, layer: int) -> None:
        self._norm(at + "attn_norm.weight", self.n_embd)
        self._attention(at)
        if self.arch == "qwen2":
            for name, heads in (("q", _N_HEAD), ("k", _N_HEAD_KV), ("v", _N_HEAD_KV)):
                self._add(f"{at}attn_{name}.bias", self._normal(heads * self.head) * 0.1)
        if self.arch == "gemma3":
            self._head_norms(at)
            self._norm(at + "post_attention_norm.weight", self.n_embd)
        self._feed_forward(at)
        if self.arch == "gemma3":
            self._norm(at + "post_ffw_norm.weight", self.n_embd)

    def _lfm_layer(self, at: str, layer: int) -> None:
        n = self.n_embd
        self._norm(at + "attn_norm.weight", n)
        if self._kv_heads(layer):
            self._attention(at)
            self._head_norms(at)
        else:
            self._add(at + "shortconv.conv.weight", self._normal(n, 3) * 0.5)
            self._matrix(at + "shortconv.in_proj.weight", n, 3 * n)
            self._matrix(at + "shortconv.out_proj.weight", n, n)
        self._feed_forward(at)

    def _mamba_layer(self, at: str, layer: int) -> None:
        import numpy as np

        n, inner, state, rank = self.n_embd, 2 * self.n_embd, 16, 8
        width = inner + 2 * state
        self._norm(at + "attn_norm.weight", n)
        self._matrix(at + "ssm_in.weight", n, 2 * inner + 2 * state + rank)
        self._add(at + "ssm_conv1d.weight", self._normal(width, 4) * 0.5)
        self._add(at + "ssm_conv1d.bias", self._normal(width) * 0.1)
        self._add(at + "ssm_dt.bias", self._normal(rank) * 0.1)
        self._add(at + "ssm_a", -np.abs(self._normal(rank, 1)) - np.float32(0.1))
        self._add(at + "ssm_d", 1 + self._normal(rank, 1) * 0.1)
        self._add(at + "ssm_norm.weight", 1 + self._normal(1, inner) * 0.1)
        self._matrix(at + "ssm_out.weight", inner, n)

    def _attention(self, at: str) -> None:
        n, d = self.n_embd, self.head
        self._matrix(at + "attn_q.weight", n, _N_HEAD * d)
        self._matrix(at + "attn_k.weight", n, _N_HEAD_KV * d)
        self._matrix(at + "attn_v.weight", n, _N_HEAD_KV * d)
        self._matrix(at + "attn_output.weight", _N_HEAD * d, n)

    def _head_norms(self, at: str) -> None:
        self._norm(at + "attn_q_norm.weight", self.head)
        self._norm(at + "attn_k_norm.weight", self.head)

    def _feed_forward(self, at: str) -> None:
        self._norm(at + "ffn_norm.weight", self.n_embd)
        self._matrix(at + "ffn_gate.weight", self.n_embd, self.n_ff)
        self._matrix(at + "ffn_up.weight", self.n_embd, self.n_ff)
        self._matrix(at + "ffn_down.weight", self.n_ff, self.n_embd)

    def _normal(self, *shape: int) -> NDArray[np.float32]:
        import numpy as np

        return self.random.standard_normal(shape, dtype=np.float32)

    def _norm(self, name: str, n: int) -> None:
        self._add(name, 1 + self._normal(n) * 0.1)

    def _matrix(self, name: str, fan_in: int, fan_out: int) -> None:
        self._add(name, self._normal(fan_out, fan_in) / fan_in**0.5, matrix=True)

    def _add(self, name: str, values: NDArray[np.float32], *, matrix: bool = False) -> None:
        """Matrices take the model's number format; norms, biases and kernels stay F32, as llama.cpp wants them."""
        import numpy as np

        values = np.ascontiguousarray(values, dtype=np.float32)
        if not matrix or self.quant == "F32":
            self.file.add_tensor(name, values)
            return
        kind = getattr(self.gguf.GGMLQuantizationType, self.quant)
        self.file.add_tensor(name, self.gguf.quants.quantize(values, kind), raw_dtype=kind)
