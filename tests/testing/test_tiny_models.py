"""The tiny models: the same bytes each time, loaded by the real llama.cpp, and fit for conversation."""

import numpy as np
import pytest

from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.models import ARCHS, write_model
from llmcrdt.testing.vocabulary import CHAT_TEMPLATE, vocabulary

MODELS = [(arch, "F32") for arch in ARCHS] + [("llama", quant) for quant in ("F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K_M")]


@pytest.mark.parametrize(("arch", "quant"), MODELS)
def test_the_same_arguments_give_the_same_bytes(tmp_path, arch, quant):
    first = write_model(tmp_path / "a.gguf", arch, quant=quant).read_bytes()
    assert write_model(tmp_path / "b.gguf", arch, quant=quant).read_bytes() == first
    assert write_model(tmp_path / "c.gguf", arch, quant=quant, seed=1).read_bytes() != first


@pytest.mark.parametrize(("arch", "quant"), [*MODELS, ("gemma3", "Q4_0"), ("mamba2", "F16"), ("lfm2", "Q8_0")])
def test_llama_cpp_loads_it_and_its_logits_are_sane(tmp_path, arch, quant):
    with LlamaEngine(write_model(tmp_path / "m.gguf", arch, quant=quant), NullCache(), n_threads=1) as engine:
        one, other = (engine.logits([300, 301, last]).result() for last in (302, 303))
        assert engine.n_ctx == 2048
        assert np.isfinite(one).all()
        assert 0.5 < one.std() < 5
        assert not np.array_equal(one, other)


def test_what_it_says_is_readable(tmp_path):
    from threading import Event

    from llmcrdt.engine.base import Finished, Sampling

    done, said = Event(), []

    def listen(event):
        if isinstance(event, Finished):
            said.extend(event.tokens)
            done.set()

    with LlamaEngine(write_model(tmp_path / "m.gguf"), NullCache(), n_threads=1) as engine:
        ids = engine.tokenizer.encode("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", special=True)
        engine.start(ids, max_tokens=60, sampling=Sampling(seed=1), on_event=listen)
        assert done.wait(60)
        text = engine.tokenizer.decode(said).decode()
    assert text.isascii()
    assert all(c.isalpha() or c in " .," for c in text)


def test_the_vocabulary_is_whole():
    words = vocabulary()
    assert len(words.texts) == len(set(words.texts)) == 1024
    assert len(words.scores) == len(words.types) == len(words.voice) == 1024
    assert [words.texts[3 + byte] for byte in (0, 255)] == ["<0x00>", "<0xFF>"]
    assert (words.texts[words.start], words.texts[words.end]) == ("<|im_start|>", "<|im_end|>")


def test_unknown_models_are_refused(tmp_path):
    for arch, quant in (("gpt5", "F32"), ("llama", "Q1")):
        with pytest.raises(ValueError, match="no such model"):
            write_model(tmp_path / "m.gguf", arch, quant=quant)


def render(messages, **more):
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(CHAT_TEMPLATE).render(messages=messages, bos_token="<s>", eos_token="", **more)


def test_the_template_prints_chatml():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "}]
    assert render(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n hi <|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_prints_tools_calls_and_results():
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    text = render(
        [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "2"}]},
            {"role": "tool", "content": "2"},
        ],
        tools=[{"type": "function", "function": {"name": "add"}}],
    )
    assert '\n<tools>\n{"function": {"name": "add"}, "type": "function"}\n</tools>\n' in text
    printed = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{printed}\n{printed}<|im_end|>\n" in text
    assert text.endswith("<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n")


def test_the_template_keeps_prefixes():
    """Each prompt and its answer are the beginning of the next prompt."""
    messages, text = [], ""
    for turn in range(4):
        messages.append({"role": "user", "content": f"question {turn}"})
        prompt = render(messages, add_generation_prompt=True)
        assert prompt.startswith(text)
        messages.append({"role": "assistant", "content": f"answer {turn}"})
        text = f"{prompt}answer {turn}<|im_end|>"
    assert render(messages).startswith(text)
